"""Chapter 1, scoring a scorer: its checkers."""

import math

import numpy as np
import torch

from ...metrics import bootstrap, krcc, srcc
from .checker import Wrong, checker, near


def _number(value) -> float:
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.numel() != 1:
        raise Wrong(f"one number is asked for; your function returns shape {tuple(value.shape)}")
    return float(value)


def _halves(grades: np.ndarray, first, second) -> float:
    return np.corrcoef(grades[:, first].mean(1), grades[:, second].mean(1))[0, 1]


@checker("ex01_1")
def ex01_1(ceiling):
    """`ceiling(grades (N, J)) -> float`: the highest correlation that a model can reach, from the two halves of the panel."""
    for observers in (4, 10):
        rng = np.random.default_rng(11 + observers)
        quality = 3.2 + 0.45 * rng.normal(size=(600, 1))
        grades = (
            (quality + 0.4 * rng.normal(size=observers) + 0.8 * rng.normal(size=(600, observers))).round().clip(1, 5)
        )
        found = _number(ceiling(torch.from_numpy(grades)))
        even, odd = np.arange(0, observers, 2), np.arange(1, observers, 2)
        front, back = np.arange(observers // 2), np.arange(observers // 2, observers)
        halves = [_halves(grades, even, odd), _halves(grades, front, back)]  # any two halves will do
        if any(near(found, math.sqrt(2 * r / (1 + r)), 1e-3) for r in halves):
            continue
        for r in halves:
            if near(found, r, 1e-3):
                raise Wrong("this is how well the two halves agree, r; the full panel and the root are still to come")
            if near(found, math.sqrt(r), 1e-3):
                raise Wrong("this is the ceiling of half the panel: apply 2r / (1 + r) before the root")
            if near(found, 2 * r / (1 + r), 1e-3):
                raise Wrong(
                    "this is the reliability R, between two noisy panels; a perfect model has no noise of its own: take the root"
                )
        if abs(found) < 0.3:
            raise Wrong("near zero: did you split the images? Split the observers, that is, the columns")
        raise Wrong(
            f"expected {math.sqrt(2 * halves[0] / (1 + halves[0])):.3f}; got {found:.3f}: r, then 2r / (1 + r), then the root"
        )


@checker("ex01_2")
def ex01_2(tau_b):
    """`tau_b(pred (N,), target (N,)) -> float`: Kendall's τ-b, NaN for a constant list."""
    generator = torch.Generator().manual_seed(12)
    for levels in (4, 9):
        pred = torch.randint(0, levels, (60,), generator=generator).double()
        target = (pred + torch.randint(-2, 3, (60,), generator=generator)).clamp(0, levels).div(2).floor()
        found, expected = _number(tau_b(pred.clone(), target.clone())), krcc(pred, target)
        if near(found, expected, 1e-6):
            continue
        i, j = torch.triu_indices(60, 60, offset=1)
        a, b = (pred[i] - pred[j]).sign(), (target[i] - target[j]).sign()
        total = float((a * b).sum())
        if near(found, total / len(i), 1e-6):
            raise Wrong("this divides by all pairs; tied pairs must not count below the line")
        if near(found, total / float((a * b != 0).sum()), 1e-6):
            raise Wrong("this divides by the pairs tied in neither list; τ-b takes the geometric mean of two counts")
        if near(found, -expected, 1e-6):
            raise Wrong("the sign is turned round: concordant minus discordant")
        if near(found, srcc(pred, target), 1e-6):
            raise Wrong("this is SRCC; count pairs instead of correlating ranks")
        if near(found, expected**2, 1e-6) or near(found, total / float(a.abs().sum() * b.abs().sum()), 1e-6):
            raise Wrong("check the root: √(untied in pred · untied in target)")
        if found > expected:
            raise Wrong("too high: do tied pairs count as concordant? They count as neither")
        raise Wrong(f"expected {expected:.4f}; got {found:.4f}")
    try:
        constant = _number(tau_b(torch.full((20,), 0.5), torch.arange(20.0)))
    except ZeroDivisionError:
        constant = 0.0
    if not math.isnan(constant):
        raise Wrong("a constant list has no order: return NaN, not a number and not an error")


@checker("ex01_3")
def ex01_3(cluster_interval):
    """`cluster_interval(scores, quality, content, draws, seed) -> (low, high)`: compared with the library's."""
    rng = np.random.default_rng(13)
    sizes = rng.integers(6, 15, 30)  # contents of different size
    content = np.repeat([f"scene-{k}" for k in range(30)], sizes)
    quality = rng.normal(size=sizes.sum())
    scores = quality + np.repeat(0.9 * rng.normal(size=30), sizes) + 0.3 * rng.normal(size=sizes.sum())
    mixed = rng.permutation(len(content))  # a content's images do not stand together
    scores, quality, content = scores[mixed], quality[mixed], content[mixed]
    expected = bootstrap(lambda i: srcc(scores[i], quality[i]), len(scores), content, 2000, 99)

    first = np.asarray(cluster_interval(scores.copy(), quality.copy(), content.copy(), 1000, 5), dtype=float)
    if first.shape != (2,):
        raise Wrong(f"two numbers are asked for, (low, high); your function returns shape {first.shape}")
    again = np.asarray(cluster_interval(scores.copy(), quality.copy(), content.copy(), 1000, 5), dtype=float)
    if not np.array_equal(first, again):
        raise Wrong("the same seed gives another interval: make a generator from `seed` inside the function")
    low, high = first
    if low > high:
        raise Wrong("the lower end comes first")
    width = (high - low) / (expected.high - expected.low)
    if width < 0.05:
        raise Wrong("the interval has no width: draw with replacement; without, every draw is the whole set")
    if width < 0.68:
        raise Wrong(
            "far too narrow: draw whole contents, and not images, neither from the whole set nor within their content"
        )
    if width < 0.87:
        raise Wrong(
            "a little too narrow: a content that is drawn twice must count twice; "
            "and it is the 95 % interval, from 2.5 % to 97.5 %"
        )
    if width > 1.15:
        raise Wrong(
            "too wide: draw as many contents as there are, keep every image of a content, "
            "and take the quantiles 2.5 % and 97.5 %"
        )
    if max(abs(low - expected.low), abs(high - expected.high)) > 0.15 * (expected.high - expected.low):
        raise Wrong(f"the width is right, the place is not: expected about {expected.low:.2f} to {expected.high:.2f}")


# observers, images, spread of the true qualities, the model's own error; the advice, and what another one has not seen
_STUDIES = (
    (6, 500, 0.35, 0.0, "better labels", "the model is perfect and falls short of 1 only because six people are few"),
    (
        20,
        500,
        0.8,
        0.55,
        "better model",
        "the labels are nearly perfect, and the whole interval lies below their ceiling",
    ),
    (4, 1500, 0.4, 0.25, "better model", "the ceiling is √R, not R and not the correlation of the halves"),
    (10, 16, 0.6, 0.2, "better labels", "with sixteen images the interval reaches the ceiling: nothing is sure yet"),
)


@checker("ex01_4")
def ex01_4(advise):
    """`advise(scores (N,), grades (N, J)) -> "better model" or "better labels"`, for four simulated studies."""
    for seed, (observers, images, spread, own, advice, seen) in enumerate(_STUDIES):
        rng = np.random.default_rng(140 + seed)
        quality = 3 + spread * rng.normal(size=images)
        grades = quality[:, None] + 0.4 * rng.normal(size=observers) + 0.7 * rng.normal(size=(images, observers))
        scores = 10 * (quality + own * rng.normal(size=images)) - 7  # in units of their own
        found = advise(torch.from_numpy(scores), torch.from_numpy(grades.round().clip(1, 5)))
        if found not in ("better model", "better labels"):
            raise Wrong(f"expected 'better model' or 'better labels'; got {found!r}")
        if found != advice:
            raise Wrong(f"{images} images, {observers} observers: your advice is {found!r}, but {seen}")
