"""Each checker accepts right answers of different make, and refuses typical wrong ones with a reason of its own.

The answers stand in `course/chapterNN.py`: `CASES[exercise] = (right answers, {part of the reason: wrong answer})`.
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from tta_iqa_lib.teaching.course import check

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "course"))
CASES = {}
for path in sorted((HERE / "course").glob("chapter*.py")):
    CASES |= import_module(path.stem).CASES


def test_every_exercise_is_tried_with_right_and_wrong_answers():
    """At least two right ones of different make and three misconceptions each."""
    assert set(CASES) == set(vars(check))
    few = {e: (len(r), len(w)) for e, (r, w) in CASES.items() if len(r) < 2 or len(w) < 3}
    assert few == {}


@pytest.mark.parametrize(("exercise", "right"), [(e, r) for e, (rights, _) in CASES.items() for r in rights])
def test_right_answers_of_different_make_pass(exercise, right):
    verdict = getattr(check, exercise)(right)
    assert verdict.status == "passed", verdict


@pytest.mark.parametrize(
    ("exercise", "reason", "answer"), [(e, k, f) for e, (_, wrong) in CASES.items() for k, f in wrong.items()]
)
def test_each_misconception_gets_its_own_reason(exercise, reason, answer):
    verdict = getattr(check, exercise)(answer)
    assert verdict.status == "not yet" and reason in verdict.message, verdict


@pytest.mark.parametrize("exercise", sorted(CASES))
def test_a_stub_is_not_attempted_and_nothing_raises(exercise):
    checker = getattr(check, exercise)
    assert checker(lambda *a: ...).status == "not attempted"
    assert checker(lambda *a: None).status == "not attempted"
    broken = checker(lambda *a: torch.zeros(2) @ torch.zeros(3))
    assert broken.status == "not yet" and "RuntimeError" in broken.message


@pytest.mark.parametrize("exercise", sorted(CASES))
def test_a_checker_leaves_the_reader_s_random_numbers_alone(exercise):
    """Chapter 2 teaches that the global state belongs to the caller; a checker that seeds it would break its own rule."""
    np.random.seed(77)  # no seed that a checker or an answer uses
    torch.manual_seed(77)
    numpy_state, torch_state = np.random.get_state(), torch.random.get_rng_state()
    getattr(check, exercise)(CASES[exercise][0][0])
    after = np.random.get_state()
    assert (numpy_state[1] == after[1]).all() and numpy_state[2] == after[2]
    assert torch.equal(torch_state, torch.random.get_rng_state())


def test_an_unknown_exercise_is_named():
    with pytest.raises(AttributeError, match=r"no exercise 'ex99_1'.*ex05_1"):
        check.ex99_1  # noqa: B018
