"""TENT for a score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...adaptation.context import Context


@dataclass(frozen=True)
class ScoreEntropy:
    """TENT [wang2021tent] for a score: entropy of its soft assignment to `bins` equally likely values of the source.

    The scores over the source data are taken as Gaussian; a score belongs to a bin's centre by a Gaussian of the bins' mean
    distance. The entropy is largest at the mean of the source, where the bins are dense: minimising it pushes scores outwards,
    as TENT pushes class scores to the corners.
    """

    weight: float = 1.0
    bins: int = 10

    def __call__(self, context: Context) -> Tensor:
        scores = (context.scores["clean"] - context.score_mean) / context.score_std
        share = (torch.arange(self.bins, device=scores.device, dtype=scores.dtype) + 0.5) / self.bins
        centres = torch.special.ndtri(share)
        width = (centres[-1] - centres[0]) / (self.bins - 1)
        return (
            torch.distributions.Categorical(logits=-((scores[:, None] - centres) ** 2) / (2 * width**2))
            .entropy()
            .mean()
        )
