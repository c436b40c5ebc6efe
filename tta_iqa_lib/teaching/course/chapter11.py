"""Chapter 11, real databases and many machines: its checkers."""

import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from .checker import Wrong, checker, close, near


@checker("ex11_1")
def ex11_1(merge_moments):
    """`merge_moments(counts, means, deviations) -> (mean, variance)`: compared with the moments of all numbers together."""
    generator = torch.Generator().manual_seed(111)
    shards = [
        offset + scale * torch.randn(n, 4, generator=generator, dtype=torch.float64)
        for n, offset, scale in ((40, 0.0, 1.0), (8, 5.0, 0.5), (100, -3.0, 2.0))
    ]
    everything = torch.cat(shards)
    counts = torch.tensor([len(s) for s in shards], dtype=torch.float64)
    means = torch.stack([s.mean(0) for s in shards])
    deviations = torch.stack([s.std(0) for s in shards])  # with n − 1
    mean, var = merge_moments(counts, means, deviations)
    if np.shape(mean) != (4,) or np.shape(var) != (4,):
        raise Wrong("expected a mean and a variance for each channel, (C,) each")
    mean, var = (torch.as_tensor(part, dtype=torch.float64) for part in (mean, var))
    share = (counts / counts.sum())[:, None]
    if close(mean, means.mean(0)):
        raise Wrong("every machine counts once in your mean: weigh it by how many numbers it saw")
    if not close(mean, everything.mean(0)):
        raise Wrong("the mean is not that of all numbers together: the sum of n_i / n · mean_i")
    expected = everything.var(0, correction=0)
    biased = torch.stack([s.var(0, correction=0) for s in shards])
    for within in (biased, deviations**2):
        if close(var, within.mean(0)) or close(var, (share * within).sum(0)):
            raise Wrong("the variances were averaged: the spread between the machines' means is missing")
        if close(var, (share * (within + (means - means.mean(0)) ** 2)).sum(0)) or close(
            var, (share * within).sum(0) + ((means - mean) ** 2).mean(0)
        ):
            raise Wrong(
                "the spread between the means must be taken around the merged mean, and weighted by n_i / n as well"
            )
    between = (share * (means - mean) ** 2).sum(0)
    if close(var, (share * deviations).sum(0) + between):
        raise Wrong("standard deviations do not add up: square them first")
    if close(var, (share * deviations**2).sum(0) + between):
        raise Wrong(
            "torch.std divides by n − 1: a machine's sum of squares is (n_i − 1) · deviation², not n_i times it"
        )
    if close(var, everything.var(0)):
        raise Wrong("this is the unbiased variance, with n − 1; BatchNorm's is biased")
    if close(torch.as_tensor(var) ** 2, expected):
        raise Wrong("this is the standard deviation; BatchNorm keeps the variance")
    if not close(var, expected):
        raise Wrong("the mean is right, the variance is not: the variance within, plus the spread between the means")

    def with_another(shard):
        parts = (counts, torch.tensor([float(len(shard))])), (means, shard.mean(0)[None]), (deviations, nan)
        return merge_moments(*(torch.cat(part) for part in parts))

    nan = torch.full((1, 4), float("nan"), dtype=torch.float64)
    answer = with_another(everything[:0])
    if any(np.isnan(np.asarray(part)).any() for part in answer):
        raise Wrong("a machine without images turns everything into NaN: zero times NaN is NaN, so leave it out first")
    if not (close(answer[0], mean) and close(answer[1], expected)):
        raise Wrong("a machine without images must change nothing")
    one = torch.full((1, 4), 7.0, dtype=torch.float64)
    answer, together = with_another(one), torch.cat([everything, one])
    if any(np.isnan(np.asarray(part)).any() for part in answer):
        raise Wrong("a machine with a single number has a deviation of NaN, as torch.std gives; its variance is 0")
    if not (close(answer[0], together.mean(0)) and close(answer[1], together.var(0, correction=0))):
        raise Wrong("a machine with a single number counts: it has a mean, and a variance of 0")


TABLE = """observers,dmos,comment,picture
21,12.5,"late, but fine",b/two.png
20,,"too few",b/three.png
25,0,,a/one.png
23,61.25,,c.png

"""


@checker("ex11_2")
def ex11_2(read_database):
    """`read_database(folder) -> ([N paths], scores (N,))`, on a table with columns in another order, a gap and an empty line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "subjective.csv").write_text(TABLE, encoding="utf-8")
        answer = read_database(folder)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong("expected two things: a list of paths, and the scores")
    paths, scores = list(answer[0]), answer[1]
    expected = [folder / "b/two.png", folder / "a/one.png", folder / "c.png"]
    dmos = np.array([12.5, 0, 61.25])
    if any(Path(path).name == "three.png" for path in paths):
        raise Wrong("'three.png' has no opinion: leave pictures with an empty `dmos` out")
    if any(not isinstance(path, Path) for path in paths):
        raise Wrong("the paths must be `pathlib.Path`s")
    if paths != expected:
        if paths == [path.relative_to(folder) for path in expected]:
            raise Wrong("the paths are relative to the table's folder: put that folder before them")
        if sorted(paths) == sorted(expected):
            raise Wrong("the order has changed: keep that of the table")
        raise Wrong(
            f"expected {len(expected)} paths out of column `picture`; got {len(paths)}: {[p.name for p in paths][:4]}"
        )
    try:
        scores = np.asarray(scores, dtype=float)
    except ValueError:
        raise Wrong("the scores are not numbers: a table holds text, turn it into floats") from None
    if scores.shape != (3,):
        raise Wrong(f"expected one score a picture, shape (3,); got {scores.shape}")
    if near(scores, dmos):
        raise Wrong("higher is still worse: `dmos` counts from perfect upwards, turn its direction")
    if near(scores, [25, 21, 23]) or near(scores, [21, 25, 23]):
        raise Wrong("these are the numbers of observers: read columns by name, not by place")
    change = scores + dmos
    if not near(change, np.full(3, change[0])):
        if np.array_equal(np.argsort(scores), np.argsort(-dmos)):
            raise Wrong("the direction is right, but the scale is bent or stretched: differences must keep their size")
        raise Wrong("the scores do not belong to these pictures: score i must be that of path i")


@checker("ex11_3")
def ex11_3(tile):
    """`tile(height, width, size) -> (N, 2)`: corners of the fewest rows and columns of crops that cover every pixel, evenly."""
    for height, width, size in ((96, 96, 96), (427, 640, 96), (100, 300, 96), (192, 288, 96), (193, 97, 96)):
        corners = np.asarray(tile(height, width, size))
        where = f"for a picture of {height} × {width} and crops of {size}"
        if corners.ndim != 2 or corners.shape[1] != 2 or not np.issubdtype(corners.dtype, np.integer):
            if corners.ndim == 2 and corners.shape[1] == 2:
                raise Wrong(
                    f"corners are places of pixels, whole numbers; got {corners.dtype} {where}: round, then int"
                )
            raise Wrong(f"expected a list of N corners (top, left), shape (N, 2); got shape {corners.shape} {where}")
        tops, lefts = np.unique(corners[:, 0]), np.unique(corners[:, 1])
        if corners.min() < 0 or tops.max() > height - size or lefts.max() > width - size:
            inside = lefts.max() <= height - size and tops.max() <= width - size
            if corners.min() >= 0 and inside:
                raise Wrong(f"top and left are swapped {where}: the height belongs to the top")
            raise Wrong(f"a crop reaches beyond the picture {where}")
        covered = np.zeros((height, width), dtype=bool)
        for top, left in corners:
            covered[top : top + size, left : left + size] = True
        if not covered[-1, -1]:
            raise Wrong(f"the right and lower edges are left out {where}: the last crop must end at the last pixel")
        if not covered[0, 0]:
            raise Wrong(f"the first crop must start at (0, 0) {where}")
        if not covered.all():
            raise Wrong(f"{(~covered).mean():.0%} of the pixels lie in no crop {where}")
        need = math.ceil(height / size), math.ceil(width / size)
        if len(np.unique(corners, axis=0)) < len(corners):
            raise Wrong(f"a crop stands in the list twice {where}")
        if len(corners) != len(tops) * len(lefts):
            raise Wrong(
                f"{len(tops)} tops and {len(lefts)} lefts make {len(tops) * len(lefts)} crops, not {len(corners)} {where}"
            )
        if (len(tops), len(lefts)) != need:
            raise Wrong(
                f"{len(tops)} rows and {len(lefts)} columns of crops, where {need[0]} and {need[1]} would do {where}: "
                "as few as possible is length / size, rounded up"
            )
        for starts in (tops, lefts):
            gaps = np.diff(starts)
            if len(gaps) and gaps.max() - gaps.min() > 1:
                raise Wrong(
                    f"the crops are not spread evenly {where}: the steps from one to the next are {gaps.tolist()}, and may "
                    "differ by one pixel at most"
                )
        if not np.array_equal(corners, [(top, left) for top in tops for left in lefts]):
            raise Wrong("the crops must come row by row: all of the first row, from left to right, then the next")
