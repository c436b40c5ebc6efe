"""Chapter 10, when not to adapt: its checkers."""

import numpy as np

from .checker import Wrong, checker, near


@checker("ex10_1")
def ex10_1(calibrate):
    """`calibrate(ratios, false_alarms) -> threshold`: as many unshifted batches at or above it as are tolerated."""
    generator = np.random.default_rng(101)
    ratios = generator.gamma(1.5, 1.0, 2000)
    answer = float(calibrate(ratios.copy(), 0.05))
    alarms = float((ratios >= answer).mean())
    if abs(alarms - 0.95) < 0.01:
        raise Wrong("95 % of the unshifted batches would be adapted: the threshold is at the wrong end")
    if near(answer, ratios.mean() + 1.645 * ratios.std(), 1e-3):
        raise Wrong("these ratios are not Gaussian; use their own distribution")
    if answer >= ratios.max():
        raise Wrong("no alarm at all: that also misses shifts; the tolerated share is yours to use")
    if not 0.04 <= alarms <= 0.06:
        raise Wrong(f"{alarms:.1%} of the unshifted batches lie at or above your threshold; 5 % were asked for")
    stricter = float(calibrate(ratios.copy(), 0.01))
    if not 0.005 <= float((ratios >= stricter).mean()) <= 0.015:
        raise Wrong("right for 5 %, not for 1 %: use the second argument")


@checker("ex10_2")
def ex10_2(correct):
    """`correct(p_values) -> corrected`: Holm's step-down rule, in the order of the input."""
    cases = [[0.01, 0.04, 0.03, 0.005], [0.2, 0.001], [0.02, 0.02, 0.02], [0.6, 0.9]]
    expected = [[0.03, 0.06, 0.06, 0.02], [0.2, 0.002], [0.06, 0.06, 0.06], [1.0, 1.0]]
    for p_values, right in zip(cases, expected, strict=True):
        answer = [float(v) for v in correct(list(p_values))]
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
