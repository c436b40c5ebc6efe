"""Worse copies of the images being scored: what a loss compares them with.

A loss names in its attribute `copies` what makes them, a `CopyMaker`. `RelativeRank` needs copies named "mild" and "severe".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..imaging.checks import as_tuple, check_choice, check_number
from ..imaging.distortions import DISTORTIONS, distort
from .protocols import CopyMaker, PlainLoss, Scorer


class _Degradations:
    """Copies of each image at several severities of one kind of distortion."""

    kinds: tuple[str, ...]
    choose: str
    choose_on: float
    severities: tuple[float, ...]
    names: tuple[str, ...]

    def _check(self) -> None:
        kinds = (self.kinds,) if isinstance(self.kinds, str) else as_tuple("kinds", self.kinds)
        object.__setattr__(self, "kinds", kinds)
        unknown = [kind for kind in kinds if not (isinstance(kind, str) and kind in DISTORTIONS)]
        if unknown or not kinds:
            raise ValueError(f"kinds must be some of {', '.join(DISTORTIONS)}; got {self.kinds!r}")
        check_choice("choose", self.choose, ("gap", "signed", "random"))
        check_number("choose_on", self.choose_on, 0, 1, above=True)

    def __call__(self, images: Tensor, scorer: Scorer, generator: torch.Generator) -> dict[str, Tensor]:
        """(B, 3, H, W) → {name: (B, 3, H, W)}; of the kind that is chosen for each image."""
        rows = torch.arange(len(images), device=images.device)
        choice = None
        if self.choose == "random":
            choice = torch.randint(len(self.kinds), (len(images),), generator=generator, device=images.device)
        levels = [
            torch.stack([distort(images, kind, s, generator) for kind in self.kinds]) for s in self.severities
        ]  # (kinds, B, 3, H, W) each
        if choice is None:
            ends = torch.stack([levels[0], levels[-1]]).flatten(0, 2)  # (2 · kinds · B, 3, H, W)
            mild, severe = scorer(_middle(ends, self.choose_on)).view(2, len(self.kinds), len(images))
            gap = mild - severe  # (kinds, B)
            choice = (gap.abs() if self.choose == "gap" else gap).argmax(0)
        return {name: copies[choice, rows] for name, copies in zip(self.names, levels, strict=True)}


@dataclass(frozen=True)
class Pair(_Degradations):
    """Makes two copies of each image with one distortion: a mild one and a severe one, drawn once an episode.

    Attributes:
        kinds: candidates; "choose" decides among them, image by image, by the source model's scores q of the copies:
            "gap": the largest ``|q(mild) − q(severe)|``, as published; "signed": the largest q(mild) − q(severe);
            "random": any.
        mild, severe: severities in [0, 1].
        choose_on: the copies are compared on the middle of each image, so many times its sides; .5 costs a quarter of 1.

    Raises:
        ValueError: unknown kinds, or severities that do not rise within [0, 1].
    """

    kinds: tuple[str, ...] = ("jpeg", "noise", "blur")
    mild: float = 0.3
    severe: float = 0.7
    choose: str = "gap"
    choose_on: float = 1.0

    def __post_init__(self):
        self._check()
        check_number("mild", self.mild, 0, 1)
        check_number("severe", self.severe, 0, 1)
        if not 0 <= self.mild < self.severe <= 1:
            raise ValueError(f"need 0 ≤ mild < severe ≤ 1; got {self.mild} and {self.severe}")

    @property
    def severities(self) -> tuple[float, ...]:
        """From the mildest to the most severe."""
        return self.mild, self.severe

    @property
    def names(self) -> tuple[str, ...]:
        """Of the copies, from the best to the worst."""
        return "mild", "severe"


@dataclass(frozen=True)
class Ladder(_Degradations):
    """Makes copies at several severities of one distortion, as `Pair` does at two: "rung1" is the mildest.

    Attributes:
        kinds, choose, choose_on: as in `Pair`; the gap is that between the mildest and the most severe copy.
        severities: in [0, 1], rising.

    Raises:
        ValueError: unknown kinds, or severities that do not rise within [0, 1].
    """

    kinds: tuple[str, ...] = ("jpeg", "noise", "blur")
    severities: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    choose: str = "signed"
    choose_on: float = 1.0

    def __post_init__(self):
        self._check()
        object.__setattr__(self, "severities", as_tuple("severities", self.severities))
        for severity in self.severities:
            check_number("severities", severity, 0, 1)
        if len(self.severities) < 2 or not all(a < b for a, b in pairwise(self.severities)):
            raise ValueError(f"need two or more severities that rise; got {self.severities}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the copies, from the best to the worst."""
        return tuple(f"rung{i + 1}" for i in range(len(self.severities)))


def _middle(images: Tensor, share: float) -> Tensor:
    """The middle of (N, 3, H, W), `share` of each side."""
    height, width = (max(1, round(share * side)) for side in images.shape[2:])
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[..., top : top + height, left : left + width]


def copy_makers(losses: Sequence[PlainLoss]) -> list[CopyMaker]:
    """The distinct makers of copies of some losses, in order: equal makers run once."""
    return list(dict.fromkeys(loss.copies for loss in losses if loss.copies is not None))
