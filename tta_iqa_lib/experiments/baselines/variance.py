"""Agreement of turned views, in the place of certainty."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...adaptation.context import Context
from .turns import Turns


@dataclass(frozen=True)
class ScoreVariance:
    """TENT's idea where there are no classes: scores of an image and of its turned views should agree.

    Attributes:
        copies: the turned views, at most as many as the model was trained on.
        reliable: leave out images whose views disagree by more than so many source deviations, as EATA and SAR leave out
            uncertain images [niu2022eata, niu2023sar]; None: keep all.
    """

    weight: float = 1.0
    copies: Turns = field(default_factory=lambda: Turns(1, mirror=True))
    reliable: float | None = None

    def __call__(self, context: Context) -> Tensor:
        scores = torch.stack([context.scores[name] for name in ("clean", *self._names())]) / context.score_std
        variance = scores.var(0, correction=0)
        if self.reliable is not None:
            kept = variance.detach().sqrt() <= self.reliable
            if not kept.any():
                return context.skip("ScoreVariance", "no image's views agree well enough")
            variance = variance[kept]
        return variance.mean()

    def _names(self) -> list[str]:
        return [f"turn{i + 1}" for i in range(self.copies.count)]
