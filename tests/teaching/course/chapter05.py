"""Chapter 5: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import torch

from tta_iqa_lib.adaptation import Moments, blend


def mix_reference(ms, vs, mt, vt, a):
    mean = (1 - a) * ms + a * mt
    return mean, (1 - a) * (vs + (ms - mean) ** 2) + a * (vt + (mt - mean) ** 2)


def mix_by_second_moments(ms, vs, mt, vt, a):
    mean = ms + a * (mt - ms)
    return mean, (1 - a) * (vs + ms**2) + a * (vt + mt**2) - mean**2


def mix_in_place(ms, vs, mt, vt, a):
    mean, var = mix_reference(ms, vs, mt, vt, a)
    ms.copy_(mean)
    return mean, var


EX05_WRONG = {
    "misses the spread": lambda ms, vs, mt, vt, a: ((1 - a) * ms + a * mt, (1 - a) * vs + a * vt),
    "weights are swapped": lambda ms, vs, mt, vt, a: mix_reference(ms, vs, mt, vt, 1 - a),
    "standard deviation": lambda ms, vs, mt, vt, a: (
        mix_reference(ms, vs, mt, vt, a)[0],
        mix_reference(ms, vs, mt, vt, a)[1].sqrt(),
    ),
    "changed its inputs": mix_in_place,
    "the variance is not": lambda ms, vs, mt, vt, a: (
        mix_reference(ms, vs, mt, vt, a)[0],
        (1 - a) * vs + a * vt + (ms - mt) ** 2,
    ),
    "mean is not": lambda ms, vs, mt, vt, a: (ms + mt, vs + vt),
    "alpha = 0": lambda ms, vs, mt, vt, a: mix_reference(ms, vs, mt, vt, 0.25),
}


def share(shift, var, count):
    return shift**2 / (shift**2 + var / count)


def share_by_search(shift, var, count):
    alphas = torch.linspace(0, 1, 100001, dtype=torch.float64)
    return alphas[((1 - alphas) ** 2 * shift**2 + alphas**2 * var / count).argmin()]


EX05_2_WRONG = {
    "share of the source": lambda d, v, n: 1 - share(d, v, n),
    "single image": lambda d, v, n: share(d, v, 1),
    "standard deviations": lambda d, v, n: abs(d) / (abs(d) + (v / n) ** 0.5),
    "James and Stein": lambda d, v, n: max(0.0, 1 - v / n / d**2) if d else 0.0,
    "set its derivative": lambda d, v, n: n / (n + 16),
    "without a shift": lambda d, v, n: share(d, v, n) if d else 1.0,
}


def by_group(x, groups, eps, moments=None):
    y = torch.empty_like(x)
    for group in groups.unique():
        part = x[groups == group]
        mean = part.mean((0, 2, 3), keepdim=True)
        var = part.var((0, 2, 3), correction=0, keepdim=True)
        y[groups == group] = moments(part, mean, var, eps) if moments else (part - mean) / (var + eps).sqrt()
    return y


def by_group_with_pytorch(x, groups, eps):
    y = x.clone()
    for group in set(groups.tolist()):
        y[groups == group] = torch.nn.functional.batch_norm(x[groups == group], None, None, training=True, eps=eps)
    return y.numpy()


EX05_3_WRONG = {
    "whole batch": lambda x, g, eps: torch.nn.functional.batch_norm(x, None, None, training=True, eps=eps),
    "single images": lambda x, g, eps: torch.nn.functional.instance_norm(x, eps=eps),
    "biased variance": lambda x, g, eps: by_group(
        x, g, eps, lambda p, m, v, e: (p - m) / (p.var((0, 2, 3), keepdim=True) + e).sqrt()
    ),
    "under the root": lambda x, g, eps: by_group(x, g, eps, lambda p, m, v, e: (p - m) / (v.sqrt() + e)),
    "order": lambda x, g, eps: by_group(x, g, eps)[g.argsort(stable=True)],
    "shape of x": lambda x, g, eps: by_group(x, g, eps).mean((2, 3)),
    "channel by channel": lambda x, g, eps: by_group(
        x, g, eps, lambda p, m, v, e: (p - p.mean()) / (p.var(correction=0) + e).sqrt()
    ),
}

CASES = {
    "ex05_1": (
        [mix_reference, mix_by_second_moments, lambda *a: tuple(blend(Moments(*a[:2]), Moments(*a[2:4]), a[4]))],
        EX05_WRONG,
    ),
    "ex05_2": ([share, share_by_search], EX05_2_WRONG),
    "ex05_3": ([by_group, by_group_with_pytorch], EX05_3_WRONG),
}
