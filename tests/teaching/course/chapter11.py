"""Chapter 11: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import csv
import math
from pathlib import Path

import numpy as np
import torch


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


EX11_1_WRONG = {
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


EX11_2_WRONG = {
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


def starts(length, size):
    count = math.ceil(length / size)
    return [round(i * (length - size) / max(1, count - 1)) for i in range(count)]


def tile(height, width, size, along=starts):
    return [(top, left) for top in along(height, size) for left in along(width, size)]


def tile_in_torch(height, width, size):
    axes = [torch.linspace(0, n - size, math.ceil(n / size)).round().long() for n in (height, width)]
    return torch.cartesian_prod(*axes)


def pushed_back(length, size):
    return [*range(0, length - size, size), length - size]


def crowded(length, size):
    return sorted({round(i * (length - size) / 11) for i in range(12)})


EX11_3_WRONG = {
    "beyond the picture": lambda *a: tile(*a, along=lambda n, s: range(0, n, s)),
    "edges are left out": lambda *a: tile(*a, along=lambda n, s: range(0, n - s + 1, s)),
    "not spread evenly": lambda *a: tile(*a, along=pushed_back),
    "would do": lambda *a: tile(*a, along=lambda n, s: sorted({round(i * (n - s) / 7) for i in range(8)})),
    "swapped": lambda h, w, s: [(left, top) for top, left in tile(h, w, s)],
    "in no crop": lambda *a: tile(*a, along=lambda n, s: sorted({0, n - s})),
    "row by row": lambda h, w, s: sorted(tile(h, w, s), key=lambda corner: corner[::-1]),
    "whole numbers": lambda h, w, s: np.array(tile(h, w, s), dtype=float),
    "shape (N, 2)": lambda h, w, s: [top for top, _ in tile(h, w, s)],
    "twice": lambda h, w, s: tile(h, w, s) * 2,
    "lefts make": lambda *a: [c for k, c in enumerate(tile(*a, along=crowded)) if k != 15],
    "start at (0, 0)": lambda h, w, s: tile(h, w, s)[1:] if h > s else tile(h, w, s),
}

CASES = {
    "ex11_1": ([merge, merge_by_sums, merge_one_by_one], EX11_1_WRONG),
    "ex11_2": ([read, read_by_hand], EX11_2_WRONG),
    "ex11_3": ([tile, tile_in_torch], EX11_3_WRONG),
}
