"""Chapter 10, when not to adapt: its checkers."""

import numpy as np
import torch

from ...datasets.tinyshift import tinyshift
from ...imaging.distortions import distort
from ...models.saving import load_source_model
from .checker import Wrong, checker, near


@checker("ex10_1")
def ex10_1(calibrate):
    """`calibrate(ratios, false_alarms) -> threshold`: as many unshifted batches at or above it as are tolerated."""
    generator = np.random.default_rng(101)
    ratios = generator.gamma(1.5, 1.0, 2000)
    answer = float(calibrate(ratios, 0.05))
    alarms = float((ratios >= answer).mean())
    if abs(alarms - 0.95) < 0.01:
        raise Wrong("95 % of the unshifted batches would be adapted: the threshold is at the wrong end")
    if near(answer, ratios.mean() + 1.645 * ratios.std(), 1e-3):
        raise Wrong("these ratios are not Gaussian; use their own distribution")
    if answer >= ratios.max():
        raise Wrong("no alarm at all: that also misses shifts; the tolerated share is yours to use")
    if not 0.04 <= alarms <= 0.06:
        raise Wrong(f"{alarms:.1%} of the unshifted batches lie at or above your threshold; 5 % were asked for")
    stricter = float(calibrate(ratios, 0.01))
    if not 0.005 <= float((ratios >= stricter).mean()) <= 0.015:
        raise Wrong("right for 5 %, not for 1 %: use the second argument")


@checker("ex10_2")
def ex10_2(advise):
    """`advise(model, images, cameras) -> {camera: "adapt", "look" or "leave"}`: four cameras, whose pictures come mixed."""
    with torch.random.fork_rng(devices=[]):  # new layers draw from the reader's generator
        model = load_source_model()
    generator = torch.Generator().manual_seed(102)

    def some(name, count):
        pixels = tinyshift(name)[0]
        return pixels[torch.randperm(len(pixels), generator=generator)[:count]]

    parts = {
        "veranda": distort(some("target/dusk", 14), "dark", 0.3),
        "yard": some("source/test", 20),
        "door": distort(some("source/test", 20), "blur", 0.6),
        "roof": some("target/dusk", 3),
    }
    right = {"veranda": "adapt", "yard": "leave", "door": "look", "roof": "leave"}
    cameras = [name for name, images in parts.items() for _ in images]
    order = torch.randperm(len(cameras), generator=generator)
    cameras, images = [cameras[i] for i in order], torch.cat(list(parts.values()))[order]
    answer = advise(model, images, cameras)
    if not isinstance(answer, dict) or set(answer) != set(parts):
        raise Wrong("expected a dictionary with an answer for each camera")
    if unknown := set(answer.values()) - {"adapt", "look", "leave"}:
        raise Wrong(f"the answers are 'adapt', 'look' and 'leave'; got {unknown.pop()!r}")
    if len(set(answer.values())) == 1:
        raise Wrong("all cameras get one answer: the folder is mixed, so ask for each camera by itself")
    if answer["roof"] != "leave":
        raise Wrong("three pictures cannot tell a shift from chance: leave cameras with fewer than four alone")
    if answer["yard"] != "leave":
        raise Wrong("one camera has met nothing new, and its pictures come mixed: its ratios are near 1. Leave it")
    if answer["veranda"] != "adapt":
        raise Wrong("one camera films at dusk: the means of the first layer lie far beyond chance. Adapt to it")
    if answer["door"] == "adapt":
        raise Wrong(
            "one camera is out of focus. Only the variances see it, and no light has changed: a case to look at"
        )
    if answer != right:
        raise Wrong(
            "one camera's variances lie far beyond chance, its means do not: a case to look at, not one to leave"
        )
    two = cameras.index("yard"), cameras.index("veranda")
    if advise(model, images[list(two)], ["x", "y"]) != {"x": "leave", "y": "leave"}:
        raise Wrong("a camera with a single picture must be left alone")


@checker("ex10_3")
def ex10_3(chance):
    """`chance(means, pictures) -> (C,)`: the sampling variance of a batch's mean when rows are crops of pictures."""
    generator = np.random.default_rng(103)
    pictures = np.repeat([7, 3, 9, 1, 4], 4)
    own = dict(zip((7, 3, 9, 1, 4), generator.normal(0, 1, (5, 3)), strict=True))
    means = np.array([own[p] for p in pictures]) + generator.normal(0, 0.2, (20, 3))
    answer = np.asarray(chance(means, pictures), dtype=float)
    if answer.shape != (3,):
        raise Wrong(f"one number a channel is asked for, so the shape is (3,); yours is {answer.shape}")
    by_picture = np.array([means[pictures == p].mean(0) for p in np.unique(pictures)])
    expected = by_picture.var(0, ddof=1) / 5
    if near(answer, means.var(0, ddof=1) / 20) or near(answer, means.var(0) / 20):
        raise Wrong("these are 20 rows taken for 20 witnesses; four crops of one picture tell nearly the same")
    if near(answer, by_picture.var(0, ddof=1) / 20):
        raise Wrong("the pictures are right, but there are 5 of them, not 20")
    if near(answer, by_picture.var(0) / 5):
        raise Wrong(
            "divide by one less than the number of pictures: with five, the biased variance is a fifth too small"
        )
    if near(answer, by_picture.var(0, ddof=1)):
        raise Wrong("this is how single pictures vary; the mean of five varies less")
    if not near(answer, expected):
        raise Wrong("average the crops of each picture first; then see how the pictures' means vary")
    order = generator.permutation(20)
    if not near(np.asarray(chance(means[order], pictures[order])), expected):
        raise Wrong("right only while the crops of a picture stand side by side: go by the second argument")
