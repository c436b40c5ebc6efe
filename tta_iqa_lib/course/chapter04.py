"""Chapter 4, shifts: its checkers."""

import numpy as np
import torch
from scipy.stats import spearmanr

from .checker import Wrong, checker, close


@checker("ex04_1")
def ex04_1(shift_ratio):
    """`shift_ratio(x, mean_s, var_s) -> r`: squared displacement over what chance would give."""
    generator = torch.Generator().manual_seed(41)
    level = torch.randn(6, 5, 1, 1, generator=generator, dtype=torch.float64)  # images differ
    x = 0.4 + level + 2 * torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64)
    mean_s = torch.randn(5, generator=generator, dtype=torch.float64)
    var_s = 0.5 + 3 * torch.rand(5, generator=generator, dtype=torch.float64)
    kept = [t.clone() for t in (x, mean_s, var_s)]
    value = torch.as_tensor(shift_ratio(x, mean_s, var_s), dtype=torch.float64)
    if any(not torch.equal(a, b) for a, b in zip((x, mean_s, var_s), kept, strict=True)):
        raise Wrong("your function changed its inputs; make new tensors instead of writing into old ones")
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
        raise Wrong("upside down: r grows with the displacement")
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
def ex04_2(explain):
    """`explain(scores, quality) -> (level, spread, order)`, adding up to the mean squared error."""
    generator = torch.Generator().manual_seed(42)
    quality = torch.rand(30, generator=generator, dtype=torch.float64)
    scores = 0.3 + 0.5 * quality**2 + 0.1 * torch.randn(30, generator=generator, dtype=torch.float64)
    s, y = scores.numpy(), quality.numpy()
    parts = [float(part) for part in explain(scores, quality)]
    if len(parts) != 3:
        raise Wrong(f"expected three parts: level, spread, order; got {len(parts)}")
    level, spread = (s.mean() - y.mean()) ** 2, (s.std() - y.std()) ** 2
    order = 2 * s.std() * y.std() * (1 - np.corrcoef(s, y)[0, 1])
    expected = (level, spread, order)
    if all(close(a, b) for a, b in zip(parts, expected, strict=True)):
        return
    if sorted(map(lambda p: round(p, 9), parts)) == sorted(map(lambda p: round(p, 9), expected)):
        raise Wrong("the parts are right; their order is: level, spread, order")
    if close(abs(parts[0]), level**0.5):
        raise Wrong("the level is the square of the difference of the means")
    if not close(parts[0], level):
        raise Wrong("the level is not the squared difference of the means; a constant must cost level only")
    if close(parts[1], (s.std(ddof=1) - y.std(ddof=1)) ** 2):
        raise Wrong("the parts do not add up: use standard deviations that divide by N (correction=0)")
    if close(parts[1], (s.var() - y.var()) ** 2) or close(parts[1], abs(s.var() - y.var())):
        raise Wrong("the spread compares standard deviations, not variances")
    if not close(parts[1], spread):
        raise Wrong("the spread is not the squared difference of the standard deviations")
    if close(parts[2], 2 * s.std() * y.std() * (1 - spearmanr(s, y)[0])):
        raise Wrong("with SRCC the parts do not add up: r is the linear correlation (PLCC)")
    if close(parts[2], 1 - np.corrcoef(s, y)[0, 1]):
        raise Wrong("1 − r has no unit yet: multiply by 2 s s_y, so that the parts add up")
    raise Wrong("level and spread are right; the third part is what is left of the mean squared error")


@checker("ex04_3")
def ex04_3(within):
    """`within(scores, quality, content, least) -> value`: the mean over contents of the SRCC within each."""
    generator = np.random.default_rng(43)
    content = np.repeat(["a", "b", "c", "d", "e", "f"], [12, 4, 7, 2, 1, 5])
    offset = dict(zip("abcdef", (0.0, 3.0, -4.0, 8.0, 1.0, 5.0), strict=True))
    quality = generator.normal(size=len(content))
    scores = quality + generator.normal(size=len(content)) + np.array([offset[c] for c in content])
    scores[content == "f"] = 5.0  # constant: undefined
    rows = generator.permutation(len(content))
    scores, quality, content = scores[rows], quality[rows], content[rows]

    def each(least, correlation=lambda s, q: spearmanr(s, q)[0]):
        groups = [np.flatnonzero(content == name) for name in "abcd"]
        return {len(g): correlation(scores[g], quality[g]) for g in groups if len(g) >= least}

    def ask(least):
        return float(within(torch.from_numpy(scores), torch.from_numpy(quality), content, least))

    value, all_right = ask(3), each(3)
    expected = np.mean(list(all_right.values()))
    if np.isnan(value):
        raise Wrong("the result is NaN: leave out contents whose scores or labels are all equal")
    if not close(value, expected):
        pooled = spearmanr(scores, quality)[0]
        if close(value, pooled):
            raise Wrong("this is the SRCC over all images; compute it within each content, then average")
        if close(value, np.average(list(all_right.values()), weights=list(all_right))):
            raise Wrong("contents with many images weigh more: take the plain mean over contents")
        if close(value, np.mean(list(each(2).values()))):
            raise Wrong("contents with fewer than `least` images must be left out: two images are in order or not")
        if close(value, np.mean([*all_right.values(), 0.0])):
            raise Wrong("a content with constant scores counts as 0 here; it is undefined, leave it out")
        if close(value, np.mean(list(each(3, lambda s, q: np.corrcoef(s, q)[0, 1]).values()))):
            raise Wrong("within contents you used the linear correlation; the question is about ranks")
        if close(value, np.median(list(all_right.values()))):
            raise Wrong("this is the median over contents; take the mean")
        raise Wrong("not the mean over contents of the SRCC within each")
    if not close(ask(5), np.mean(list(each(5).values()))):
        raise Wrong("`least` is not used: with least = 5 a content with four images must be left out")
