"""The rules: from the source's moments and those of the test batch, which ones normalise?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..imaging.checks import check_number
from .moments import Measured, Moments, blend, mean_shift, variance_shift


class Statistics:
    """A rule: which moments normalise this batch?

    Called with the layer's `source` moments, those of the `batch`, those used for the `previous` batch of a stream (the
    source's at its start), and the `count` of images in the batch.
    """

    uses_batch = True
    uses_error = False  # is `batch` a `Measured`?
    without_source = False  # can it do with layers that keep no running statistics?

    def __call__(self, source: Moments, batch: Moments | Measured, previous: Moments, count: int) -> Moments | Measured:
        raise NotImplementedError

    def at(self, depth: float) -> Statistics:
        """The rule for the layer at a depth in [0, 1): 0 is the first BatchNorm layer of the model."""
        return self


@dataclass(frozen=True)
class Source(Statistics):
    """The source's moments, as in plain inference."""

    uses_batch = False
    without_source = True

    def __call__(self, source, batch, previous, count):
        return source


@dataclass(frozen=True)
class Carried(Statistics):
    """The moments that are carried on, as they are; the source's at the start of a stream."""

    uses_batch = False
    without_source = True

    def __call__(self, source, batch, previous, count):
        return previous


@dataclass(frozen=True)
class Batch(Statistics):
    """The test batch's own moments, as in training mode [nado2020evaluating]."""

    without_source = True

    def __call__(self, source, batch, previous, count):
        return batch


@dataclass(frozen=True)
class Blend(Statistics):
    """A fixed mixture: `alpha` of the batch, the rest of the source. `exact`: see `blend`."""

    alpha: float
    exact: bool = True

    def __post_init__(self):
        check_number("alpha", self.alpha, 0, 1)

    def __call__(self, source, batch, previous, count):
        return blend(source, batch, self.alpha, self.exact)


@dataclass(frozen=True)
class Shrink(Statistics):
    """The source counts as `prior` images: α = B / (B + prior) [schneider2020improving]. Small batches move little."""

    prior: float
    exact: bool = True

    def __post_init__(self):
        check_number("prior", self.prior, 0)

    def __call__(self, source, batch, previous, count):
        return blend(source, batch, count / (count + self.prior), self.exact)


@dataclass(frozen=True)
class Adaptive(Statistics):
    """As much of the batch as the measured shift warrants: α = 1 − noise / distance, layer by layer, at least 0.

    `distance` is how far the batch's means lie from the source's (`mean_shift`), `noise` what that would be by chance, from
    the spread of the images: the positive-part James-Stein rule [james1961estimation]. The same is asked of the logarithms
    of the variances (`variance_shift`), and the larger α counts. No shift, or a batch of one image: α ≈ 0. A clear shift, or many
    images: α ≈ 1.

    Attributes:
        caution: the noise counts so many times; more is closer to the source.
        exact: see `blend`.
    """

    caution: float = 1.0
    exact: bool = True

    uses_error = True

    def __post_init__(self):
        check_number("caution", self.caution, 0)

    def __call__(self, source, batch, previous, count):
        assert isinstance(batch, Measured)
        shares = []
        for distance, noise in (mean_shift(source, batch), variance_shift(source, batch)):
            share = (1 - self.caution * noise / distance.clamp_min(1e-12)).clamp(0, 1)
            shares.append(torch.where(noise.isinf(), 0.0, share))  # a single image, whatever the caution
        alpha = torch.maximum(*shares)
        return blend(source, batch, alpha[:, None], self.exact)


@dataclass(frozen=True)
class Ema(Statistics):
    """A running average over a stream: each batch counts `momentum`. From the source, if nothing is carried on.

    With `exact=False` the variance is blended linearly, as PyTorch's running average does it. That leaves out
    how far the means of the batches lie apart; over single images such a variance is too small.
    """

    momentum: float
    exact: bool = True

    def __post_init__(self):
        check_number("momentum", self.momentum, 0, 1)

    def __call__(self, source, batch, previous, count):
        return blend(previous, batch, self.momentum, self.exact)


@dataclass(frozen=True)
class First(Statistics):
    """`rule` in the first `share` of the layers, the source's moments in the rest.

    What light and haze do to an image shows in the first layers; what tells good from bad images shows in all of them, and
    re-measuring the deep ones cancels a part of it, above all where a batch is small or one-sided.
    """

    rule: Statistics
    share: float = 0.25

    def __post_init__(self):
        check_rule("rule", self.rule)
        check_number("share", self.share, 0, 1)

    def at(self, depth: float) -> Statistics:
        return self.rule.at(depth) if depth < self.share else Source()


def check_rule(name: str, rule: object) -> None:
    """Refuse what is no rule.

    Raises:
        TypeError: names the argument and what it got.
    """
    if not isinstance(rule, Statistics):
        raise TypeError(f"{name} must be a rule such as Source() or Blend(0.7); got {rule!r}")
