"""What a loss may look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .moments import Moments
from .protocols import ScoringModel


@dataclass
class Context:
    """What a loss may look at, for one episode of B images: "clean", and the copies that the losses asked for, by name.

    Attributes:
        features: name → (B, D), under the parameters being adapted.
        scores: name → (B,), likewise; higher is better, whatever the model's own direction.
        images: name → (B, 3, H, W).
        pseudo_scores: (B,) the source model's scores of the clean images, higher is better.
        feature_mean, feature_std: (D,) over the source data, or over this batch if the model carries no source moments.
        score_mean, score_std: () likewise, of the source's scores; higher is better.
        model: the source model, for what else it remembers; not to be run or changed.
        moments: (source moments, the clean images' moments) by BatchNorm layer, (C,) each, with gradients; filled only for
            a loss whose `needs_moments` is true.
        skipped: reasons of the losses that could not be formed, by name.
    """

    features: dict[str, Tensor]
    scores: dict[str, Tensor]
    images: dict[str, Tensor]
    pseudo_scores: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    score_mean: Tensor
    score_std: Tensor
    model: ScoringModel | None = None
    moments: dict[str, tuple[Moments, Moments]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def standardised(self, name: str = "clean") -> Tensor:
        """Features in units of the source: (z − mean) / std, (B, D)."""
        return (self.features[name] - self.feature_mean) / self.feature_std

    def skip(self, name: str, reason: str) -> Tensor:
        """Report that a loss cannot be formed; returns the zero to use in its place."""
        self.skipped[name] = reason
        return self.pseudo_scores.new_zeros(())
