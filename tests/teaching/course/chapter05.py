"""Chapter 5: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import torch

from tta_iqa_lib.adaptation import Moments, blend


def unmix(mean, var, mean_s, var_s, alpha):
    mean_t = (mean - (1 - alpha) * mean_s) / alpha
    return mean_t, (var - (1 - alpha) * var_s) / alpha - (1 - alpha) * (mean_t - mean_s) ** 2


def unmix_by_second_moments(mean, var, mean_s, var_s, alpha):
    mean_t = mean_s + (mean - mean_s) / alpha
    second = (var + mean**2 - (1 - alpha) * (var_s + mean_s**2)) / alpha
    return mean_t.numpy(), (second - mean_t**2).numpy()


def unmix_in_place(mean, var, mean_s, var_s, alpha):
    answer = unmix(mean, var, mean_s, var_s, alpha)
    mean.copy_(answer[0])
    return answer


EX05_WRONG = {
    "forgets the spread": lambda m, v, ms, vs, a: (unmix(m, v, ms, vs, a)[0], (v - (1 - a) * vs) / a),
    "*batch's* mean": lambda m, v, ms, vs, a: (
        unmix(m, v, ms, vs, a)[0],
        (v - (1 - a) * vs) / a - (1 - a) * (m - ms) ** 2,
    ),
    "weights are swapped": lambda m, v, ms, vs, a: unmix(m, v, ms, vs, 1 - a),
    "mixes once more": lambda m, v, ms, vs, a: blend(Moments(ms, vs), Moments(m, v), a),
    "standard deviation": lambda *arguments: (unmix(*arguments)[0], unmix(*arguments)[1].sqrt()),
    "changed its inputs": unmix_in_place,
    "the variance is not": lambda *arguments: (unmix(*arguments)[0], 2 * unmix(*arguments)[1]),
    "mean is not right": lambda m, v, ms, vs, a: (m - ms, v - vs),
    "alpha = 1": lambda m, v, ms, vs, a: unmix(m, v, ms, vs, 0.25),
}


def share(shift, var, count):
    return shift**2 / (shift**2 + var / count)


def share_by_search(shift, var, count):
    alphas = torch.linspace(0, 1, 100001, dtype=torch.float64)
    return alphas[((1 - alphas) ** 2 * shift**2 + alphas**2 * var / count).argmin()]


def share_on_a_coarse_grid(shift, var, count):
    alphas = torch.linspace(0, 1, 101, dtype=torch.float64)
    return alphas[((1 - alphas) ** 2 * shift**2 + alphas**2 * var / count).argmin()]


EX05_2_WRONG = {
    "A search stops": share_on_a_coarse_grid,
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


def by_group_in_place(x, groups, eps):
    for group in groups.unique():
        part = x[groups == group]
        x[groups == group] = by_group(part, groups[groups == group], eps)
    return x


EX05_3_WRONG = {
    "changed its inputs": by_group_in_place,
    "`eps` is not used": lambda x, g, eps: by_group(x, g, 0.0),
    "here eps is 0.1": lambda x, g, eps: by_group(x, g, 1e-5),
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


def distance(folder):
    return float(folder.mean(0).abs().mean())


def beyond_chance(folder, home, size=None, measure=distance, limit=0.05):
    generator = torch.Generator().manual_seed(0)
    size = size or len(folder)
    draws = [measure(home[torch.randperm(len(home), generator=generator)[:size]]) for _ in range(200)]
    return sum(d >= measure(folder) for d in draws) <= limit * len(draws)


def beyond_three_deviations(folder, home):
    """Sees the folder's mean as one of many of its size, drawn with replacement."""
    rows = torch.randint(len(home), (300, len(folder)), generator=torch.Generator().manual_seed(1))
    draws = home[rows].mean(1).abs().mean(1)
    return distance(folder) > draws.mean() + 2.5 * draws.std()


EX05_4_WRONG = {
    "you would never": lambda folder, home: beyond_chance(folder, home, size=1),
    "own kind": lambda folder, home: distance(folder) > distance(home),
    "the *same* size": lambda folder, home: beyond_chance(folder, home, size=32),
    "32 in the dark lie": lambda folder, home: len(folder) > 2 and bool(folder.mean(0)[2] < -0.15),
    "100 in a light haze lie": lambda folder, home: len(folder) > 2 and distance(folder) > 0.15,
    "no fixed line": lambda folder, home: len(folder) > 2 and distance(folder) > 0.06,
    "re-measuring on two": lambda folder, home: (
        beyond_chance(folder, home) or (len(folder) == 2 and bool(folder.mean(0)[2] < -0.3))
    ),
    "True or False": lambda folder, home: distance(folder),
}

CASES = {
    "ex05_1": (
        [unmix, unmix_by_second_moments],
        EX05_WRONG,
    ),
    "ex05_2": ([share, share_by_search], EX05_2_WRONG),
    "ex05_3": ([by_group, by_group_with_pytorch], EX05_3_WRONG),
    "ex05_4": ([beyond_chance, beyond_three_deviations], EX05_4_WRONG),
}
