"""How well does a scorer agree with opinions? Correlations and their intervals.

Scores and targets are one-dimensional and of equal length; higher always means better.
Ranks, Kendall's τ and the fit come from SciPy; this module adds honest handling of constant input,
the logistic curve of the field, and bootstrap intervals over images or over contents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch


class ConstantInputWarning(UserWarning):
    """A correlation was asked for scores that are all equal: it is undefined (NaN)."""


def as_vector(values, name: str = "scores") -> np.ndarray:
    """Tensor (any floating type, any device), list or array of N numbers → float64 array (N,).

    Args:
        name: of the argument, for the message.

    Raises:
        ValueError: not one-dimensional, or not real numbers.
    """

    def plain(value):  # NumPy knows neither bfloat16 nor other devices
        return (
            value.detach().cpu().double().numpy()
            if isinstance(value, torch.Tensor) and not value.is_complex()
            else value
        )

    values = [plain(v) for v in values] if isinstance(values, (list, tuple)) else plain(values)
    try:
        vector = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # ragged, or no array at all
        vector = np.empty(0, dtype=object)
    if vector.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, one per image; got {_short(values)}")
    if vector.ndim != 1:
        raise ValueError(f"{name}: expected one score per image, shape (N,); got shape {vector.shape}")
    return vector.astype(np.float64)


def _short(values) -> str:
    text = " ".join(repr(values).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


def _pair(pred, target) -> tuple[np.ndarray, np.ndarray]:
    pred, target = as_vector(pred, "predictions"), as_vector(target, "targets")
    if len(pred) != len(target):
        raise ValueError(f"{len(pred)} predictions for {len(target)} targets")
    if len(pred) < 2:
        raise ValueError(f"a correlation needs at least two images; got {len(pred)}")
    return pred, target


def _correlation(function: Callable, pred, target) -> float:
    pred, target = _pair(pred, target)
    if not (np.isfinite(pred).all() and np.isfinite(target).all()):
        return float("nan")
    if np.ptp(pred) == 0 or np.ptp(target) == 0:
        warnings.warn("all values are equal: the correlation is undefined (NaN)", ConstantInputWarning, stacklevel=3)
        return float("nan")
    return float(function(pred, target))


def _pearson(pred: np.ndarray, target: np.ndarray) -> float:
    return np.corrcoef(pred, target)[0, 1]


def _spearman(pred: np.ndarray, target: np.ndarray) -> float:
    from scipy import stats  # in the functions, as it takes half a second

    # Ten times faster than SciPy's function, which also tests significance; bootstraps call this 100,000 times.
    return _pearson(stats.rankdata(pred), stats.rankdata(target))


def srcc(pred, target) -> float:
    """Spearman's rank correlation in [-1, 1]: do the two orders agree? Ties share their mean rank.

    NaN with a `ConstantInputWarning` when one side is constant.
    """
    return _correlation(_spearman, pred, target)


def plcc(pred, target) -> float:
    """Pearson's linear correlation in [-1, 1], of the raw scores. NaN as in `srcc`."""
    return _correlation(_pearson, pred, target)


def krcc(pred, target) -> float:
    """Kendall's τ-b in [-1, 1]: the share of concordant minus discordant pairs. NaN as in `srcc`."""
    return _correlation(_kendall, pred, target)


def _kendall(pred: np.ndarray, target: np.ndarray) -> float:
    from scipy import stats

    return stats.kendalltau(pred, target)[0]  # pyright: ignore[reportReturnType] (SciPy declares no types)


def logistic(x: np.ndarray, top: float, bottom: float, centre: float, width: float) -> np.ndarray:
    """The four-parameter logistic curve that maps scores onto opinions before a linear correlation."""
    return bottom + (top - bottom) / (1 + np.exp(-np.clip((x - centre) / width, -60, 60)))


def plcc_logistic(pred, target) -> float:
    """Pearson's correlation after a four-parameter logistic fit of `pred` to `target`.

    The fit is that of least squares, from several starts: one prediction far out leads a single start astray. The sign tells
    whether the curve rises: one that falls would turn a bad scorer into a good one. Where no fit converges to anything better
    than a straight line the raw correlation is returned, with a warning.
    """
    from scipy import optimize

    pred, target = _pair(pred, target)
    raw = plcc(pred, target)
    if np.isnan(raw):
        return raw
    best, least = None, np.inf
    for start in _logistic_starts(pred, target):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a poor start overflows, or leaves its covariance open
                parameters, _ = optimize.curve_fit(logistic, pred, target, start, maxfev=20_000)
        except (RuntimeError, TypeError):  # did not converge; fewer images than parameters
            continue
        squares = float(((logistic(pred, *parameters) - target) ** 2).sum())
        if squares < least:
            best, least = parameters, squares
    line = (1 - raw**2) * float(((target - target.mean()) ** 2).sum())  # what a straight line leaves over
    if best is None or least > line * 1.001:
        warnings.warn("the logistic fit did not converge: raw correlation returned", stacklevel=2)
        return raw
    top, bottom, _, width = best
    return float(np.copysign(plcc(logistic(pred, *best), target), (top - bottom) * width))


def _logistic_starts(pred: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """The usual start, and the three best of a grid over centre and width, with `top` and `bottom` by linear least squares."""
    centres = np.quantile(pred, (np.arange(40) + 0.5) / 40)
    scales = [scale for scale in (pred.std(), centres[-2] - centres[1], centres[30] - centres[10]) if scale > 0]
    found = []
    for centre in centres:
        for width in (scale * share for scale in scales for share in (0.01, 0.05, 0.2, 0.5, 2)):
            curve = logistic(pred, 1.0, 0.0, centre, width)
            moved = curve - curve.mean()
            if (power := moved @ moved) > 1e-12:
                height = moved @ target / power
                bottom = target.mean() - height * curve.mean()
                squares = float(((bottom + height * curve - target) ** 2).sum())
                found.append((squares, (bottom + height, bottom, centre, width)))
    usual = target.max(), target.min(), float(np.median(pred)), pred.std()
    return [np.array(start) for start in (usual, *(start for _, start in sorted(found)[:3]))]


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def signed(self) -> str:
        """Of a difference: "+0.030 [+0.021, +0.041]"; with four digits where three would hide on which side of 0 an end lies."""
        digits = 4 if any(0 < abs(end) < 0.0005 for end in (self.low, self.high)) else 3
        value, low, high = (f"{number:+z.{digits}f}" for number in (self.value, self.low, self.high))  # z: no −0.000
        return f"{value} [{low}, {high}]"

    def __neg__(self) -> Interval:
        """The difference the other way round."""
        return Interval(-self.value, -self.high, -self.low)


@dataclass(frozen=True)
class Evaluation:
    """The correlations of one set of scores, each an `Interval`."""

    srcc: Interval
    plcc: Interval
    plcc_logistic: float
    krcc: Interval


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """`count` of the rows 0 … total − 1, evenly spread, the first and the last among them; all if there are no more."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def resamples(n: int, groups=None, count: int = 1000, seed: int = 0):
    """Yield `count` bootstrap index arrays over n images; with `groups` (n labels) whole groups are drawn.

    Images cut from one photograph are not independent: drawing contents instead of images keeps intervals honest.
    """
    for name, number, smallest in (("count", count, 1), ("seed", seed, 0)):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < smallest:
            raise ValueError(f"{name} must be a whole number of at least {smallest}; got {number!r}")
    generator = np.random.default_rng(seed)
    if groups is None:
        for _ in range(count):
            yield generator.integers(0, n, n)
        return
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups: labels of shape {labels.shape} for {n} images")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(count):
        yield np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, groups=None, count: int = 1000, seed: int = 0
) -> Interval:
    """Percentile interval (95 %) of `statistic(indices)` over `resamples`. NaN draws are left out."""
    value = statistic(np.arange(n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        draws = [statistic(index) for index in resamples(n, groups, count, seed)]
    finite = [draw for draw in draws if np.isfinite(draw)]
    if not finite or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def evaluate(scores, target, groups=None, count: int = 1000, seed: int = 0) -> Evaluation:
    """SRCC, PLCC and KRCC with 95 % bootstrap intervals, predictions pooled over the whole set.

    Args:
        scores, target: (N,) predictions and opinions, higher = better.
        groups: (N,) content labels; when given, whole contents are resampled.
        count, seed: bootstrap draws and their seed.
    """
    pred, truth = _pair(scores, target)

    def interval(metric, draws):
        return bootstrap(lambda index: metric(pred[index], truth[index]), len(pred), groups, draws, seed)

    return Evaluation(interval(srcc, count), interval(plcc, count), plcc_logistic(pred, truth), interval(krcc, count))
