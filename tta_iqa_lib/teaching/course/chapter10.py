"""Chapter 10, when not to adapt: its checkers."""

import numpy as np

from .checker import Wrong, checker, near


@checker("ex10_1")
def ex10_1(calibrate):
    """`calibrate(ratios, false_alarms) -> threshold`: as many unshifted batches at or above it as are tolerated."""
    generator = np.random.default_rng(101)
    ratios = generator.gamma(1.5, 1.0, 2000)
    answer = float(calibrate(ratios, 0.05))
    alarms = float((ratios >= answer).mean())
    if abs(alarms - 0.95) < 0.01:
        raise Wrong("95 % of the unshifted batches would be adapted: the threshold is at the wrong end")
    if near(answer, ratios.mean() + 1.645 * ratios.std(), 1e-3):
        raise Wrong("these ratios are not Gaussian; use their own distribution")
    if answer >= ratios.max():
        raise Wrong("no alarm at all: that also misses shifts; the tolerated share is yours to use")
    if not 0.04 <= alarms <= 0.06:
        raise Wrong(f"{alarms:.1%} of the unshifted batches lie at or above your threshold; 5 % were asked for")
    stricter = float(calibrate(ratios, 0.01))
    if not 0.005 <= float((ratios >= stricter).mean()) <= 0.015:
        raise Wrong("right for 5 %, not for 1 %: use the second argument")


@checker("ex10_2")
def ex10_2(correct):
    """`correct(p_values) -> corrected`: Holm's step-down rule, in the order of the input."""
    cases = [[0.01, 0.04, 0.03, 0.005], [0.2, 0.001], [0.02, 0.02, 0.02], [0.6, 0.9]]
    expected = [[0.03, 0.06, 0.06, 0.02], [0.2, 0.002], [0.06, 0.06, 0.06], [1.0, 1.0]]
    for p_values, right in zip(cases, expected, strict=True):
        answer = [float(v) for v in correct(p_values)]
        if near(answer, right, 1e-9):
            continue
        count = len(p_values)
        if len(answer) == count and near(answer, [min(1, p * count) for p in p_values], 1e-9):
            raise Wrong("this is Bonferroni's rule: valid, but Holm's asks less of all but the smallest p-value")
        if len(answer) == count and near(sorted(answer), sorted(right), 1e-9):
            raise Wrong("the values are right, their order is not: answer in the order of the input")
        if any(v > 1 for v in answer):
            raise Wrong("a corrected p-value is at most 1")
        raise Wrong(
            f"for {p_values} the answer is {right}; yours is {answer}. A larger p-value never gets a smaller answer"
        )


@checker("ex10_3")
def ex10_3(chance):
    """`chance(means, pictures) -> (C,)`: the sampling variance of a batch's mean when rows are crops of pictures."""
    generator = np.random.default_rng(103)
    pictures = np.repeat([7, 3, 9, 1, 4], 4)
    own = dict(zip((7, 3, 9, 1, 4), generator.normal(0, 1, (5, 3)), strict=True))
    means = np.array([own[p] for p in pictures]) + generator.normal(0, 0.2, (20, 3))
    answer = np.asarray(chance(means, pictures), dtype=float)
    if answer.shape != (3,):
        raise Wrong(f"one number a channel is asked for, so the shape is (3,); yours is {answer.shape}")
    by_picture = np.array([means[pictures == p].mean(0) for p in np.unique(pictures)])
    expected = by_picture.var(0, ddof=1) / 5
    if near(answer, means.var(0, ddof=1) / 20) or near(answer, means.var(0) / 20):
        raise Wrong("these are 20 rows taken for 20 witnesses; four crops of one picture tell nearly the same")
    if near(answer, by_picture.var(0, ddof=1) / 20):
        raise Wrong("the pictures are right, but there are 5 of them, not 20")
    if near(answer, by_picture.var(0) / 5):
        raise Wrong(
            "divide by one less than the number of pictures: with five, the biased variance is a fifth too small"
        )
    if near(answer, by_picture.var(0, ddof=1)):
        raise Wrong("this is how single pictures vary; the mean of five varies less")
    if not near(answer, expected):
        raise Wrong("average the crops of each picture first; then see how the pictures' means vary")
    order = generator.permutation(20)
    if not near(np.asarray(chance(means[order], pictures[order])), expected):
        raise Wrong("right only while the crops of a picture stand side by side: go by the second argument")
