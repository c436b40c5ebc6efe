"""Chapter 13: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import csv
import math
from pathlib import Path

import numpy as np
import torch

import tta_iqa_lib as tta


def merge(counts, means, deviations, around=None, between=True):
    there = counts > 0
    n, means, deviations = counts[there], means[there], deviations[there]
    share = (n / n.sum())[:, None]
    mean = (share * means).sum(0)
    centre = mean if around is None else means.mean(0)
    within = torch.where(n[:, None] > 1, deviations**2 * (n - 1)[:, None] / n[:, None], 0.0)
    return mean, (share * (within + between * (means - centre) ** 2)).sum(0)


def merge_by_sums(counts, means, deviations):
    total = first = second = 0
    for n, mean, deviation in zip(counts.tolist(), means.numpy(), deviations.numpy(), strict=True):
        if n:
            total, first = total + n, first + n * mean
            second = second + n * mean**2 + (n - 1) * np.nan_to_num(deviation) ** 2
    return first / total, second / total - (first / total) ** 2


def merge_one_by_one(counts, means, deviations):
    n, mean, squares = 0.0, torch.zeros(4), torch.zeros(4)
    for m, other, deviation in zip(counts, means, deviations, strict=True):
        if m > 0:
            step = other - mean
            both = n + m
            squares = squares + n * m / both * step**2
            if m > 1:
                squares = squares + (m - 1) * deviation**2
            mean, n = mean + m / both * step, both
    return mean, squares / n


def merge_in_place(counts, means, deviations):
    answer = merge(counts, means, deviations)
    means[0] = answer[0]
    return answer


def keeps_nan(counts, means, deviations):
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(0)
    return mean, (share * (deviations**2 * (1 - 1 / counts[:, None]) + (means - mean) ** 2)).sum(0)


def merge_with(change):
    """With another variance within, from counts (S, 1) and deviations (S, C)."""

    def answer(counts, means, deviations):
        mean = merge(counts, means, deviations)[0]
        share = (counts / counts.sum())[:, None]
        return mean, (share * (change(counts[:, None], deviations) + (means - mean) ** 2)).sum(0)

    return answer


def drops_single_numbers(counts, means, deviations):
    return merge(torch.where(counts > 1, counts, 0.0), means, deviations)


def counts_single_numbers_as_nan(counts, means, deviations):
    there = counts > 0
    return keeps_nan(counts[there], means[there], deviations[there])


def unbiased(counts, means, deviations):
    mean, var = merge(counts, means, deviations)
    return mean, var * counts.sum() / (counts.sum() - 1)


EX13_1_WRONG = {
    "counts once": lambda n, m, s: (m.mean(0), (s**2).mean(0)),
    "variances were averaged": lambda *a: merge(*a, between=False),
    "around the merged mean": lambda *a: merge(*a, around="plain"),
    "square them first": merge_with(lambda n, s: s),
    "divides by n − 1": merge_with(lambda n, s: s**2),
    "unbiased": unbiased,
    "the standard deviation": lambda *a: (merge(*a)[0], merge(*a)[1].sqrt()),
    "turns everything into NaN": keeps_nan,
    "deviation of NaN": counts_single_numbers_as_nan,
    "single number counts": drops_single_numbers,
    "changed its inputs": merge_in_place,
    "must change nothing": lambda n, m, v: [part / (1 + (n == 0).sum()) for part in merge(n, m, v)],
    "for each channel": lambda *a: [part.mean() for part in merge(*a)],
    "not that of all numbers": lambda n, m, v: ((n[:, None] * m).nansum(0), merge(n, m, v)[1]),
}


def rows_of(folder):
    with (Path(folder) / "subjective.csv").open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["dmos"]]


def read(folder, turn=lambda x: -x, folder_too=True, column="dmos"):
    rows = rows_of(folder)
    root = Path(folder) if folder_too else Path()
    return [root / row["picture"] for row in rows], np.array([turn(float(row[column])) for row in rows])


def read_by_hand(folder):
    head, *lines = (Path(folder) / "subjective.csv").read_text().splitlines()
    dmos, picture = (head.split(",").index(name) for name in ("dmos", "picture"))
    rows = [row for row in csv.reader(lines) if row and row[dmos].strip()]
    return [Path(folder, row[picture]) for row in rows], torch.tensor([100 - float(row[dmos]) for row in rows])


def read_all(folder):
    with (Path(folder) / "subjective.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [Path(folder) / r["picture"] for r in rows], [-float(r["dmos"] or 0) for r in rows]


def read_sorted(folder):
    paths, scores = read(folder)
    order = np.argsort([str(p) for p in paths])
    return [paths[i] for i in order], scores[order]


EX13_2_WRONG = {
    "still worse": lambda folder: read(folder, lambda x: x),
    "bent or stretched": lambda folder: read(folder, lambda x: 1 / (1 + x)),
    "relative to the table's folder": lambda folder: read(folder, folder_too=False),
    "has no opinion": read_all,
    "order has changed": read_sorted,
    "numbers of observers": lambda folder: read(folder, lambda x: x, column="observers"),
    "not numbers": lambda folder: (read(folder)[0], ["-12,5", "-0", "-61,25"]),
    "do not belong": lambda folder: (read(folder)[0], read(folder)[1][::-1]),
    "`pathlib.Path`s": lambda folder: ([str(p) for p in read(folder)[0]], read(folder)[1]),
}


def deal(count, batch_size, machines, seed):
    batches = tta.adaptation.balanced_batches(count, batch_size, seed)
    return [batches[machine::machines] for machine in range(machines)]


def deal_in_numpy(count, batch_size, machines, seed):
    order = np.random.default_rng(seed).permutation(count)
    batches = np.array_split(order, math.ceil(count / batch_size))
    return [[batches[i] for i in share] for share in np.array_split(np.arange(len(batches)), machines)]


def deal_images(count, batch_size, machines, seed):
    """The common mistake: every machine cuts its own batches."""
    order = np.random.default_rng(seed).permutation(count)
    shares = np.array_split(order, machines)
    return [np.array_split(share, math.ceil(len(share) / batch_size)) for share in shares]


def deal_slices(count, batch_size, machines, seed, drop=False):
    order = np.random.default_rng(seed).permutation(count)
    batches = [order[i : i + batch_size] for i in range(0, count - drop * (count % batch_size), batch_size)]
    return [batches[machine::machines] for machine in range(machines)]


class Forgetful:
    """Right the first time; then it goes on drawing from the same generator."""

    def __init__(self):
        self.calls = 0

    def __call__(self, count, batch_size, machines, seed):
        self.calls += 1
        return deal(count, batch_size, machines, seed + (self.calls > 4))


EX13_3_WRONG = {
    "get other batches than one": deal_images,
    "remainder has to be scored": lambda *a: deal_slices(*a, drop=True),
    "spread the rest": deal_slices,
    "shuffle first": lambda n, size, m, seed: deal_with(tta.adaptation.balanced_batches(n, size), m),
    "a list for each machine": lambda n, size, m, seed: deal(n, size, 1, seed),
    "share them evenly": lambda n, size, m, seed: [deal(n, size, 1, seed)[0], *([] for _ in range(m - 1))],
    "another seed": lambda n, size, m, seed: deal(n, size, m, 0),
    "called twice": Forgetful(),
    "in two batches": lambda n, size, m, seed: [2 * share for share in deal(n, size, m, seed)],
    "50 batches": lambda n, size, m, seed: deal(n, 1, m, seed),
    "where 6 are enough": lambda n, size, m, seed: deal_with(
        np.array_split(np.random.default_rng(seed).permutation(n), n // size + 1), m
    ),
    "more than 8": lambda n, size, m, seed: deal(n, 2 * size, m, seed),
}


def deal_with(batches, machines):
    return [batches[machine::machines] for machine in range(machines)]


def moves(adapter, images, machines):
    """How far each picture's score moves, share by share; empty where a machine gets none."""
    together = adapter(images)
    shares = [slice(m, None, machines) for m in range(machines)]
    return [(adapter(images[s]) - together[s]).abs() for s in shares if len(images[s])]


def may_split(adapter, images, machines):
    return all(float(share.max()) <= 1e-4 for share in moves(adapter, images, machines))


def may_split_in_one(adapter, images, machines):
    apart = torch.empty(len(images))
    for m in range(min(machines, len(images))):
        apart[m::machines] = adapter(images[m::machines])
    return torch.allclose(apart, adapter(images), rtol=0, atol=1e-4)


def same_order(adapter, images, machines):
    apart = torch.cat([adapter(images[m::machines]) for m in range(machines) if len(images[m::machines])])
    return bool((apart - adapter(images)).abs().max() <= 1e-4)


def neighbours(adapter, images, machines):
    """Deals out runs of neighbours instead."""
    together = adapter(images).tensor_split(machines)
    parts = zip(images.tensor_split(machines), together, strict=True)
    return all(float((adapter(part) - whole).abs().max()) <= 1e-4 for part, whole in parts if len(part))


def with_signs(adapter, images, machines):
    together = adapter(images)
    shares = [slice(m, None, machines) for m in range(machines) if len(images[m::machines])]
    return all(float((together[s] - adapter(images[s])).max()) <= 1e-4 for s in shares)


EX13_4_WRONG = {
    "by itself": same_order,
    "sees the batch": lambda *a: True,
    "machines three get none": lambda a, x, m: m < 14 and may_split(a, x, m),
    "rounding stays below": lambda *a: all(float(share.max()) <= 0.01 for share in moves(*a)),
    "every share": lambda *a: float(moves(*a)[0].max()) <= 1e-4,
    "share agrees": lambda *a: float(moves(*a)[-1].max()) <= 1e-4,
    "some scores move": lambda *a: all(float(share.mean()) <= 1e-4 for share in moves(*a)),
    "by rounding": lambda *a: all(float(share.max()) == 0 for share in moves(*a)),
    "deal out m": neighbours,
    "absolute differences": with_signs,
    "same γ and β": lambda a, x, m: bool(a.recipe.optimisation) or may_split(a, x, m),
    "True or False": lambda *a: float(moves(*a)[0].max()),
}

CASES = {
    "ex13_1": ([merge, merge_by_sums, merge_one_by_one], EX13_1_WRONG),
    "ex13_2": ([read, read_by_hand], EX13_2_WRONG),
    "ex13_3": ([deal, deal_in_numpy], EX13_3_WRONG),
    "ex13_4": ([may_split, may_split_in_one], EX13_4_WRONG),
}
