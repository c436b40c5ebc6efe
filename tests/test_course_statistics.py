"""The checkers of chapters 9 and 10: right answers of different make pass, each misconception gets its own reason."""

import numpy as np
import pytest
import torch

from tta_iqa_lib.analysis import holm
from tta_iqa_lib.course import check


def interval(a, b):
    return np.quantile(a - b, [0.025, 0.975])


def interval_by_sorting(a, b):
    gaps = sorted(x - y for x, y in zip(a, b, strict=True))
    return gaps[round(0.025 * len(gaps))], gaps[round(0.975 * len(gaps)) - 1]


EX09_1_WRONG = {
    "B minus A": lambda a, b: interval(b, a),
    "does not cancel": lambda a, b: interval(a, 0) - interval(b, 0),
    "sorted before": lambda a, b: interval(np.sort(a), np.sort(b)),
    "90 % interval": lambda a, b: np.quantile(a - b, [0.05, 0.95]),
    "shrinks with the number": lambda a, b: (a - b).mean() + 1.96 * (a - b).std() / 20 * np.array([-1, 1]),
    "lower end": lambda a, b: interval(a, b)[::-1],
    "draw by draw": lambda a, b: ((a - b).min(), (a - b).max()),
}


def share(means, mean, var):
    if len(means) == 1:
        return 0.0
    noise = (means.var(0) / len(means) / var).mean()
    return (1 - noise / ((means.mean(0) - mean) ** 2 / var).mean()).clamp(0, 1)


def share_in_numpy(means, mean, var):
    x, mean, var = (np.asarray(t) for t in (means, mean, var))
    distance = np.mean((x.mean(0) - mean) ** 2 / var)
    if len(x) < 2 or distance == 0:
        return 0.0
    return max(0.0, 1 - np.mean(x.var(0, ddof=1) / len(x) / var) / distance)


def _parts(means, mean, var):
    return (means.mean(0) - mean) ** 2 / var, means.var(0) / var


EX09_2_WRONG = {
    "share of the source": lambda *a: 1 - share(*a),
    "spread of single images": lambda *a: (1 - _parts(*a)[1].mean() / _parts(*a)[0].mean()).clamp(0, 1),
    "channels first": lambda *a: (1 - _parts(*a)[1] / 12 / _parts(*a)[0]).clamp(0, 1).mean(),
    "units": lambda m, mean, var: (1 - m.var(0).mean() / 12 / ((m.mean(0) - mean) ** 2).mean()).clamp(0, 1),
    "no displacement": lambda m, mean, var: (
        1 - (m.var(0) / len(m) / var).mean() / ((m.mean(0) - mean) ** 2 / var).mean()
    ),
    "single image": lambda m, mean, var: 1.0 if len(m) == 1 else share(m, mean, var),
}

EX10_1_WRONG = {
    "wrong end": lambda r, share: np.quantile(r, share),
    "not Gaussian": lambda r, share: r.mean() + 1.645 * r.std(),
    "no alarm": lambda r, share: r.max() + 1,
    "were asked for": lambda r, share: np.quantile(r, 1 - share / 2),
    "second argument": lambda r, share: np.quantile(r, 0.95),
}


def holm_by_hand(p_values):
    out, largest = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        out[i] = largest
    return [out[i] for i in range(len(p_values))]


def holm_without_a_limit(p_values):
    out, largest = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, p_values[i] * (len(p_values) - rank))
        out[i] = largest
    return [out[i] for i in range(len(p_values))]


EX10_2_WRONG = {
    "Bonferroni": lambda p: [min(1, len(p) * x) for x in p],
    "order": lambda p: sorted(holm(p)),
    "at most 1": holm_without_a_limit,
    "never gets a smaller": lambda p: [min(1, x * (len(p) - sorted(p).index(x))) for x in p],
}

CASES = [
    (check.ex09_1, [interval, interval_by_sorting], EX09_1_WRONG),
    (check.ex09_2, [share, share_in_numpy], EX09_2_WRONG),
    (check.ex10_1, [lambda r, s: np.quantile(r, 1 - s), lambda r, s: np.sort(r)[-round(s * len(r))]], EX10_1_WRONG),
    (check.ex10_2, [holm, holm_by_hand], EX10_2_WRONG),
]


@pytest.mark.parametrize(("checker", "right"), [(c, r) for c, rights, _ in CASES for r in rights])
def test_right_answers_of_different_make_pass(checker, right):
    assert checker(right).status == "passed", checker(right)


@pytest.mark.parametrize(
    ("checker", "reason", "answer"), [(c, k, f) for c, _, wrong in CASES for k, f in wrong.items()]
)
def test_each_misconception_gets_its_own_reason(checker, reason, answer):
    verdict = checker(answer)
    assert verdict.status == "not yet" and reason in verdict.message


@pytest.mark.parametrize("checker", [c for c, _, _ in CASES])
def test_a_stub_is_not_attempted(checker):
    assert checker(lambda *a: ...).status == "not attempted"
    assert checker(lambda *a: torch.zeros(2) @ torch.zeros(3)).status == "not yet"
