"""Chapter 11, your own photographs: its checkers."""

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ...adaptation.adapter import Adapter
from ...imaging.crops import grid_crops
from ...imaging.distortions import distort
from ...imaging.files import read_image
from ...imaging.scenes import photograph
from ...models.saving import load_source_model
from .checker import Wrong, checker, close, near


@checker("ex11_1")
def ex11_1(score_folder):
    """`score_folder(model, files) -> (scores (N,), decision)`: one batch of middle crops, at their own size, adapted to."""
    with torch.random.fork_rng(devices=[]):  # new layers draw from the reader's generator
        model = load_source_model()
    adapter = Adapter(model)
    names = ("rocket", "flower", "cat", "hopper", "coffee")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.png" for i in range(len(names))]
        for i, (file, name) in enumerate(zip(files, names, strict=True)):
            picture = distort(photograph(name)[None, :, 6 * i : 200 + 20 * i, : 230 + 30 * i], "blur", 0.1 * i)
            pixels = distort(picture, "dark", 0.7)[0].permute(1, 2, 0)
            Image.fromarray((255 * pixels).round().byte().numpy()).save(file)
        pictures = [read_image(file) for file in files]
        answer = score_folder(model, files)
    crops = torch.cat([grid_crops(picture, model.crop or 96, 1) for picture in pictures])
    right = adapter.run(crops)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong("expected two things: the scores, and the adapter's decision")
    scores = torch.as_tensor(answer[0], dtype=torch.float32).detach()
    if scores.shape != (len(files),):
        raise Wrong(f"expected one score a file, shape ({len(files)},); got {tuple(scores.shape)}")
    if not near(scores, right.scores, 1e-3):
        squashed = torch.cat([interpolate(p[None], crops.shape[2:], mode="bilinear", antialias=True) for p in pictures])
        corner = torch.stack([picture[:, : crops.shape[2], : crops.shape[3]] for picture in pictures])
        if close(scores, right.source_scores):
            raise Wrong(
                "these are the source model's scores: a file alone has nothing to adapt to, so make one batch of all"
            )
        if near(scores, adapter(squashed.clamp(0, 1)), 1e-3):
            raise Wrong("these pictures were squashed: cut the crop out of the picture at its own size")
        if close(scores, adapter(corner)):
            raise Wrong("these crops come from the upper left corner; take the middle")
        if close(scores.sort()[0], right.scores.sort()[0]):
            raise Wrong("the scores are right, their order is not: score i belongs to file i")
        raise Wrong(
            "these are not the scores of the middle crops, read by `tta.read_image` and adapted to as one batch"
        )
    if answer[1] != right.decision:
        raise Wrong(f"the decision is {right.decision!r}, as `Adapter.run` tells it; yours is {answer[1]!r}")


@checker("ex11_2")
def ex11_2(tile):
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


@checker("ex11_3")
def ex11_3(share_in_order):
    """`share_in_order(score, images, kind, severities) -> share`: of the pairs of versions of one picture, in the right order."""
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(113))
    images = images * torch.linspace(0.3, 1, 6).view(-1, 1, 1, 1)

    def brightness(x):
        return x.mean((1, 2, 3))

    def stepwise(x):  # sees large changes alone
        return (brightness(x) * 8).round()

    def in_company(x):  # as scores under the statistics of a batch: they depend on who else is in it
        return brightness(x) - brightness(x).mean()

    def expected(score, severities, strict=False, within=True, neighbours=False):
        versions = torch.stack([images, *(distort(images, "dark", s) for s in severities)])
        scores = score(versions.flatten(0, 1)).unflatten(0, (len(versions), -1))
        pairs = [(a, b) for a in range(len(scores)) for b in range(a + 1, len(scores)) if b == a + 1 or not neighbours]
        won = [(scores[a] - scores[b] if within else scores[a][:, None] - scores[b]).sign() for a, b in pairs]
        return float(
            torch.cat([w.flatten() for w in won]).gt(0).float().mean() if strict else torch.cat(won).mean() / 2 + 0.5
        )

    def tried(score, severities):
        return float(share_in_order(score, images, "dark", severities))

    severities = [0.05, 0.3, 0.6]
    answer = tried(brightness, severities)
    if near(answer, 0.0):
        raise Wrong("the order is turned round: the worse version should score lower")
    if near(answer, expected(brightness, severities, within=False)):
        raise Wrong("count pairs of versions of *one* picture: between two pictures nobody knows the right order")
    if not near(answer, 1.0):
        raise Wrong(f"for a scorer that sees every change the share is 1; yours is {answer:.3f}")
    alone = tried(in_company, severities)
    if not near(alone, 1.0):
        raise Wrong(
            "the versions were scored in several calls: a score may depend on its batch, so ask for all at once"
        )
    answer = tried(stepwise, severities)
    if near(answer, expected(stepwise, severities, strict=True)):
        raise Wrong("a tie is neither right nor wrong: it counts half")
    if near(answer, expected(stepwise, severities, neighbours=True)):
        raise Wrong(
            "these are neighbouring versions only; every two versions of a picture are a pair, the mildest and the worst"
        )
    if not near(answer, expected(stepwise, severities)):
        raise Wrong(
            f"for a scorer that sees large changes alone it is {expected(stepwise, severities):.3f}; yours is {answer:.3f}"
        )
