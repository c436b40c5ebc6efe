"""Worse copies of the images being scored: what a loss compares them with (chapter 6).

A loss names its view maker in an attribute `views`: anything callable and hashable,
`views(images, scorer, generator) -> {name: images}`, with (B, 3, H, W) in and out. The scorer is the source model's, higher is
better, and random numbers come from the generator alone. `RelativeRank` needs copies named "mild" and "severe"; `ScoreOrder`
an attribute `names`, from the best to the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..imaging.distortions import distort

Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """Makes two copies of each image with one distortion: a mild one and a severe one, drawn once an episode.

    Chapter 6, eq-choice.

    Attributes:
        kinds: candidates; "choose" decides among them, image by image, by the source model's scores q of the copies:
            "gap": the largest ``|q(mild) − q(severe)|``, as published; "signed": the largest q(mild) − q(severe);
            "random": any.
        mild, severe: severities in [0, 1].
    """

    kinds: tuple[str, ...] = ("jpeg", "noise", "blur")
    mild: float = 0.3
    severe: float = 0.7
    choose: str = "gap"

    def __post_init__(self):
        _check_choice(self.choose)
        if not 0 <= self.mild < self.severe <= 1 or not self.kinds:
            raise ValueError("need at least one kind, and 0 ≤ mild < severe ≤ 1")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the views, from the best to the worst."""
        return "mild", "severe"

    def __call__(self, images: Tensor, scorer: Scorer, generator: torch.Generator) -> dict[str, Tensor]:
        """(B, 3, H, W) → {"mild": …, "severe": …}, each (B, 3, H, W)."""
        copies = _ladder(images, self.kinds, (self.mild, self.severe), self.choose, scorer, generator)
        return dict(zip(self.names, copies, strict=True))


@dataclass(frozen=True)
class Ladder:
    """Makes copies at several severities of one distortion, as `Pair` does at two: "rung1" is the mildest. Chapter 9.

    Attributes:
        kinds, choose: as in `Pair`; the gap is that between the mildest and the most severe copy.
        severities: in [0, 1], rising.
    """

    kinds: tuple[str, ...] = ("jpeg", "noise", "blur")
    severities: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    choose: str = "signed"

    def __post_init__(self):
        _check_choice(self.choose)
        rising = len(self.severities) > 1 and all(0 <= a < b <= 1 for a, b in pairwise(self.severities))
        if not rising or not self.kinds:
            raise ValueError("need at least one kind, and two or more severities that rise within [0, 1]")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the views, from the best to the worst."""
        return tuple(f"rung{i + 1}" for i in range(len(self.severities)))

    def __call__(self, images: Tensor, scorer: Scorer, generator: torch.Generator) -> dict[str, Tensor]:
        """(B, 3, H, W) → {"rung1": …, "rung2": …}, each (B, 3, H, W)."""
        copies = _ladder(images, self.kinds, self.severities, self.choose, scorer, generator)
        return dict(zip(self.names, copies, strict=True))


def _check_choice(choose: str) -> None:
    if choose not in ("gap", "signed", "random"):
        raise ValueError(f"choose must be 'gap', 'signed' or 'random'; got {choose!r}")


def _ladder(images: Tensor, kinds, severities, choose: str, scorer: Scorer, generator) -> list[Tensor]:
    """For each severity, copies (B, 3, H, W) of the kind that is chosen for each image; one kind an image."""
    rows = torch.arange(len(images), device=images.device)
    if choose == "random":
        choice = torch.randint(len(kinds), (len(images),), generator=generator, device=images.device)
    levels = [torch.stack([distort(images, kind, s, generator) for kind in kinds]) for s in severities]
    if choose != "random":
        gap = torch.stack([scorer(m) - scorer(s) for m, s in zip(levels[0], levels[-1], strict=True)])  # (kinds, B)
        choice = (gap.abs() if choose == "gap" else gap).argmax(0)
    return [copies[choice, rows] for copies in levels]


def view_makers(losses: Sequence) -> list[Callable]:
    """The distinct view makers of some losses, in order: equal makers run once."""
    return list(dict.fromkeys(maker for loss in losses if (maker := getattr(loss, "views", None)) is not None))
