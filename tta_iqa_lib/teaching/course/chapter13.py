"""Chapter 13, databases and many machines: its checkers."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from ...adaptation.adapter import Adapter
from ...adaptation.losses import RelativeRank
from ...adaptation.rules import Batch, Shrink, Source
from .checker import Wrong, checker, close, near, yes_or_no
from .fresh import hazy_crops, source_model


@checker("ex13_1")
def ex13_1(merge_moments):
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


@checker("ex13_2")
def ex13_2(read_database):
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


@checker("ex13_3")
def ex13_3(deal):
    """`deal(count, batch_size, machines, seed) -> [[rows, ...], ...]`: the same batches, however many machines share them."""

    def dealt(count, size, machines, seed=0):
        answer = [[[int(row) for row in batch] for batch in share] for share in deal(count, size, machines, seed)]
        where = f"{count} images in batches of {size} on {machines} machines"
        if len(answer) != machines:
            raise Wrong(f"expected a list for each machine, {machines}; got {len(answer)}")
        rows = Counter(row for share in answer for batch in share for row in batch)
        if missing := set(range(count)) - set(rows):
            raise Wrong(f"{len(missing)} images are in no batch ({where}): the remainder has to be scored, too")
        if set(rows) - set(range(count)) or max(rows.values()) > 1:
            raise Wrong(f"an image is in two batches, or does not exist ({where})")
        batches = [batch for share in answer for batch in share]
        if max(map(len, batches)) > size:
            raise Wrong(f"a batch holds more than {size} images ({where})")
        if max(map(len, batches)) - min(map(len, batches)) > 1:
            raise Wrong(
                f"batches of {min(map(len, batches))} and of {max(map(len, batches))} images ({where}): spread the rest"
            )
        if machines == 1 and len(batches) > (enough := -(-count // size)):
            raise Wrong(f"{len(batches)} batches ({where}), where {enough} are enough")
        return answer, sorted(sorted(batch) for batch in batches)

    _, batches = dealt(50, 8, 1)
    if any(batch == list(range(batch[0], batch[0] + len(batch))) for batch in batches):
        raise Wrong("a batch holds neighbours: a folder's order groups what belongs together, so shuffle first")
    for machines in (2, 3, 5):
        shares, same = dealt(50, 8, machines)
        if same != batches:
            raise Wrong(f"{machines} machines get other batches than one: cut the batches first, then deal them out")
        counts = [len(share) for share in shares]
        if max(counts) - min(counts) > 1:
            raise Wrong(f"the machines get {counts} batches: share them evenly")
    if dealt(50, 8, 1)[1] != batches:
        raise Wrong("called twice with one seed it cuts other batches: every machine must compute the same list")
    if dealt(50, 8, 1, seed=1)[1] == batches:
        raise Wrong("another seed gives the same batches: use it for the shuffle")
    dealt(33, 32, 3)  # a machine without a batch
    dealt(48, 8, 1)  # no remainder


@checker("ex13_4")
def ex13_4(may_split):
    """`may_split(adapter, images, machines) -> bool`: does a share adapted by itself give each picture the same score?"""
    images = hazy_crops(13, 134)[0]
    model = source_model()

    def where(condition):
        """Batch statistics for batches whose number of images fits; the others are left to the source."""
        gate = lambda result: "adapted" if condition(len(result.scores)) else "source"  # noqa: E731
        return Adapter(model, statistics=Batch(), gate=gate)

    alone, batch = Adapter(model, losses=(), statistics=Source()), Adapter(model, statistics=Batch())
    share = "one machine's share agrees and another's does not: look at every share"
    cases = [
        (
            alone,
            images,
            3,
            True,
            "without adaptation each picture is scored by itself, and any machine may do it; compare each share with the "
            "scores in its own places, `[m::machines]`",
        ),
        (alone, images, 13, True, "a batch of one differs from a batch of 13 by rounding: allow .0001"),
        (batch, images, 3, False, "where BatchNorm sees the batch, a smaller one gives other scores"),
        (alone, images, 16, True, "with 13 pictures on 16 machines three get none: leave those out"),
        (
            batch,
            images[:4].repeat_interleave(2, 0),
            2,
            True,
            "each machine gets one of each pair, so all have the moments of the whole: deal out m, m + machines, …",
        ),
        (
            batch,
            torch.cat([images[:4]] * 2),
            4,
            False,
            "here every score of a share rises: take absolute differences",
        ),
        (
            Adapter(model, statistics=Shrink(15_000)),
            images,
            2,
            False,
            "rounding stays below .0001; here some scores move by more, and you answered True",
        ),
        (where(lambda count: count < 5), images, 3, False, share),
        (where(lambda count: count == 5), images, 3, False, share),
        (
            Adapter(model, [RelativeRank()], Source()),
            images,
            2,
            False,
            "the rank loss compares a picture with its own copies, but all pictures of a batch move the same γ and β",
        ),
    ]
    for adapter, pictures, machines, expected, reason in cases:
        if yes_or_no(may_split(adapter, pictures, machines)) != expected:
            raise Wrong(reason)
