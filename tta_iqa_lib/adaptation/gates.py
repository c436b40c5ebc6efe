"""When not to adapt, and when to start over: decisions batch by batch, without labels."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from ..imaging.checks import check_count, check_number
from ..metrics import srcc
from .state import Result


@dataclass(frozen=True)
class ShiftGate:
    """Adapt only where the first BatchNorm layer sees a shift that chance does not explain.

    The first layer is linear in the pixels: its channels' means follow the light of a scene, their variances its contrast,
    and both hardly its quality. How far they lie from the source's, over what it would be by chance in a batch of this
    size, is about 1 where nothing has shifted, and not much more for most one-sided batches. A model without BatchNorm
    measures nothing, and is left to adapt.

    Attributes:
        threshold: adapt from so many times the distance by chance, of the means or of the variances; infinity: never.
        min_images: batches of fewer pictures are left to the source.
    """

    threshold: float = 10.0
    min_images: int = 4

    def __post_init__(self):
        if not (isinstance(self.threshold, float) and self.threshold == math.inf):
            check_number("threshold", self.threshold, 0)
        check_count("min_images", self.min_images, 0)

    early = True  # it needs nothing but the measured shift: where it answers "source", no adaptation is computed

    def __call__(self, result: Result) -> str:
        """ "adapted" or "source"."""
        if not result.shift:
            return "adapted"
        if result.pictures < self.min_images:
            return "source"
        first = next(iter(result.shift.values()))
        return "adapted" if any(distance >= self.threshold * noise for distance, noise in first) else "source"


@dataclass(frozen=True)
class Drifted:
    """Whether a stream has drifted: its scores no longer put a batch in the order that the source model sees.

    A loss that falls cannot tell: it falls while a stream collapses, too. For `Adapter.online(restart=Drifted())`.

    Attributes:
        agreement: drifted below this rank correlation between adapted scores and the source's, or where there is none.
        min_images: batches of fewer images say too little, and never drift.
    """

    agreement: float = 0.7
    min_images: int = 8

    def __post_init__(self):
        check_number("agreement", self.agreement, -1, 1)
        check_count("min_images", self.min_images, 0)

    def __call__(self, result: Result) -> bool:
        if len(result.scores) < self.min_images:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant scores have no order: that is a drift, not an accident
            return not srcc(result.scores, result.source_scores) >= self.agreement
