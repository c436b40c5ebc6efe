"""What a checker is: it runs the reader's function on fresh inputs and answers with a `Verdict`; it never raises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


class Wrong(Exception):
    """The reader's answer is not right; the message says what to think about. `value`: what was measured, if anything was."""

    def __init__(self, message: str, value: float | None = None):
        super().__init__(message)
        self.value = value


@dataclass(frozen=True)
class Verdict:
    """What a checker answers. `status`: "not attempted", "passed" or "not yet"."""

    exercise: str
    status: str
    message: str = ""

    def __repr__(self) -> str:
        sign = {"passed": "✓", "not attempted": "○"}.get(self.status, "✗")
        return f"{sign} {self.exercise}: {self.status}" + (f": {self.message}" if self.message else "")


def _unchanged(before, after) -> bool:
    """Are tensors, arrays, and lists and dictionaries of them the same, NaN for NaN? Anything else counts as unchanged."""
    if isinstance(before, (torch.Tensor, np.ndarray)):
        if before.shape != after.shape or getattr(before, "requires_grad", 0) != getattr(after, "requires_grad", 0):
            return False
        return bool(((before == after) | ((before != before) & (after != after))).all())
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_unchanged(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return not isinstance(before, (int, float, str)) or before == after


def checker(exercise: str, may_write: bool = False) -> Callable:
    """Turn a function that raises `Wrong` into one that answers with a `Verdict`.

    The reader's function must leave its arguments alone, unless it `may_write` into them; then the test looks after them.
    """

    def decorate(test: Callable) -> Callable:
        def run(answer: Callable) -> Verdict:
            answered = False

            def call(*arguments):
                nonlocal answered
                data = [a for a in arguments if isinstance(a, (torch.Tensor, np.ndarray, list, dict))]
                kept = [] if may_write else copy.deepcopy(data)
                value = answer(*arguments)
                if value is None or value is Ellipsis:
                    if answered:
                        raise Wrong("for one of the inputs your function returned nothing (None): it must answer each")
                    raise NotImplementedError
                answered = True
                if not all(map(_unchanged, kept, data)):
                    raise Wrong("your function changed its inputs; make new ones instead of writing into the old ones")
                return value

            try:
                test(call)
            except NotImplementedError:
                return Verdict(exercise, "not attempted", "fill in the function, then run this cell again")
            except Wrong as wrong:
                return Verdict(exercise, "not yet", str(wrong))
            except Exception as error:
                return Verdict(exercise, "not yet", f"your function stopped with {type(error).__name__}: {error}")
            return Verdict(exercise, "passed")

        run.__doc__, run.__name__ = test.__doc__, test.__name__
        return run

    return decorate


def close(a, b) -> bool:
    return torch.allclose(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), rtol=1e-4, atol=1e-6
    )


def near(a, b, tolerance: float = 1e-4) -> bool:
    return bool(np.shape(a) == np.shape(b) and np.abs(np.asarray(a) - np.asarray(b)).max() <= tolerance)


def in_either_precision(answer: Callable, *tensors: torch.Tensor):
    """The answer for float32 tensors, as in the chapters; for float64 where the reader's own constants are of that kind."""
    try:
        return answer(*tensors)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        return answer(*(t.double() for t in tensors))


def yes_or_no(answer) -> bool:
    """A verdict as a bool; NumPy's and PyTorch's count as well.

    Raises:
        Wrong: it is neither True nor False.
    """
    kind = getattr(answer, "dtype", type(answer))
    if kind not in (bool, torch.bool, np.bool_) or torch.as_tensor(answer).numel() != 1:
        raise Wrong(f"the verdict is True or False; got {answer!r}")
    return bool(answer)
