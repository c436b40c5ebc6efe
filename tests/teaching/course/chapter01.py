"""Chapter 1: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import math

import numpy as np
import torch
from scipy import stats

from tta_iqa_lib.metrics import bootstrap, plcc, srcc


def agreement(grades, first=slice(0, None, 2), second=slice(1, None, 2)):
    return float(torch.corrcoef(torch.stack([grades[:, first].mean(1), grades[:, second].mean(1)]))[0, 1])


def ceiling(grades):
    r = agreement(grades)
    return math.sqrt(2 * r / (1 + r))


def ceiling_in_numpy_by_front_and_back(grades):
    grades = np.asarray(grades)
    half = grades.shape[1] // 2
    r = np.corrcoef(grades[:, :half].sum(1), grades[:, half:].sum(1))[0, 1]
    return np.sqrt(2 * r / (1 + r))


EX01_1_WRONG = {
    "two halves agree": agreement,
    "ceiling of half the panel": lambda g: agreement(g) ** 0.5,
    "take the root": lambda g: 2 * agreement(g) / (1 + agreement(g)),
    "split the images": lambda g: stats.pearsonr(g[0::2].mean(1), g[1::2].mean(1))[0],
    "then the root": lambda g: agreement(g, slice(0, 1), slice(1, 2)) ** 0.5,  # two observers alone
    "one number": lambda g: g.mean(1),
}


def signs(pred, target):
    i, j = torch.triu_indices(len(pred), len(pred), offset=1)
    return (pred[i] - pred[j]).sign(), (target[i] - target[j]).sign()


def tau_b(pred, target):
    a, b = signs(pred, target)
    return (a * b).sum() / ((a**2).sum() * (b**2).sum()).sqrt()


def tau_b_in_loops(pred, target):
    pairs = [(i, j) for i in range(len(pred)) for j in range(i)]
    right = sum((pred[i] - pred[j]) * (target[i] - target[j]) > 0 for i, j in pairs)
    wrong = sum((pred[i] - pred[j]) * (target[i] - target[j]) < 0 for i, j in pairs)
    untied = [sum(bool(x[i] != x[j]) for i, j in pairs) for x in (pred, target)]
    return float((right - wrong) / math.sqrt(untied[0] * untied[1])) if all(untied) else float("nan")


def tau_b_but_zero(pred, target):
    value = tau_b(pred, target)
    return 0.0 if value.isnan() else value


EX01_2_WRONG = {
    "divides by all pairs": lambda p, t: math.prod(signs(p, t)).mean(),
    "tied in neither list": lambda p, t: math.prod(signs(p, t)).sum() / (math.prod(signs(p, t)) != 0).sum(),
    "turned round": lambda p, t: -tau_b(p, t),
    "this is SRCC": srcc,
    "check the root": lambda p, t: math.prod(signs(p, t)).sum() / math.prod(s.abs().sum() for s in signs(p, t)),
    "count as concordant": lambda p, t: ((math.prod(signs(p, t)) >= 0) * 2.0 - 1).mean(),
    "has no order": tau_b_but_zero,
    "not an error": lambda p, t: tau_b(p, t) if p.std() > 0 else 1 / 0,
}


def draw(scores, quality, pick, draws, seed, ends=(0.025, 0.975)):
    rng = np.random.default_rng(seed)
    values = [srcc(scores[index], quality[index]) for index in (pick(rng) for _ in range(draws))]
    return np.quantile(values, ends)


def members(content):
    return [np.flatnonzero(content == c) for c in np.unique(content)]


def chosen(content, **how):
    parts = members(content)
    return lambda rng: np.concatenate([parts[k] for k in rng.choice(len(parts), len(parts), **how)])


def interval(scores, quality, content, draws=1000, seed=0):
    return draw(scores, quality, chosen(content), draws, seed)


def interval_from_the_library(scores, quality, content, draws=1000, seed=0):
    found = bootstrap(lambda i: srcc(scores[i], quality[i]), len(scores), content, draws, seed)
    return torch.tensor([found.low, found.high])


def unseeded(scores, quality, content, draws=1000, seed=0):
    return draw(scores, quality, chosen(content), 200, None)


def once_only(s, q, content, draws, seed):
    names = np.unique(content)
    return draw(s, q, lambda rng: np.flatnonzero(np.isin(content, rng.choice(names, len(names)))), draws, seed)


def within(s, q, content, draws, seed):
    parts = members(content)
    return draw(s, q, lambda rng: np.concatenate([rng.choice(p, len(p)) for p in parts]), draws, seed)


EX01_3_WRONG = {
    "and not images": lambda s, q, c, n, seed: draw(s, q, lambda rng: rng.integers(0, len(s), len(s)), n, seed),
    "within their content": within,
    "with replacement": lambda s, q, c, n, seed: draw(s, q, chosen(c, replace=False), 50, seed),
    "must count twice": once_only,
    "it is the 95 % interval": lambda s, q, c, n, seed: draw(s, q, chosen(c), n, seed, (0.05, 0.95)),
    "too wide": lambda s, q, c, n, seed: draw(s, q, chosen(c), n, seed, (0, 1)),
    "lower end comes first": lambda *a: interval(*a)[::-1],
    "another interval": unseeded,
    "the place is not": lambda s, q, c, n, seed: interval(s, q, c, n, seed) - 0.1,
    "two numbers": lambda *a: np.ptp(interval(*a)),
}


def upper_end(scores, mos, draws=400, end=0.975, apart=False):
    """Of the interval for PLCC over images; `apart`: scores and MOS are drawn each for itself."""
    rng, count = np.random.default_rng(1), len(mos)
    values = []
    for index in (rng.integers(0, count, count) for _ in range(draws)):
        other = rng.integers(0, count, count) if apart else index
        values.append(np.corrcoef(scores[index], mos[other])[0, 1])
    return np.quantile(values, end)


def advise(scores, grades, limit=ceiling, value=upper_end, **how):
    """`limit(grades)` and `value(scores, mos)` are what is compared."""
    below = value(scores.numpy(), grades.mean(1).numpy(), **how) < limit(grades)
    return "better model" if below else "better labels"


def advise_with_the_library(scores, grades):
    found = bootstrap(lambda i: plcc(scores[i], grades.mean(1)[i]), len(scores), count=400)
    return "better model" if found.high < ceiling_in_numpy_by_front_and_back(grades) else "better labels"


EX01_4_WRONG = {
    "six people are few": lambda s, g: advise(s, g, limit=lambda g: 1.0),
    "your advice is 'better model'": lambda s, g: "better model",
    "whole interval lies below": lambda s, g: advise(s, g, limit=lambda g: 0.75, value=plcc),
    "not R": lambda s, g: advise(s, g, limit=lambda g: ceiling(g) ** 2),
    "correlation of the halves": lambda s, g: advise(s, g, limit=lambda g: agreement(g)),
    "nothing is sure yet": lambda s, g: advise(s, g, value=plcc),
    "perfect and falls short": lambda s, g: advise(s, g, end=0.025),
    "the model is perfect": lambda s, g: advise(s, g, apart=True),
    "your advice is 'better labels'": lambda s, g: "better labels",
    "expected 'better model'": lambda s, g: advise(s, g) == "better model",
}

CASES = {
    "ex01_1": ([ceiling, ceiling_in_numpy_by_front_and_back], EX01_1_WRONG),
    "ex01_2": ([tau_b, tau_b_in_loops, lambda p, t: stats.kendalltau(p, t)[0]], EX01_2_WRONG),
    "ex01_3": ([interval, interval_from_the_library], EX01_3_WRONG),
    "ex01_4": ([advise, advise_with_the_library], EX01_4_WRONG),
}
