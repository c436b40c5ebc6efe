"""Chapter 4, shifts: its checkers."""

import numpy as np
import torch

from ...datasets.tinyshift import tinyshift
from ...imaging.distortions import distort
from ...metrics import srcc
from .checker import Wrong, checker, close


@checker("ex04_1")
def ex04_1(shift_ratio):
    """`shift_ratio(x, mean_s, var_s) -> r`: squared mean shift over what chance would give."""
    generator = torch.Generator().manual_seed(41)
    level = torch.randn(6, 5, 1, 1, generator=generator, dtype=torch.float64)  # images differ
    x = 0.4 + level + 2 * torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64)
    mean_s = torch.randn(5, generator=generator, dtype=torch.float64)
    var_s = 0.5 + 3 * torch.rand(5, generator=generator, dtype=torch.float64)
    value = torch.as_tensor(shift_ratio(x, mean_s, var_s), dtype=torch.float64)
    if value.numel() != 1:
        raise Wrong(f"expected one number for the layer; got shape {tuple(value.shape)}: average over channels")
    value = value.reshape(())
    a, m, v = x.numpy(), mean_s.numpy(), var_s.numpy()
    images, batch = a.mean((2, 3)), a.mean((0, 2, 3))
    squares, spread = (batch - m) ** 2, images.var(0, ddof=1)
    d2, n2 = (squares / v).mean(), (spread / len(a) / v).mean()
    if close(value, d2 / n2):
        return
    if close(value, d2 / n2 / len(a)):
        raise Wrong("divide the variance of the images' means by B: the batch's mean is an average of B of them")
    if close(value, n2 / d2):
        raise Wrong("upside down: r grows with the shift")
    if close(value, (squares / v / (spread / len(a) / v)).mean()):
        raise Wrong("this is the mean of the channels' ratios; average d² and n² over channels first")
    if close(value, d2 / (images.var(0) / len(a) / v).mean()):
        raise Wrong("the variance over images divides by B − 1: with few images the other one is too small")
    if any(close(value, d2 / (a.var((0, 2, 3), ddof=k) / n / v).mean()) for k in (0, 1) for n in (len(a), a.size / 5)):
        raise Wrong("chance comes from how the means of whole images differ, not from how single pixels do")
    if close(value, squares.mean() / (spread / len(a)).mean()):
        raise Wrong("each channel has its own unit: divide by var_s before you average over channels")
    if close(value, (np.abs(batch - m) / v**0.5).mean() / n2) or close(value, (d2 / n2) ** 0.5):
        raise Wrong("d² and n² are squares: no absolute value and no root")
    raise Wrong("not d² / n²: begin with x.mean((2, 3)), the mean of each image")


@checker("ex04_2")
def ex04_2(repair):
    """`repair(scores, known, labels) -> scores`: on the labelled rows neither level nor spread is wrong; the order stays."""
    generator = torch.Generator().manual_seed(42)
    quality = torch.rand(40, generator=generator, dtype=torch.float64)
    scores = 0.3 + 0.4 * quality**2 + 0.1 * torch.randn(40, generator=generator, dtype=torch.float64)
    known = torch.randperm(40, generator=generator)[:9]
    labels, own = quality[known].numpy(), scores[known].numpy()
    found = np.asarray(repair(scores, known, quality[known]), dtype=float)
    if found.shape != (40,):
        raise Wrong(f"expected all 40 scores, those without a label, too; got shape {found.shape}")
    slope = labels.std() / own.std()
    if close(found, labels.mean() + slope * (scores.numpy() - own.mean())):
        return
    fitted = np.polyfit(own, labels, 1)
    line = np.polyfit(scores.numpy(), found, 1)
    if not close(found, np.polyval(line, scores.numpy())):
        raise Wrong("these scores are not on a straight line over the old ones: pairs may have changed their order")
    if line[0] < 0:
        raise Wrong("the slope is negative: the order is turned round")
    if close(line, fitted):
        raise Wrong("the line of least squares is too flat: it leaves a spread that is PLCC times the labels'")
    if close(line[0], 1 / slope):
        raise Wrong("the slope is upside down: it takes the scores' spread to the labels'")
    if close(line[0], slope**2):
        raise Wrong("the slope is the ratio of the standard deviations, not of the variances")
    if close(line[0], labels.std() / scores.numpy().std()) or close(found.mean(), labels.mean()):
        raise Wrong("labels can be compared with the scores of the *same* rows only: take mean and spread over `known`")
    if close(found[known].mean(), labels.mean()):
        raise Wrong("the level is right on the labelled rows, the spread is not")
    raise Wrong("on the labelled rows mean and standard deviation must become those of the labels")


@checker("ex04_3")
def ex04_3(within):
    """`within(scores, quality, content, least) -> value`: the mean over contents of the SRCC within each."""
    generator = np.random.default_rng(43)
    content = np.repeat(["a", "b", "c", "d", "e", "f", "g"], [12, 4, 7, 2, 1, 5, 6])
    offset = dict(zip("abcdefg", (0.0, 3.0, -4.0, 8.0, 1.0, 5.0, 2.0), strict=True))
    quality = generator.normal(size=len(content))
    scores = quality + generator.normal(size=len(content)) + np.array([offset[c] for c in content])
    scores[content == "f"] = 5.0  # constant: undefined
    quality[content == "g"] = 0.5  # likewise
    rows = generator.permutation(len(content))
    scores, quality, content = scores[rows], quality[rows], content[rows]

    def each(least, correlation=srcc):
        groups = [np.flatnonzero(content == name) for name in "abcd"]
        return {len(g): correlation(scores[g], quality[g]) for g in groups if len(g) >= least}

    def ask(least):
        return float(within(torch.from_numpy(scores), torch.from_numpy(quality), content, least))

    value, all_right = ask(3), each(3)
    expected = np.mean(list(all_right.values()))
    if np.isnan(value):
        raise Wrong("the result is NaN: leave out contents whose scores or labels are all equal")
    if not close(value, expected):
        pooled = srcc(scores, quality)
        if close(value, pooled):
            raise Wrong("this is the SRCC over all images; compute it within each content, then average")
        if close(value, np.average(list(all_right.values()), weights=list(all_right))):
            raise Wrong("contents with many images weigh more: take the plain mean over contents")
        if close(value, np.mean(list(each(2).values()))):
            raise Wrong("contents with fewer than `least` images must be left out: two images are in order or not")
        if any(close(value, np.mean([*all_right.values(), *zeros])) for zeros in ([0.0], [0.0, 0.0])):
            raise Wrong("a content with constant scores or labels counts as 0 here; it is undefined, leave it out")
        if close(value, np.mean(list(each(3, lambda s, q: np.corrcoef(s, q)[0, 1]).values()))):
            raise Wrong("within contents you used the linear correlation; the question is about ranks")
        if close(value, np.median(list(all_right.values()))):
            raise Wrong("this is the median over contents; take the mean")
        raise Wrong("not the mean over contents of the SRCC within each")
    if not close(ask(5), np.mean(list(each(5).values()))):
        raise Wrong("`least` is not used: with least = 5 a content with four images must be left out")
    if not close(ask(4), np.mean(list(each(4).values()))):
        raise Wrong("with least = 4 a content with exactly four images counts: leave out those with fewer")


# What happened to a folder of source crops, the right verdict, and what another one has not seen
_FOLDERS = (
    (None, 0.0, 32, "leave it", "nothing has happened to this folder"),
    ("haze", 0.75, 32, "adapt", "all pictures are in haze, and the first layer says so"),
    ("dark", 0.75, 48, "adapt", "all pictures are dark, and the first layer says so"),
    ("cast", 0.75, 32, "adapt", "the light is warm: the first layer is loud and the last is quiet"),
    ("blur", 0.4, 32, "look first", "all pictures are out of focus: the quality is unusual and the light is not"),
    ("noise", 0.5, 48, "look first", "all pictures are grainy: it shows behind the first layer only"),
    (None, 0.0, 48, "leave it", "nothing has happened to this folder either: chance is part of r"),
)


@checker("ex04_4")
def ex04_4(judge):
    """`judge(images) -> verdict`: "adapt", "look first" or "leave it", for seven folders."""
    crops, _, _ = tinyshift("source/test")
    for seed, (kind, severity, count, verdict, seen) in enumerate(_FOLDERS):
        rows = torch.from_numpy(np.random.default_rng(440 + seed).permutation(len(crops))[:count])
        images = crops[rows]
        if kind:
            images = distort(images, kind, severity, torch.Generator().manual_seed(seed))
        found = judge(images)
        if found not in ("adapt", "look first", "leave it"):
            raise Wrong(f"expected one of the three verdicts; got {found!r}")
        if found != verdict:
            raise Wrong(f"your verdict is {found!r} and should be {verdict!r}: {seen}")
