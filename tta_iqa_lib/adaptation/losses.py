"""Losses that need no opinions, for `Adapter(losses=[…])`.

Each is small and takes a `Context`; what it computes is a function in `functional`. Anything callable will do as a loss:
`loss(context) -> scalar`, with an optional `weight`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from itertools import pairwise

from torch import Tensor

from ..imaging.checks import check_number
from .context import Context
from .copies import Ladder, Pair
from .functional import (
    _check_contrast,
    _contrast,
    contrastive_groups,
    relative_rank_loss,
    score_order_loss,
)


@dataclass(frozen=True)
class RelativeRank:
    """`relative_rank_loss` of the model's features.

    Attributes:
        weight: of this loss in the sum.
        copies: makes them.
        standardise: measure distances in source standard deviations, root mean square over the features; False: raw norms.
        views: the old name of `copies`.
    """

    weight: float = 1.0
    copies: Pair = field(default_factory=Pair)
    standardise: bool = True
    views: InitVar[Pair | None] = None

    def __post_init__(self, views: Pair | None) -> None:
        check_number("weight", self.weight)
        _renamed_views(self, views)
        _check_copies(self.copies, "mild", "severe")

    def __call__(self, context: Context) -> Tensor:
        names = ("clean", "mild", "severe")
        if not self.standardise:
            return relative_rank_loss(*(context.features[name] for name in names))
        features = [context.standardised(name) for name in names]
        return relative_rank_loss(*(f / math.sqrt(f.shape[1]) for f in features))


@dataclass(frozen=True)
class ScoreOrder:
    """`score_order_loss` of each copy and the next worse one, clean > mild > severe, in deviations of the source's scores.

    Attributes:
        weight: of this loss in the sum.
        copies: makes them, and names them from the best to the worst.
        temperature: in source deviations.
        metric: (distorted, reference) → (B,), a full-reference metric in source deviations, higher = better: how much
            worse than its neighbour it finds a copy is the margin that the scores must keep. None: no margin.
        views: the old name of `copies`.
    """

    weight: float = 1.0
    copies: Pair | Ladder = field(default_factory=Pair)
    temperature: float = 1.0
    metric: Callable[[Tensor, Tensor], Tensor] | None = None
    views: InitVar[Pair | Ladder | None] = None

    def __post_init__(self, views: Pair | Ladder | None) -> None:
        check_number("weight", self.weight)
        check_number("temperature", self.temperature, 0, above=True)
        _renamed_views(self, views)
        _check_copies(self.copies)
        if not (self.metric is None or callable(self.metric)):
            raise TypeError(f"metric must be a function of two batches of images, or None; got {self.metric!r}")

    def __call__(self, context: Context) -> Tensor:
        names = ("clean", *self.copies.names)
        scores = [context.scores[name] / context.score_std for name in names]
        margins = [0.0] * (len(names) - 1)
        if self.metric:
            found = [self.metric(context.images[name], context.images["clean"]) for name in names]
            margins = [(better - worse).clamp_min(0) for better, worse in pairwise(found)]
        terms = [
            score_order_loss(better, worse, margin, self.temperature)
            for (better, worse), margin in zip(pairwise(scores), margins, strict=True)
        ]
        return sum(terms[1:], terms[0]) / len(terms)


@dataclass(frozen=True)
class GroupContrastive:
    """`group_contrastive_loss` of the model's features, divided by its plateau log(1 + k): λ means the same at every size.

    Attributes:
        weight, fraction, temperature, form: as in the function.
        standardise: centre and scale features by the source's moments first; without it all cosines are close to one.
    """

    weight: float = 1.0
    fraction: float = 0.25
    temperature: float = 0.1
    form: str = "mean-log"
    standardise: bool = True

    def __post_init__(self):
        check_number("weight", self.weight)
        _check_contrast(self.fraction, self.temperature, self.form)

    def __call__(self, context: Context) -> Tensor:
        low, _ = contrastive_groups(context.pseudo_scores, self.fraction)
        if not len(low):
            return context.skip(
                "GroupContrastive", f"needs at least 4 images in a batch; got {len(context.pseudo_scores)}"
            )
        features = context.standardised() if self.standardise else context.features["clean"]
        loss = _contrast(features, context.pseudo_scores, self.fraction, self.temperature, self.form)
        return loss / math.log(1 + len(low))


@dataclass(frozen=True)
class Anchor:
    """Stay near the source's ranking: 1 − correlation of the adapted scores with the source's, within the batch."""

    weight: float = 1.0

    def __post_init__(self):
        check_number("weight", self.weight)

    def __call__(self, context: Context) -> Tensor:
        if len(context.pseudo_scores) < 3:
            return context.skip("Anchor", f"needs at least 3 images in a batch; got {len(context.pseudo_scores)}")
        new, old = (s - s.mean() for s in (context.scores["clean"], context.pseudo_scores))
        return 1 - (new * old).sum() / (new.norm() * old.norm()).clamp_min(1e-12)


def _check_copies(copies: object, *names: str) -> None:
    made = getattr(copies, "names", None)
    if not callable(copies) or made is None or not set(names) <= set(made):
        wanted = f"copies by the names {' and '.join(names)}" if names else "copies"
        raise TypeError(f"copies must make {wanted}, as Pair() does; got {copies!r}")


def _renamed_views(loss: RelativeRank | ScoreOrder, views: Pair | Ladder | None) -> None:
    if views is not None:
        warnings.warn("views= is now called copies=", DeprecationWarning, stacklevel=4)
        object.__setattr__(loss, "copies", views)
