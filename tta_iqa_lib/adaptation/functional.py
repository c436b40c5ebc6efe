"""The losses as pure functions of tensors: relative rank, group contrastive, the order of scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from ..imaging.checks import check_choice, check_number


def relative_rank_loss(anchor: Tensor, mild: Tensor, severe: Tensor) -> Tensor:
    """The severe copy must lie farther from the image than the mild one: −mean log σ(d_severe − d_mild).

    Args:
        anchor, mild, severe: features (B, D) of the image and of its two copies.

    Returns:
        () ≥ 0; log 2 where the two are equally far. Zero for an empty batch. [roy2023tta].

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
    """What is better must score higher: mean of softplus((worse − better + margin) / temperature).

    Args:
        better, worse: scores (B,), higher = better.
        margin, temperature: in units of the scores; the margin one for all, or (B,).

    Returns:
        () ≥ 0. Zero for an empty batch.

    Raises:
        ValueError: shapes that do not belong together, or a temperature that is not positive.
    """
    _check_shapes(1, better=better, worse=worse)
    if not isinstance(margin, Tensor):
        check_number("margin", margin)
    elif margin.shape not in ((), better.shape):
        raise ValueError(f"margin must be one number or have shape {tuple(better.shape)}; got {tuple(margin.shape)}")
    check_number("temperature", temperature, 0, above=True)
    if not len(better):
        return better.sum()
    return -logsigmoid((better - worse - margin) / temperature).mean()


def contrastive_groups(pseudo_scores: Tensor, fraction: float = 0.25) -> tuple[Tensor, Tensor]:
    """Indices of the k lowest and the k highest of (B,) scores, k = max(2, ⌊fraction·B⌋). Both empty where 2k > B.

    Raises:
        ValueError: not (B,), or a fraction outside (0, 0.5].
    """
    _check_shapes(1, pseudo_scores=pseudo_scores)
    check_number("fraction", fraction, 0, 0.5, above=True)
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

    With cosine similarities s: r_i = e^{pos_i/τ} / (e^{pos_i/τ} + Σ_{j in the other group} e^{s_ij/τ}), where pos_i is the
    mean similarity of i to the other members of its group.

    Args:
        features: (B, D).
        pseudo_scores: (B,), the source model's scores; they only form the groups.
        fraction: share of the batch in each group, at most 0.5.
        temperature: τ.
        form: "mean-log" for −mean log P_i, "log-mean" for −log mean P_i (both were published).

    Returns:
        () ≥ 0; log(1 + k) where all features agree. Zero where no two groups of two can be formed. [roy2023tta].

    Raises:
        ValueError: shapes that do not belong together, scores that have no order (NaN), or an impossible setting.
    """
    _check_shapes(2, features=features)
    _check_shapes(1, pseudo_scores=pseudo_scores)
    if len(pseudo_scores) != len(features):
        raise ValueError(f"pseudo_scores must be one a row of features; got {len(pseudo_scores)} for {len(features)}")
    if pseudo_scores.isnan().any():
        raise ValueError("pseudo_scores hold NaN, which has no place in an order")
    _check_contrast(fraction, temperature, form)
    return _contrast(features, pseudo_scores, fraction, temperature, form)


def _check_contrast(fraction: float, temperature: float, form: str) -> None:
    check_choice("form", form, ("mean-log", "log-mean"))
    check_number("fraction", fraction, 0, 0.5, above=True)
    check_number("temperature", temperature, 0, above=True)


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


def _check_shapes(dimensions: int, **tensors: Tensor) -> None:
    """Floating-point tensors, all of one shape, (B,) or (B, D)."""
    for name, tensor in tensors.items():
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name} must be a floating-point tensor; got {got}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != dimensions for shape in shapes.values()):
        wanted = ("(B,)", "(B, D)")[dimensions - 1]
        raise ValueError(f"{' and '.join(shapes)} must have one shape {wanted}; got {list(shapes.values())}")
