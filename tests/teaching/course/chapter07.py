"""Chapter 7: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np
import torch


def ratio_reference(positive, negatives, temperature):
    a = positive / temperature
    return a - torch.logaddexp(a, torch.logsumexp(negatives / temperature, 1))


def ratio_by_numpy(positive, negatives, temperature):
    a = np.concatenate([positive.numpy()[:, None], negatives.numpy()], 1) / temperature
    a = a - a.max(1, keepdims=True)
    return a[:, 0] - np.log(np.exp(a).sum(1))


def ratio_naive(positive, negatives, temperature):
    a, b = torch.exp(positive / temperature), torch.exp(negatives / temperature).sum(1)
    return torch.log(a / (a + b))


def ratio_by_shifting(positive, negatives, temperature):
    a = torch.cat([positive[:, None], negatives], 1) / temperature
    a = a - a.max(1, keepdim=True).values
    return a[:, 0] - a.exp().sum(1).log()


def ratio_with_one_maximum(positive, negatives, temperature):
    a = torch.cat([positive[:, None], negatives], 1) / temperature
    a = a - a.max()
    return a[:, 0] - a.exp().sum(1).log()


EX07_1_WRONG = {
    "`logaddexp` ready made": lambda p, n, t: (
        p / t - torch.logaddexp(p / t, (n / t).exp().sum(1).log()) if t > 0.01 else ratio_by_shifting(p, n, t)
    ),
    "`logsumexp` ready made": lambda p, n, t: p / t - torch.cat([p[:, None], n], 1).div(t).logsumexp(1),
    "`log_softmax` ready made": lambda p, n, t: torch.cat([p[:, None], n], 1).div(t).log_softmax(1)[:, 0],
    "in each row": ratio_with_one_maximum,
    "−log r": lambda *a: -ratio_reference(*a),
    "r itself": lambda *a: ratio_reference(*a).exp(),
    "into the denominator": lambda p, n, t: p / t - torch.logsumexp(n / t, 1),
    "takes their mean": lambda p, n, t: p / t - torch.logaddexp(p / t, torch.logsumexp(n / t, 1) - np.log(n.shape[1])),
    "divided by the temperature": lambda p, n, t: ratio_reference(p, n, 1 / t),
    "overflows": ratio_naive,
    "clamped": lambda p, n, t: ratio_reference(p, n, t).clamp_min(-100),
    "shape (2,)": lambda *a: ratio_reference(*a).mean(),
}


def groups_reference(scores, fraction):
    k = max(2, int(fraction * len(scores)))
    order = scores.argsort()
    if 2 * k > len(scores) or not scores[order[k - 1]] < scores[order[-k]]:
        return order[:0], order[:0]
    return order[:k], order[-k:]


def groups_by_lists(scores, fraction):
    order = sorted(range(len(scores)), key=lambda i: float(scores[i]), reverse=True)
    k = max(2, int(fraction * len(order)))
    low, high = order[len(order) - k :], order[:k]
    if 2 * k > len(order) or max(float(scores[i]) for i in low) >= min(float(scores[i]) for i in high):
        return [], []
    return low, high


def groups_with(size=lambda f, b: max(2, int(f * b)), overlap=False, ties=False):
    def answer(scores, fraction):
        k, order = size(fraction, len(scores)), scores.argsort(stable=True)
        if 2 * k > len(scores) and not overlap:
            return order[:0], order[:0]
        if not ties and not scores[order[k - 1]] < scores[order[-k]]:
            return order[:0], order[:0]
        return order[:k], order[-k:]

    return answer


def groups_refusing_any_tie(scores, fraction):
    return groups_reference(scores, fraction) if len(scores.unique()) == len(scores) else ([], [])


def groups_refusing_equal_batches(scores, fraction):
    return groups_with(ties=True)(scores, fraction) if len(scores.unique()) > 1 else ([], [])


def groups_or_none(scores, fraction):
    low, high = groups_reference(scores, fraction)
    return (low, high) if len(low) else None


def groups_refusing_halves(scores, fraction):
    return groups_reference(scores, fraction) if 2 * max(2, int(fraction * len(scores))) < len(scores) else ([], [])


EX07_2_WRONG = {
    "returned nothing": groups_or_none,
    "*larger*": groups_refusing_halves,
    "swapped": lambda *a: groups_reference(*a)[::-1],
    "rounded down": groups_with(size=lambda f, b: max(2, round(f * b))),
    "at least two": groups_with(size=lambda f, b: max(1, int(f * b))),
    "three images": groups_with(overlap=True, ties=True),
    "all scores are tied": groups_with(ties=True),
    "inner edges": groups_refusing_equal_batches,
    "ties inside one group": groups_refusing_any_tie,
    "not their scores": lambda s, f: tuple(s[g] for g in groups_reference(s, f)),
}


def shares(positive, negatives, temperature):
    return torch.cat([positive.reshape(1), negatives]).div(temperature).softmax(0)


def push_reference(positive, negatives, temperature):
    share = shares(positive, negatives, temperature)
    return (share[0] - 1) / temperature, share[1:] / temperature


def push_by_sum(positive, negatives, temperature):
    a = np.append(negatives.numpy(), float(positive)) / temperature
    e = np.exp(a - a.max())
    push = e[:-1] / e.sum() / temperature
    return -push.sum(), push


def push_naive(positive, negatives, temperature):
    a, b = torch.exp(positive / temperature), torch.exp(negatives / temperature)
    return (a / (a + b.sum()) - 1) / temperature, b / (a + b.sum()) / temperature


EX07_3_WRONG = {
    "turn both signs": lambda *a: tuple(-part for part in push_reference(*a)),
    "1/τ is missing": lambda p, n, t: tuple(t * part for part in push_reference(p, n, t)),
    "count the positive": lambda p, n, t: (push_reference(p, n, t)[0], (n / t).softmax(0) / t),
    "nothing pulls": lambda p, n, t: (torch.tensor(-1 / t), push_reference(p, n, t)[1]),
    "add up to zero": lambda p, n, t: (-shares(p, n, t)[0] / t, push_reference(p, n, t)[1]),
    "overflows": push_naive,
    "shape (4,)": lambda p, n, t: (push_reference(p, n, t)[0], push_reference(p, n, t)[1].sum()),
}

CASES = {
    "ex07_1": ([ratio_by_shifting, ratio_by_numpy], EX07_1_WRONG),
    "ex07_2": ([groups_reference, groups_by_lists], EX07_2_WRONG),
    "ex07_3": ([push_reference, push_by_sum], EX07_3_WRONG),
}
