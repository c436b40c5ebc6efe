"""Losses that need no opinions: relative rank, group contrastive, and the order of scores (chapters 6 and 7).

Each comes twice: a pure function of tensors, and a small class for `Adapter(losses=[…])` that takes a `Context`.
Anything callable will do as a loss: `loss(context) -> scalar`, with an optional `weight`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from .copies import Ladder, Pair
from .moments import Moments
from .protocols import ScoringModel


@dataclass
class Context:
    """What a loss may look at, for one episode of B images: "clean", and the copies that the losses asked for, by name.

    Chapter 8.

    Attributes:
        features: name → (B, D), under the parameters being adapted.
        scores: name → (B,), likewise; higher is better, whatever the model's own direction.
        images: name → (B, 3, H, W).
        pseudo_scores: (B,) the source model's scores of the clean images, higher is better.
        feature_mean, feature_std: (D,) over the source data, or over this batch if the model carries no source moments.
        score_std: () likewise.
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


def _check_shapes(dimensions: int, **tensors: Tensor) -> None:
    """All of one shape, (B,) or (B, D)."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != dimensions for shape in shapes.values()):
        wanted = ("(B,)", "(B, D)")[dimensions - 1]
        raise ValueError(f"{' and '.join(shapes)} must have one shape {wanted}; got {list(shapes.values())}")


def _renamed_views(loss: RelativeRank | ScoreOrder, views: Pair | Ladder | None) -> None:
    if views is not None:
        warnings.warn("views= is now called copies=", DeprecationWarning, stacklevel=4)
        object.__setattr__(loss, "copies", views)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {value}")


def relative_rank_loss(anchor: Tensor, mild: Tensor, severe: Tensor) -> Tensor:
    """The severe copy must lie farther from the image than the mild one: −mean log σ(d_severe − d_mild). Chapter 6, eq-rank.

    Args:
        anchor, mild, severe: features (B, D) of the image and of its two copies.

    Returns:
        () ≥ 0; log 2 where the two are equally far. Zero for an empty batch. [roy2023tta], chapter 6.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check_shapes(2, anchor=anchor, mild=mild, severe=severe)
    if not len(anchor):
        return anchor.sum()
    # vector_norm has gradient 0 at 0; the square root of a sum of squares has NaN there.
    farther = torch.linalg.vector_norm(severe - anchor, dim=1) - torch.linalg.vector_norm(mild - anchor, dim=1)
    return -logsigmoid(farther).mean()


def score_order_loss(better: Tensor, worse: Tensor, margin: float | Tensor = 0.0, temperature: float = 1.0) -> Tensor:
    """What is better must score higher: mean of softplus((worse − better + margin) / temperature). Chapter 8, eq-order.

    Args:
        better, worse: scores (B,), higher = better.
        margin, temperature: in units of the scores; the margin one for all, or (B,).

    Returns:
        () ≥ 0. Zero for an empty batch. Chapter 6.

    Raises:
        ValueError: shapes that do not belong together, or a temperature that is not positive.
    """
    _check_shapes(1, better=better, worse=worse)
    if isinstance(margin, Tensor) and margin.shape not in ((), better.shape):
        raise ValueError(f"margin must be one number or have shape {tuple(better.shape)}; got {tuple(margin.shape)}")
    _check_positive("temperature", temperature)
    if not len(better):
        return better.sum()
    return -logsigmoid((better - worse - margin) / temperature).mean()


def contrastive_groups(pseudo_scores: Tensor, fraction: float = 0.25) -> tuple[Tensor, Tensor]:
    """Indices of the k lowest and the k highest of (B,) scores, k = max(2, ⌊fraction·B⌋). Both empty where 2k > B.

    Chapter 7.
    """
    count = len(pseudo_scores)
    k = max(2, math.floor(fraction * count))
    if 2 * k > count:
        none = torch.empty(0, dtype=torch.long, device=pseudo_scores.device)
        return none, none
    order = pseudo_scores.argsort(stable=True)
    return order[:k], order[-k:]


def group_contrastive_loss(
    features: Tensor,
    pseudo_scores: Tensor,
    fraction: float = 0.25,
    temperature: float = 0.1,
    form: str = "mean-log",
) -> Tensor:
    """The images that look worst attract one another and repel those that look best, and the other way round.

    Chapter 7, eq-gc and eq-stable.

    With cosine similarities s: r_i = e^{pos_i/τ} / (e^{pos_i/τ} + Σ_{j in the other group} e^{s_ij/τ}), where pos_i is the
    mean similarity of i to the other members of its group.

    Args:
        features: (B, D).
        pseudo_scores: (B,), the source model's scores; they only form the groups.
        fraction: share of the batch in each group, at most 0.5.
        temperature: τ.
        form: "mean-log" for −mean log r_i, "log-mean" for −log mean r_i (both were published).

    Returns:
        () ≥ 0; log(1 + k) where all features agree. Zero where no two groups of two can be formed. [roy2023tta], chapter 7.

    Raises:
        ValueError: shapes that do not belong together, scores that have no order (NaN), or an impossible setting.
    """
    _check_shapes(2, features=features)
    if pseudo_scores.shape != features.shape[:1]:
        raise ValueError(f"need one pseudo-score a row: {len(features)} rows, scores {tuple(pseudo_scores.shape)}")
    if pseudo_scores.isnan().any():
        raise ValueError("pseudo_scores hold NaN, which has no place in an order")
    _check_contrast(fraction, temperature, form)
    return _contrast(features, pseudo_scores, fraction, temperature, form)


def _check_contrast(fraction: float, temperature: float, form: str) -> None:
    if form not in ("mean-log", "log-mean"):
        raise ValueError(f"form must be 'mean-log' or 'log-mean'; got {form!r}")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction must lie in (0, 0.5]; got {fraction}")
    _check_positive("temperature", temperature)


def _contrast(features: Tensor, pseudo_scores: Tensor, fraction: float, temperature: float, form: str) -> Tensor:
    """`group_contrastive_loss` of what has been checked."""
    low, high = contrastive_groups(pseudo_scores, fraction)
    k = len(low)
    if k == 0:
        return features.sum() * 0
    z = normalize(features[torch.cat([low, high])], dim=1)
    similarity = (z @ z.T).view(2, k, 2, k) / temperature
    log_ratios = []
    for group in (0, 1):
        own, other = similarity[group, :, group], similarity[group, :, 1 - group]  # (k, k) each
        positive = (own.sum(1) - own.diagonal()) / (k - 1)
        negative = torch.logsumexp(other, 1)
        log_ratios.append(positive - torch.logaddexp(positive, negative))
    log_ratio = torch.cat(log_ratios)
    if form == "mean-log":
        return -log_ratio.mean()
    return math.log(2 * k) - torch.logsumexp(log_ratio, 0)


@dataclass(frozen=True)
class RelativeRank:
    """`relative_rank_loss` of the model's features. Chapter 6, eq-rank.

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
        _renamed_views(self, views)

    def __call__(self, context: Context) -> Tensor:
        names = ("clean", "mild", "severe")
        if not self.standardise:
            return relative_rank_loss(*(context.features[name] for name in names))
        features = [context.standardised(name) for name in names]
        return relative_rank_loss(*(f / math.sqrt(f.shape[1]) for f in features))


@dataclass(frozen=True)
class ScoreOrder:
    """`score_order_loss` of each copy and the next worse one, clean > mild > severe, in deviations of the source's scores.

    Chapter 8, eq-order.

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
        _check_positive("temperature", self.temperature)
        _renamed_views(self, views)

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

    Chapter 7, eq-gc.

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
    """Stay near the source's ranking: 1 − correlation of the adapted scores with the source's, within the batch.

    Chapters 8 and 10.
    """

    weight: float = 1.0

    def __call__(self, context: Context) -> Tensor:
        if len(context.pseudo_scores) < 3:
            return context.skip("Anchor", f"needs at least 3 images in a batch; got {len(context.pseudo_scores)}")
        new, old = (s - s.mean() for s in (context.scores["clean"], context.pseudo_scores))
        return 1 - (new * old).sum() / (new.norm() * old.norm()).clamp_min(1e-12)
