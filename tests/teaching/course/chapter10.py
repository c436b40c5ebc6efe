"""Chapter 10: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np
import torch

from tta_iqa_lib.experiments.analysis import holm


def calibrate_in_place(ratios, share):
    ratios.sort()
    return ratios[-round(share * len(ratios))]


EX10_1_WRONG = {
    "changed its inputs": calibrate_in_place,
    "wrong end": lambda r, share: np.quantile(r, share),
    "not Gaussian": lambda r, share: r.mean() + 1.645 * r.std(),
    "no alarm": lambda r, share: r.max() + 1,
    "were asked for": lambda r, share: np.quantile(r, 1 - share / 2),
    "second argument": lambda r, share: np.quantile(r, 0.95),
}


def holm_by_hand(p_values):
    out, largest = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        out[i] = largest
    return [out[i] for i in range(len(p_values))]


def holm_without_a_limit(p_values):
    out, largest = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, p_values[i] * (len(p_values) - rank))
        out[i] = largest
    return [out[i] for i in range(len(p_values))]


def holm_in_place(p_values):
    answer = holm(p_values)
    p_values.sort()
    return answer


EX10_2_WRONG = {
    "changed its inputs": holm_in_place,
    "Bonferroni": lambda p: [min(1, len(p) * x) for x in p],
    "order": lambda p: sorted(holm(p)),
    "at most 1": holm_without_a_limit,
    "never gets a smaller": lambda p: [min(1, x * (len(p) - sorted(p).index(x))) for x in p],
}


def chance(means, pictures):
    own = np.array([means[pictures == p].mean(0) for p in np.unique(pictures)])
    return own.var(0, ddof=1) / len(own)


def chance_in_torch(means, pictures):
    _, place = torch.unique(torch.as_tensor(pictures), return_inverse=True)
    total = torch.zeros(int(place.max()) + 1, means.shape[1], dtype=torch.float64)
    own = total.index_add(0, place, torch.as_tensor(means)) / torch.bincount(place)[:, None]
    return own.var(0) / len(own)


def own_means(means, pictures):
    return np.array([means[pictures == p].mean(0) for p in np.unique(pictures)])


EX10_3_WRONG = {
    "20 witnesses": lambda m, p: m.var(0, ddof=1) / len(m),
    "5 of them": lambda m, p: own_means(m, p).var(0, ddof=1) / len(m),
    "one less": lambda m, p: own_means(m, p).var(0) / 5,
    "single pictures": lambda m, p: own_means(m, p).var(0, ddof=1),
    "average the crops": lambda m, p: np.mean([m[p == q].var(0, ddof=1) / 4 for q in np.unique(p)], 0),
    "side by side": lambda m, p: m.reshape(5, 4, -1).mean(1).var(0, ddof=1) / 5,
    "one number a channel": lambda m, p: float(chance(m, p).mean()),
}

CASES = {
    "ex10_1": ([lambda r, s: np.quantile(r, 1 - s), lambda r, s: np.sort(r)[-round(s * len(r))]], EX10_1_WRONG),
    "ex10_2": ([holm, holm_by_hand], EX10_2_WRONG),
    "ex10_3": ([chance, chance_in_torch], EX10_3_WRONG),
}
