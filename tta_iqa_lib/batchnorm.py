"""Which statistics does BatchNorm normalise with? The moments algebra, made explicit (chapter 5).

A BatchNorm layer computes γ (x − μ) / √(v + ε) + β. Training leaves it with the *source's* μ_s and v_s. At test time a
`Statistics` rule decides, from the source's moments and those of the test batch, which μ and v are used instead.

The user's layers are never written to: inside `controlled(model, rule)` each layer's computation is replaced, and comes
back as it was when the block ends, whatever happens in it. `.train()` and `.eval()` make no difference inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

NORM_LAYERS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


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
    var, mean = torch.var_mean(_by_episode(x, episodes), dim=(1, 3), correction=0)
    return Moments(mean, var)


def sampling_error(x: Tensor, episodes: int = 1) -> Tensor:
    """How far the mean of each episode of (E·B, C, …) is from that of all images like these: its variance, (E, C).

    Estimated from how the means of the B images differ. Infinite for B = 1, where nothing is known.
    """
    return _error(_by_episode(x.detach(), episodes).mean(3))


def _error(values: Tensor) -> Tensor:
    """The sampling variance of a mean over B values (E, B, C): (E, C)."""
    count = values.shape[1]
    return values.var(1) / count if count > 1 else torch.full_like(values[:, 0], math.inf)


def measure(x: Tensor, episodes: int = 1, crops: int = 1) -> Measured:
    """Moments of activations (E·B, C, …), and how far they may be off by chance.

    B images know their own spread badly when they are few, the more so as single images can be far out: the error of the
    mean is taken (1 + 6 / (B − 1)) times, that of the variance, which single images dominate, by the square of it.

    Args:
        crops: so many consecutive rows show parts of one picture; chance draws pictures, not crops.

    Raises:
        ValueError: the rows of an episode are no multiple of `crops`.
    """
    batch = batch_moments(x, episodes)
    rows = _by_episode(x.detach(), episodes)
    if rows.shape[1] % crops:
        raise ValueError(f"{rows.shape[1]} rows are no whole number of pictures of {crops} crops each")
    squares = (rows - batch.mean.detach()[:, None, :, None]) ** 2
    means, spreads = (part.mean(3).unflatten(1, (-1, crops)).mean(2) for part in (rows, squares))  # (E, B, C)
    margin = 1 + 6 / (means.shape[1] - 1) if means.shape[1] > 1 else 1.0
    relative = _error(spreads) / spreads.mean(1).clamp_min(1e-12) ** 2
    return Measured(*batch, margin * _error(means), margin**2 * relative)


def _by_episode(x: Tensor, episodes: int) -> Tensor:
    """(E·B, C, …) → (E, B, C, positions), in single precision at least."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    x = x.unflatten(0, (episodes, -1))
    return x.flatten(3) if x.ndim > 3 else x[..., None]


def displacement(source: Moments, batch: Measured) -> tuple[Tensor, Tensor]:
    """How far a layer's means lie from the source's, and how far they would by chance, (E,) each.

    Both are squares in units of the source's variance, averaged over the channels. Chance is infinite for a single image.
    """
    unit = source.var.clamp_min(1e-12)
    distance = ((batch.mean - source.mean) ** 2 / unit).mean(-1)
    return distance.detach(), (batch.error / unit).mean(-1).detach()


def stretch(source: Moments, batch: Measured) -> tuple[Tensor, Tensor]:
    """How far the logarithms of a layer's variances lie from the source's, and how far they would by chance, (E,) each.

    Squares, averaged over the channels: what `displacement` is for the means. Low contrast moves no mean, but it shows here.
    """
    ratio = batch.var.clamp_min(1e-12) / source.var.clamp_min(1e-12)
    return (ratio.log() ** 2).mean(-1).detach(), batch.log_error.mean(-1).detach()


def blend(old: Moments, new: Moments, alpha: float | Tensor, exact: bool = True) -> Moments:
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


class Statistics:
    """A rule: which moments normalise this batch?

    Called with the layer's `source` moments, those of the `batch`, those used for the `previous` batch of a stream (the
    source's at its start), and the `count` of images in the batch.
    """

    uses_batch = True
    uses_error = False  # is `batch` a `Measured`?

    def __call__(self, source: Moments, batch: Moments, previous: Moments, count: int) -> Moments:
        raise NotImplementedError

    def at(self, depth: float) -> Statistics:
        """The rule for the layer at a depth in [0, 1): 0 is the first BatchNorm layer of the model."""
        return self


@dataclass(frozen=True)
class Source(Statistics):
    """The source's moments, as in plain inference."""

    uses_batch = False

    def __call__(self, source, batch, previous, count):
        return source


@dataclass(frozen=True)
class Batch(Statistics):
    """The test batch's own moments, as in training mode [nado2020evaluating]."""

    def __call__(self, source, batch, previous, count):
        return batch


@dataclass(frozen=True)
class Blend(Statistics):
    """A fixed mixture: `alpha` of the batch, the rest of the source. `exact`: see `blend`."""

    alpha: float
    exact: bool = True

    def __post_init__(self):
        _check_share("alpha", self.alpha)

    def __call__(self, source, batch, previous, count):
        return blend(source, batch, self.alpha, self.exact)


@dataclass(frozen=True)
class Shrink(Statistics):
    """The source counts as `prior` images: α = B / (B + prior) [schneider2020improving]. Small batches move little."""

    prior: float
    exact: bool = True

    def __post_init__(self):
        if self.prior < 0:
            raise ValueError(f"prior must not be negative; got {self.prior}")

    def __call__(self, source, batch, previous, count):
        return blend(source, batch, count / (count + self.prior), self.exact)


@dataclass(frozen=True)
class Adaptive(Statistics):
    """As much of the batch as the measured shift warrants: α = 1 − noise / distance, layer by layer, at least 0.

    `distance` is how far the batch's means lie from the source's (`displacement`), `noise` what that would be by chance, from
    the spread of the images: the positive-part James-Stein rule [james1961estimation]. The same is asked of the logarithms
    of the variances (`stretch`), and the larger α counts. No shift, or a batch of one image: α ≈ 0. A clear shift, or many
    images: α ≈ 1.

    Attributes:
        caution: the noise counts so many times; more is closer to the source.
        exact: see `blend`.
    """

    caution: float = 1.0
    exact: bool = True

    uses_error = True

    def __post_init__(self):
        if self.caution < 0:
            raise ValueError(f"caution must not be negative; got {self.caution}")

    def __call__(self, source, batch, previous, count):
        shares = []
        for distance, noise in (displacement(source, batch), stretch(source, batch)):
            share = (1 - self.caution * noise / distance.clamp_min(1e-12)).clamp(0, 1)
            shares.append(torch.where(noise.isinf(), 0.0, share))  # a single image, whatever the caution
        alpha = torch.maximum(*shares)
        return blend(source, batch, alpha[:, None], self.exact)


@dataclass(frozen=True)
class Ema(Statistics):
    """A running average over a stream: each batch counts `momentum`. From the source, if nothing is carried on."""

    momentum: float
    exact: bool = False

    def __post_init__(self):
        _check_share("momentum", self.momentum)

    def __call__(self, source, batch, previous, count):
        return blend(previous, batch, self.momentum, self.exact)


@dataclass(frozen=True)
class First(Statistics):
    """`rule` in the first `share` of the layers, the source's moments in the rest.

    What light and haze do to an image shows in the first layers; what tells good from bad images shows in all of them, and
    re-measuring the deep ones cancels a part of it, above all where a batch is small or one-sided (chapters 9 and 10).
    """

    rule: Statistics
    share: float = 0.25

    def __post_init__(self):
        _check_share("share", self.share)

    def at(self, depth: float) -> Statistics:
        return self.rule.at(depth) if depth < self.share else Source()


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {value}")


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a model by name, in order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}


def norm_affine(model: nn.Module) -> dict[str, nn.Parameter]:
    """γ and β of every normalisation layer, by their full names: what TENT-like methods adapt [wang2021tent]."""
    return {
        f"{name}.{key}" if name else key: parameter
        for name, layer in model.named_modules()
        if isinstance(layer, NORM_LAYERS)
        for key, parameter in layer.named_parameters(recurse=False)
    }


@dataclass
class Control:
    """What `controlled` hands out: how the rows of the next forward pass are laid out, and what was used in the last.

    Attributes:
        statistics: the rule; `rules`: what it says for each layer, by name.
        through: do gradients flow through the batch's moments?
        episodes, clean: the rows are E episodes, one after the other; in each, the first `clean` rows are the test images
            that moments come from (None: all rows), the rest copies of them that are normalised alike.
        crops: so many consecutive rows show parts of one picture (see `measure`).
        previous: moments that a stream carries on, by layer name.
        used: moments of the last forward pass, by layer name, (E, C) each.
        record: keep what is measured of the clean images, too, gradients included (some losses and gates ask for it).
        measured: (source moments, `Measured`) of the last forward pass with `record`, by layer name.
    """

    statistics: Statistics
    through: bool = False
    rules: dict[str, Statistics] = field(default_factory=dict)
    episodes: int = 1
    clean: int | None = None
    crops: int = 1
    previous: dict[str, Moments] = field(default_factory=dict)
    used: dict[str, Moments] = field(default_factory=dict)
    record: bool = False
    measured: dict[str, tuple[Moments, Measured]] = field(default_factory=dict)

    def normalise(self, name: str, layer: _BatchNorm, x: Tensor) -> Tensor:
        """The replaced computation of one layer. γ and β may be (C,), or (E, C): one row an episode."""
        source, rule = Moments(layer.running_mean, layer.running_var), self.rules[name]
        moments, count = source, 0
        record = self.record and source.mean is not None  # without running statistics there is no displacement
        if rule.uses_batch or record:
            clean = x
            if self.clean is not None:
                clean = x.unflatten(0, (self.episodes, -1))[:, : self.clean].flatten(0, 1)
            count = len(clean) // self.episodes
            clean = clean if self.through or record else clean.detach()
            needs_error = rule.uses_error or record
            batch = measure(clean, self.episodes, self.crops) if needs_error else batch_moments(clean, self.episodes)
            if record:
                self.measured[name] = source, batch
            if not self.through:
                batch = type(batch)(*(part.detach() for part in batch))
            moments = Moments(*rule(source, batch, self.previous.get(name, source), count)[:2])
        mean, var = (m.expand(self.episodes, -1) for m in moments)
        self.used[name] = Moments(mean.detach(), var.detach())
        weight, bias = layer.weight, layer.bias
        shared = self.episodes == 1 or (moments.mean.ndim == 1 and (weight is None or weight.ndim == 1))
        if shared and not mean.requires_grad:  # PyTorch's own kernel: bit for bit plain inference at the source
            weight, bias = (None if p is None else p.reshape(-1) for p in (weight, bias))
            return batch_norm(x, mean[0], var[0], weight, bias, False, 0.0, layer.eps)
        scale = torch.rsqrt(var + layer.eps)
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (self.episodes, 1, -1) + (1,) * (x.ndim - 2)
        rows = x.unflatten(0, (self.episodes, -1))
        return (rows * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)).flatten(0, 1)


@contextmanager
def controlled(model: nn.Module, statistics: Statistics, through: bool = False) -> Iterator[Control]:
    """Run `model` under a statistics rule, in evaluation mode; afterwards it is exactly as before.

    Example::

        with controlled(model, Blend(0.7)):
            scores = model(images)  # moments: 0.7 of this batch, 0.3 of the source

    Raises:
        ValueError: the rule needs BatchNorm layers, or running statistics, that the model does not have.
    """
    layers = batchnorm_layers(model)
    if statistics.uses_batch and not layers:
        raise ValueError(f"{statistics} needs BatchNorm layers, and this model has none: use statistics=Source()")
    without = [name for name, layer in layers.items() if layer.running_mean is None]
    if without and not isinstance(statistics, Batch):
        raise ValueError(
            f"layer '{without[0]}' keeps no running statistics (track_running_stats=False): use statistics=Batch()"
        )
    rules = {name: statistics.at(i / len(layers)) for i, name in enumerate(layers)}
    control = Control(statistics, through, rules)
    modes = [(module, module.training) for module in model.modules()]
    replaced: list[tuple[nn.Module, object]] = []
    try:
        for module, _ in modes:
            module.training = False
        for name, layer in layers.items():
            replaced.append((layer, layer.__dict__.get("forward")))
            layer.forward = partial(control.normalise, name, layer)
        yield control
    finally:
        for layer, before in replaced:
            layer.__dict__.pop("forward", None)
            if before is not None:
                layer.forward = before
        for module, training in modes:
            module.training = training
