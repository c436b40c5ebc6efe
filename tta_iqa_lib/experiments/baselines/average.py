"""No adaptation: more looks at the same image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...imaging.crops import symmetries
from ...models.quality import ScoringModel
from ...models.training import score_all


@dataclass(frozen=True)
class Average:
    """No adaptation: the score averaged over symmetric views and corner crops, at the compute that adaptation takes.

    Attributes:
        model: the source model.
        views: 1, 2 or 8 symmetric views.
        crops: 1, or 5: the whole and four crops of seven eighths of its side.
    """

    model: ScoringModel
    views: int = 8
    crops: int = 1

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,). Images do not influence one another."""
        height, width = (length * 7 // 8 for length in images.shape[2:])
        cuts = [images]
        if self.crops > 1:
            cuts += [
                images[..., y, x]
                for y in (slice(height), slice(-height, None))
                for x in (slice(width), slice(-width, None))
            ]
        parts = [view for cut in cuts for view in symmetries(cut, self.views)]
        return torch.stack([score_all(self.model, part) for part in parts]).mean(0)
