"""ActMAD: activations with the moments of the source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...adaptation.context import Context


@dataclass(frozen=True)
class ActMad:
    """ActMAD [mirza2023actmad]: the batch's activations should have the source's means and variances, layer by layer.

    As targets serve the moments that BatchNorm keeps, per channel (the original also keeps them per position).
    """

    weight: float = 1.0
    needs_moments = True

    def __call__(self, context: Context) -> Tensor:
        if not context.moments:
            return context.skip("ActMad", "the model has no BatchNorm layer that remembers its source")
        terms = []
        for source, batch in context.moments.values():
            unit = source.var.clamp_min(1e-12)
            terms += [
                ((batch.mean - source.mean).abs() / unit.sqrt()).mean(),
                ((batch.var - source.var).abs() / unit).mean(),
            ]
        return torch.stack(terms).mean()
