"""Each checker accepts right answers of different make, and refuses typical wrong ones with a reason of its own."""

import copy

import pytest
import torch

from tta_iqa_lib.batchnorm import Moments, blend
from tta_iqa_lib.course import check


def mix_reference(ms, vs, mt, vt, a):
    mean = (1 - a) * ms + a * mt
    return mean, (1 - a) * (vs + (ms - mean) ** 2) + a * (vt + (mt - mean) ** 2)


def mix_by_second_moments(ms, vs, mt, vt, a):
    mean = ms + a * (mt - ms)
    return mean, (1 - a) * (vs + ms**2) + a * (vt + mt**2) - mean**2


def mix_in_place(ms, vs, mt, vt, a):
    mean, var = mix_reference(ms, vs, mt, vt, a)
    ms.copy_(mean)
    return mean, var


EX05_WRONG = {
    "misses the spread": lambda ms, vs, mt, vt, a: ((1 - a) * ms + a * mt, (1 - a) * vs + a * vt),
    "weights are swapped": lambda ms, vs, mt, vt, a: mix_reference(ms, vs, mt, vt, 1 - a),
    "standard deviation": lambda ms, vs, mt, vt, a: (
        mix_reference(ms, vs, mt, vt, a)[0],
        mix_reference(ms, vs, mt, vt, a)[1].sqrt(),
    ),
    "changed its inputs": mix_in_place,
    "the variance is not": lambda ms, vs, mt, vt, a: (
        mix_reference(ms, vs, mt, vt, a)[0],
        (1 - a) * vs + a * vt + (ms - mt) ** 2,
    ),
    "mean is not": lambda ms, vs, mt, vt, a: (ms + mt, vs + vt),
    "alpha = 0": lambda ms, vs, mt, vt, a: mix_reference(ms, vs, mt, vt, 0.25),
}


def episodic_reference(start, batches, adapt, score):
    return [score(adapt(dict(start), batch), batch) for batch in batches]


def episodic_with_deepcopy(start, batches, adapt, score):
    out = []
    for batch in batches:
        state = adapt(copy.deepcopy(start), batch)
        out.append(tuple(score(state, batch)))
    return out


def online(start, batches, adapt, score):
    state, out = dict(start), []
    for batch in batches:
        state = adapt(state, batch)
        out.append(score(state, batch))
    return out


def late(start, batches, adapt, score):
    state, out = dict(start), []
    for batch in batches:
        out.append(score(state, batch))
        state = adapt(state, batch)
    return out


def all_first(start, batches, adapt, score):
    state = dict(start)
    for batch in batches:
        state = adapt(state, batch)
    return [score(state, batch) for batch in batches]


def restores_values(start, batches, adapt, score):
    out = []
    for batch in batches:
        kept = dict(start)
        out.append(score(adapt(start, batch), batch))
        for key in kept:
            start[key] = kept[key]
    start["shift"] = 99.0
    return out


EX08_WRONG = {
    "leaks from one batch": online,
    "batches 1 and 3 are equal": all_first,
    "before adapting": lambda start, batches, adapt, score: [score(dict(start), batch) for batch in batches],
    "the batch before it": late,
    "`start` was changed": restores_values,
    "should be": lambda start, batches, adapt, score: [[0.0] * len(batch) for batch in batches],
}

CASES = [
    (
        check.ex05_1,
        [mix_reference, mix_by_second_moments, lambda *a: tuple(blend(Moments(*a[:2]), Moments(*a[2:4]), a[4]))],
        EX05_WRONG,
    ),
    (check.ex08_1, [episodic_reference, episodic_with_deepcopy], EX08_WRONG),
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
def test_a_stub_is_not_attempted_and_nothing_raises(checker):
    assert checker(lambda *a: ...).status == "not attempted"
    assert checker(lambda *a: None).status == "not attempted"
    broken = checker(lambda *a: torch.zeros(2) @ torch.zeros(3))
    assert broken.status == "not yet" and "RuntimeError" in broken.message
