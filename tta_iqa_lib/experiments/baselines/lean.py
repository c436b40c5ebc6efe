"""A rule after LeanTTA: statistics alone, from one image, in the first half of the layers."""

from __future__ import annotations

from dataclasses import dataclass

from ...adaptation.moments import blend
from ...adaptation.rules import Source, Statistics


@dataclass(frozen=True)
class Lean(Statistics):
    """After LeanTTA [dong2025leantta]: the farther the batch lies from the source, the more of it: α = d² / (d² + `balance`).

    d² is the squared distance of the means in units of the source's variance, averaged over the channels: Mahalanobis's, with
    a diagonal covariance. The original takes one image at a time (`PerImage`) and adapts the layers before those that it fuses.

    Attributes:
        balance: the squared distance at which source and batch count alike.
        share: of the layers that are adapted, from the input on.
    """

    balance: float = 1.0
    share: float = 0.5

    def __call__(self, source, batch, previous, count):
        distance = ((batch.mean - source.mean) ** 2 / source.var.clamp_min(1e-12)).mean(-1, keepdim=True)
        return blend(source, batch, distance / (distance + self.balance))

    def at(self, depth: float) -> Statistics:
        return self if depth < self.share else Source()
