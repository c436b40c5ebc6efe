"""Chapter 4: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import warnings
from functools import cache

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import batch_moments, batchnorm_layers, sampling_error


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


def within(scores, quality, content, least=3, correlation=spearmanr, average=np.mean, constant=None, labels=None):
    values = []
    for name in sorted(set(content.tolist())):
        s, q = (np.asarray(v)[content == name] for v in (scores, quality))
        if len(s) < least:
            continue
        if np.ptp(s) == 0:
            values += [] if constant is None else [constant]
        elif np.ptp(q) == 0:
            values += [] if labels is None else [labels]
        else:
            values.append(correlation(s, q)[0])
    return average(values)


def weighted(scores, quality, content, least=3):
    names, counts = np.unique(content, return_counts=True)
    keep = [
        (n, c)
        for n, c in zip(names, counts, strict=True)
        if c >= least and np.ptp(np.asarray(scores)[content == n]) and np.ptp(np.asarray(quality)[content == n])
    ]
    return np.average(
        [tta.srcc(scores[content == n], quality[content == n]) for n, _ in keep], weights=[c for _, c in keep]
    )


def by_nanmean(scores, quality, content, least=3):
    groups = [torch.from_numpy(np.flatnonzero(content == name)) for name in np.unique(content)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.tensor([tta.srcc(scores[g], quality[g]) for g in groups if len(g) >= least]).nanmean()


def repair(scores, known, labels):
    slope = labels.std() / scores[known].std()
    return labels.mean() + slope * (scores - scores[known].mean())


def by_standard_scores(scores, known, labels):
    scores, labels = scores.numpy(), labels.numpy()
    return (scores - scores[known].mean()) / scores[known].std() * labels.std() + labels.mean()


@cache
def source():
    return tta.load_source_model()


def profile(images, divided=True):
    """r of each BatchNorm layer, or d² alone."""
    found, layers = [], batchnorm_layers(source()).values()

    def keep(layer, inputs):
        means = inputs[0].mean((2, 3))
        d2 = ((means.mean(0) - layer.running_mean) ** 2 / layer.running_var).mean()
        n2 = (means.var(0) / len(means) / layer.running_var).mean()
        found.append(float(d2 / n2 if divided else d2))

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    with torch.no_grad():
        source()(images)
    for hook in hooks:
        hook.remove()
    return found


def judge(images, limit=20.0, values=profile):
    first, *deeper = values(images)
    return "adapt" if first > limit else "look first" if max(deeper) > limit else "leave it"


def judge_by_shape(images):
    """By which layers are loud at all."""
    found = np.array(profile(images)) > 20
    return ("leave it", "look first", "adapt")[max(2 * int(found[0]), int(found.any()))]


def judge_by_the_last(images):
    return "adapt" if profile(images)[-1] > 20 else "leave it"


EX04_4_WRONG = {
    "out of focus": lambda x: "adapt" if max(profile(x)) > 20 else "leave it",
    "the last is quiet": judge_by_the_last,
    "the first layer says so": lambda x: {"adapt": "look first"}.get(judge(x), judge(x)),
    "unusual and the light": lambda x: "adapt" if profile(x)[0] > 20 else "leave it",
    "nothing has happened": lambda x: judge(x, limit=1.0),
    "should be 'adapt'": lambda x: judge(x, limit=2.0, values=lambda y: profile(y, divided=False)),
    "should be 'leave it'": lambda x: "look first",
    "one of the three verdicts": lambda x: profile(x)[0] > 20,
    "changed its inputs": lambda x: judge(x.sub_(0.01)),
}

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
        [repair, by_standard_scores],
        {
            "too flat": lambda s, k, y: np.polyval(np.polyfit(s[k], y, 1), s),
            "the spread is not": lambda s, k, y: s + y.mean() - s[k].mean(),
            "upside down": lambda s, k, y: y.mean() + s[k].std() / y.std() * (s - s[k].mean()),
            "not of the variances": lambda s, k, y: y.mean() + y.var() / s[k].var() * (s - s[k].mean()),
            "*same* rows": lambda s, k, y: y.mean() + y.std() / s.std() * (s - s.mean()),
            "turned round": lambda s, k, y: y.mean() - y.std() / s[k].std() * (s - s[k].mean()),
            "not on a straight line": lambda s, k, y: repair(s, k, y).index_put((k,), y),
            "changed its inputs": lambda s, k, y: s.sub_(s[k].mean()).mul_(y.std() / s[k].std()).add_(y.mean()),
            "expected all 40": lambda s, k, y: repair(s[k], torch.arange(len(k)), y),
            "must become those": lambda s, k, y: y.std() / s[k].std() * s,
        },
    ),
    "ex04_3": (
        [within, by_nanmean],
        {
            "over all images": lambda s, q, c, least=3: tta.srcc(s, q),
            "many images weigh more": weighted,
            "must be left out: two": lambda s, q, c, least=3: within(s, q, c, 2),
            "scores or labels": lambda s, q, c, least=3: within(s, q, c, least, labels=0.0),
            "labels are all equal": lambda s, q, c, least=3: within(s, q, c, least, labels=float("nan")),
            "exactly four": lambda s, q, c, least=3: within(s, q, c, 5 if least == 4 else least),
            "counts as 0": lambda s, q, c, least=3: within(s, q, c, least, constant=0.0),
            "linear correlation": lambda s, q, c, least=3: within(s, q, c, least, correlation=pearsonr),
            "NaN": lambda s, q, c, least=3: within(s, q, c, least, constant=float("nan")),
            "median": lambda s, q, c, least=3: within(s, q, c, least, average=np.median),
            "not used": lambda s, q, c, least=3: within(s, q, c, 3),
        },
    ),
    "ex04_4": ([judge, judge_by_shape], EX04_4_WRONG),
}
