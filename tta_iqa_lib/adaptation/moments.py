"""The moments algebra: mean and variance per channel, how far they lie apart, and how far they would by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CACHED = 2**20  # values of a temporary, 4 MB in single precision


class Moments(NamedTuple):
    """Mean and (biased) variance per channel, each (C,) or, for E episodes, (E, C)."""

    mean: Tensor
    var: Tensor


class Measured(NamedTuple):
    """`Moments` of a batch, and the sampling variances of its mean and of the logarithm of its variance, (E, C) each."""

    mean: Tensor
    var: Tensor
    error: Tensor
    log_error: Tensor


def batch_moments(x: Tensor, episodes: int = 1) -> Moments:
    """Moments of activations (E·B, C, …) over the images and positions of each episode: (E, C) each."""
    if x.is_cuda:  # one kernel in place of eight: a small batch waits for their launches
        rows = _wide(x).unflatten(0, (episodes, -1))
        var, mean = torch.var_mean(rows, (1, *range(3, rows.ndim)), correction=0)
        return Moments(mean, var)
    return pooled(*image_moments(x, episodes))


def sampling_error(x: Tensor, episodes: int = 1) -> Tensor:
    """How far the mean of each episode of (E·B, C, …) is from that of all images like these: its variance, (E, C).

    Estimated from how the means of the B images differ. Infinite for B = 1, where nothing is known.
    """
    return _error(image_moments(x.detach(), episodes)[0])


def measure(x: Tensor, episodes: int = 1, crops: int = 1) -> Measured:
    """Moments of activations (E·B, C, …), and how far they may be off by chance.

    B images know their own spread badly when they are few, the more so as single images can be far out: the error of the
    mean is taken (1 + 6 / (B − 1)) times, that of the variance, which single images dominate, by the square of it.

    Args:
        crops: so many consecutive rows show parts of one picture; chance draws pictures, not crops.

    Raises:
        ValueError: the rows of an episode are no multiple of `crops`.
    """
    return measured(*image_moments(x, episodes), crops)


def measured(means: Tensor, variances: Tensor, crops: int = 1) -> Measured:
    """What `measure` gives, from the moments of each image, (E, B, C) each."""
    if means.shape[1] % crops:
        raise ValueError(f"{means.shape[1]} rows are no whole number of pictures of {crops} crops each")
    batch = pooled(means, variances)
    spreads = variances.detach() + (means.detach() - batch.mean.detach()[:, None]) ** 2  # about the batch's mean
    means, spreads = (part.detach().unflatten(1, (-1, crops)).mean(2) for part in (means, spreads))
    margin = 1 + 6 / (means.shape[1] - 1) if means.shape[1] > 1 else 1.0
    relative = _error(spreads) / spreads.mean(1).clamp_min(1e-12) ** 2
    return Measured(*batch, margin * _error(means), margin**2 * relative)


def measured_together(layers: Sequence[tuple[Tensor, Tensor, int]]) -> list[Measured]:
    """`measured` of several layers, at once where they saw the same images: a GPU waits for each small operation."""
    found: dict[int, Measured] = {}
    alike: dict[tuple, list[int]] = {}
    for i, (means, _, crops) in enumerate(layers):
        kind = means.shape[:2], crops, means.dtype, means.device, means.requires_grad
        alike.setdefault(kind, []).append(i)
    for (_, crops, *_), those in alike.items():
        means, variances = torch.cat([layers[i][0] for i in those], 2), torch.cat([layers[i][1] for i in those], 2)
        widths = [layers[i][0].shape[2] for i in those]
        parts = zip(*(part.split(widths, -1) for part in measured(means, variances, crops)), strict=True)
        found |= {i: Measured(*part) for i, part in zip(those, parts, strict=True)}
    return [found[i] for i in range(len(layers))]


def image_moments(x: Tensor, episodes: int) -> tuple[Tensor, Tensor]:
    """Mean and variance over the positions of each image: (E·B, C, …) → (E, B, C) each, in single precision at least."""
    if x.is_cuda or (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        mean, var = _over_positions(x)
    else:  # A large temporary waits for fresh pages of memory longer than it computes: a few images stay in the cache.
        some = max(1, CACHED // max(1, x[:1].numel()))
        means, variances = zip(*map(_over_positions, x.split(some)), strict=True)
        mean, var = torch.cat(means), torch.cat(variances)
    return mean.unflatten(0, (episodes, -1)), var.unflatten(0, (episodes, -1))


def _over_positions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the positions of each image, (E·B, C) each."""
    x = _wide(x)
    positions = tuple(range(2, x.ndim))
    if not positions:
        return x, torch.zeros_like(x)
    if x.is_cuda:  # one kernel
        var, mean = torch.var_mean(x, positions, correction=0)
        return mean, var
    centre = x.mean(positions, keepdim=True)  # the same in two passes, several times as fast on a CPU
    deviation = x - centre
    squares = deviation.square() if deviation.requires_grad else deviation.square_()
    return centre.flatten(1), squares.mean(positions)


def _wide(x: Tensor) -> Tensor:
    """In single precision at least."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def pooled(means: Tensor, variances: Tensor) -> Moments:
    """Moments of all images of an episode from those of each, (E, B, C) → (E, C)."""
    mean = means.mean(1)
    return Moments(mean, variances.mean(1) + (means - mean[:, None]).square().mean(1))


def _error(values: Tensor) -> Tensor:
    """The sampling variance of a mean over B values (E, B, C): (E, C)."""
    count = values.shape[1]
    return values.var(1) / count if count > 1 else torch.full_like(values[:, 0], math.inf)


def mean_shift(source: Moments, batch: Measured) -> tuple[Tensor, Tensor]:
    """How far a layer's means lie from the source's, and how far they would by chance, (E,) each.

    Both are squares in units of the source's variance, averaged over the channels. Chance is infinite for a single image.
    """
    distance, chance = _of_means(source, batch)
    return distance.mean(-1), chance.mean(-1)


def variance_shift(source: Moments, batch: Measured) -> tuple[Tensor, Tensor]:
    """How far the logarithms of a layer's variances lie from the source's, and how far they would by chance, (E,) each.

    Squares, averaged over the channels: what `mean_shift` is for the means. Low contrast moves no mean, but it shows here.
    """
    distance, chance = _of_variances(source, batch)
    return distance.mean(-1), chance.mean(-1)


def layer_shifts(layers: Sequence[tuple[Moments, Measured]]) -> Tensor:
    """`mean_shift` and `variance_shift` of L layers, (L, 4, E), in a few operations for all of them."""
    source = Moments(*(torch.cat(parts) for parts in zip(*(of_source for of_source, _ in layers), strict=True)))
    batch = Measured(*(torch.cat(parts, -1) for parts in zip(*(batch for _, batch in layers), strict=True)))
    channels = torch.stack([*_of_means(source, batch), *_of_variances(source, batch)])  # (4, E, C of all layers)
    return torch.stack([part.mean(-1) for part in channels.split([len(m.mean) for m, _ in layers], -1)])


def _of_means(source: Moments, batch: Measured) -> tuple[Tensor, Tensor]:
    """Distance and chance of each channel's mean, (E, C) each."""
    unit = source.var.clamp_min(1e-12)
    return ((batch.mean - source.mean) ** 2 / unit).detach(), (batch.error / unit).detach()


def _of_variances(source: Moments, batch: Measured) -> tuple[Tensor, Tensor]:
    """Distance and chance of the logarithm of each channel's variance, (E, C) each."""
    ratio = batch.var.clamp_min(1e-12) / source.var.clamp_min(1e-12)
    return (ratio.log() ** 2).detach(), batch.log_error.detach()


def blend(old: Moments, new: Moments | Measured, alpha: float | Tensor, exact: bool = True) -> Moments:
    """(1 − α)·old + α·new, as moments.

    Args:
        alpha: weight of `new` in [0, 1]; 0 gives `old` bit for bit.
        exact: the variance of the mixture, (1 − α)(v_o + (μ_o − μ)²) + α(v_n + (μ_n − μ)²), which grows with the distance
            of the means; False: the linear blend (1 − α) v_o + α v_n, as in PyTorch's running average.
    """
    mean = (1 - alpha) * old.mean + alpha * new.mean
    var = (1 - alpha) * old.var + alpha * new.var
    if exact:
        var = var + alpha * (1 - alpha) * (new.mean - old.mean) ** 2  # the same mixture, multiplied out
    return Moments(mean, var)
