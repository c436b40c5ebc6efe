"""Chapter 4: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import warnings

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

import tta_iqa_lib as tta
from tta_iqa_lib.batchnorm import batch_moments, sampling_error


def by_library(x, mean_s, var_s):
    d2, n2 = (batch_moments(x).mean - mean_s) ** 2 / var_s, sampling_error(x) / var_s
    return d2.mean() / n2.mean()


def ratio(x, m, v, ddof=1, count=None, inside=True):
    images = x.mean((2, 3))
    d2, n2 = (images.mean(0) - m) ** 2 / v, images.var(0, correction=ddof) / (count or len(x)) / v
    return float(d2.mean() / n2.mean() if inside else (d2 / n2).mean())


def of_pixels(x, m, v):
    return ((x.mean((0, 2, 3)) - m) ** 2 / v).mean() / (x.var((0, 2, 3)) / len(x) / v).mean()


def without_units(x, m, v):
    images = x.mean((2, 3))
    return ((images.mean(0) - m) ** 2).mean() / (images.var(0) / len(x)).mean()


def moving(x, m, v):
    value = ratio(x, m, v)
    m.zero_()
    return value


def parts(scores, quality, ddof=0, correlation=tta.plcc):
    a, b = scores.std(correction=ddof), quality.std(correction=ddof)
    return (scores.mean() - quality.mean()) ** 2, (a - b) ** 2, 2 * a * b * (1 - correlation(scores, quality))


def parts_numpy(scores, quality):
    s, y = np.asarray(scores), np.asarray(quality)
    return [
        float(p)
        for p in (np.mean(s - y) ** 2, (s.std() - y.std()) ** 2, 2 * (s.std() * y.std() - np.cov(s, y, ddof=0)[0, 1]))
    ]


def within(scores, quality, content, least=3, correlation=spearmanr, average=np.mean, constant=None):
    values = []
    for name in sorted(set(content.tolist())):
        s, q = (np.asarray(v)[content == name] for v in (scores, quality))
        if len(s) < least:
            continue
        if np.ptp(s) == 0:
            values += [] if constant is None else [constant]
        else:
            values.append(correlation(s, q)[0])
    return average(values)


def weighted(scores, quality, content, least=3):
    names, counts = np.unique(content, return_counts=True)
    keep = [
        (n, c) for n, c in zip(names, counts, strict=True) if c >= least and np.ptp(np.asarray(scores)[content == n])
    ]
    return np.average(
        [tta.srcc(scores[content == n], quality[content == n]) for n, _ in keep], weights=[c for _, c in keep]
    )


def by_nanmean(scores, quality, content, least=3):
    groups = [torch.from_numpy(np.flatnonzero(content == name)) for name in np.unique(content)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.tensor([tta.srcc(scores[g], quality[g]) for g in groups if len(g) >= least]).nanmean()


CASES = {
    "ex04_1": (
        [by_library, ratio],
        {
            "divide the variance": lambda x, m, v: ratio(x, m, v, count=1),
            "upside down": lambda x, m, v: 1 / ratio(x, m, v),
            "mean of the channels' ratios": lambda x, m, v: ratio(x, m, v, inside=False),
            "divides by B − 1": lambda x, m, v: ratio(x, m, v, ddof=0),
            "not from how single pixels": of_pixels,
            "its own unit": without_units,
            "no root": lambda x, m, v: ratio(x, m, v) ** 0.5,
            "changed its inputs": moving,
        },
    ),
    "ex04_2": (
        [parts, parts_numpy],
        {
            "their order is": lambda s, q: parts(s, q)[::-1],
            "square of the difference": lambda s, q: (s.mean() - q.mean(), *parts(s, q)[1:]),
            "divide by N": lambda s, q: parts(s, q, ddof=1),
            "not variances": lambda s, q: (
                parts(s, q)[0],
                (s.var(correction=0) - q.var(correction=0)) ** 2,
                parts(s, q)[2],
            ),
            "with SRCC": lambda s, q: parts(s, q, correlation=tta.srcc),
            "no unit": lambda s, q: (*parts(s, q)[:2], 1 - pearsonr(s, q)[0]),
            "what is left": lambda s, q: (*parts(s, q)[:2], ((s - q) ** 2).mean()),
        },
    ),
    "ex04_3": (
        [within, by_nanmean],
        {
            "over all images": lambda s, q, c, least=3: tta.srcc(s, q),
            "many images weigh more": weighted,
            "must be left out: two": lambda s, q, c, least=3: within(s, q, c, 2),
            "counts as 0": lambda s, q, c, least=3: within(s, q, c, least, constant=0.0),
            "linear correlation": lambda s, q, c, least=3: within(s, q, c, least, correlation=pearsonr),
            "NaN": lambda s, q, c, least=3: within(s, q, c, least, constant=float("nan")),
            "median": lambda s, q, c, least=3: within(s, q, c, least, average=np.median),
            "not used": lambda s, q, c, least=3: within(s, q, c, 3),
        },
    ),
}
