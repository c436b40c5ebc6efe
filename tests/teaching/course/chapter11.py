"""Chapter 11: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import math

import numpy as np
import torch
from torch.nn.functional import interpolate

import tta_iqa_lib as tta


def middle(picture, size):
    top, left = ((length - size) // 2 for length in picture.shape[1:])
    return picture[:, top : top + size, left : left + size]


def score_folder(model, files, crop=middle):
    result = tta.Adapter(model).run(torch.stack([crop(tta.read_image(file), model.crop) for file in files]))
    return result.scores, result.decision


def score_with_the_library(model, files):
    crops = [tta.imaging.read_crops(file, model.crop, 1) for file in files]
    result = tta.Adapter(model).run(torch.cat(crops))
    return result.scores.tolist(), result.decision


def squashed(picture, size):
    return interpolate(picture[None], (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)


def one_by_one(model, files):
    return [float(score_folder(model, [file])[0]) for file in files], "adapted"


def by_the_source(model, files):
    adapter = tta.Adapter(model, losses=(), statistics=tta.Source(), views=model.views)
    return adapter(torch.stack([middle(tta.read_image(file), model.crop) for file in files])), "source"


EX11_1_WRONG = {
    "squashed": lambda *a: score_folder(*a, crop=squashed),
    "upper left corner": lambda *a: score_folder(*a, crop=lambda picture, size: picture[:, :size, :size]),
    "a file alone": one_by_one,
    "the source model's scores": by_the_source,
    "order is not": lambda model, files: score_folder(model, files[::-1]),
    "as `Adapter.run` tells it": lambda *a: (score_folder(*a)[0], True),
    "two things": lambda *a: score_folder(*a)[0],
    "one score a file": lambda *a: (score_folder(*a)[0].mean(), "adapted"),
    "not the scores of the middle crops": lambda *a: score_folder(*a, crop=lambda p, size: middle(p, size).flip(0)),
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


EX11_2_WRONG = {
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


def share_in_order(score, images, kind, severities):
    versions = [images, *(tta.distort(images, kind, severity) for severity in severities)]
    scores = score(torch.cat(versions)).view(len(versions), len(images))
    pairs = [scores[a] - scores[b] for a in range(len(versions)) for b in range(a + 1, len(versions))]
    return float(torch.cat(pairs).sign().mean() / 2 + 0.5)


def share_picture_by_picture(score, images, kind, severities):
    versions = torch.stack([images, *(tta.distort(images, kind, s) for s in severities)], 1)
    scores = score(versions.flatten(0, 1)).view(len(images), -1).tolist()
    won, count = 0.0, 0
    for own in scores:
        for i, better in enumerate(own):
            for worse in own[i + 1 :]:
                won, count = won + (better > worse) + 0.5 * (better == worse), count + 1
    return won / count


def share_by(compare):
    def answer(score, images, kind, severities):
        versions = [images, *(tta.distort(images, kind, severity) for severity in severities)]
        return float(compare(score(torch.cat(versions)).view(len(versions), len(images))))

    return answer


def in_several_calls(score, images, kind, severities):
    return share_in_order(lambda x: torch.cat([score(part) for part in x.split(len(images))]), images, kind, severities)


def pairs_of(scores, strict=False):
    rows, columns = torch.triu_indices(len(scores), len(scores), 1)
    difference = scores[rows] - scores[columns]
    return (difference > 0).float().mean() if strict else difference.sign().mean() / 2 + 0.5


def all_pictures(scores):
    rows, columns = torch.triu_indices(len(scores), len(scores), 1)
    return (scores[rows][:, :, None] - scores[columns][:, None]).sign().mean() / 2 + 0.5


EX11_3_WRONG = {
    "turned round": share_by(lambda scores: 1 - pairs_of(scores)),
    "several calls": in_several_calls,
    "counts half": share_by(lambda scores: pairs_of(scores, strict=True)),
    "neighbouring versions": share_by(lambda scores: (scores[:-1] - scores[1:]).sign().mean() / 2 + 0.5),
    "*one* picture": share_by(all_pictures),
    "sees every change": share_by(lambda scores: scores.mean()),
}

CASES = {
    "ex11_1": ([score_folder, score_with_the_library], EX11_1_WRONG),
    "ex11_2": ([tile, tile_in_torch], EX11_2_WRONG),
    "ex11_3": ([share_in_order, share_picture_by_picture], EX11_3_WRONG),
}
