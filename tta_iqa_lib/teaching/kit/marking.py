"""From a test to points: what a hidden test of an assignment says, and how it says it (all chapters).

The same cell works under nbgrader: `mark` gives a number, which nbgrader reads as the points of the cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..course.checker import Wrong
from .sandbox import Stopped, StudentError

NOT_ATTEMPTED = "not attempted"


class Partly(Wrong):
    """Wrong, but part of it is right: raise it in a test with the share of the points that is earned, in (0, 1)."""

    def __init__(self, share: float, message: str, value: float | None = None):
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1; got {share}")
        super().__init__(message, value)
        self.share = share


@dataclass(frozen=True)
class Mark:
    """Points of one item. `status`: "passed", "partly", "not yet" or "not attempted"; `message`: for the student.

    `value`: what the test measured, if it did; a leaderboard is made of such numbers.
    It prints as a number: as such nbgrader reads the points from a cell's output.
    """

    points: float
    of: float
    status: str
    message: str = ""
    value: float | None = None

    def __repr__(self) -> str:
        return f"{self.points:g}"


def mark(test: Callable, *functions: Callable, points: float) -> Mark:
    """Run a test on a student's functions. Never raises.

    Args:
        test: takes the functions; raises `Wrong` or `Partly`, with a sentence for the student, where they are not right, and
            returns None or a number that it measured. Its sentences must not give the test's numbers away.
        functions: the student's.
        points: for all of it.
    """
    try:
        value = test(*(_attempted(function) for function in functions))
    except NotImplementedError:
        return Mark(0, points, NOT_ATTEMPTED, "fill in the function")
    except Partly as wrong:
        return Mark(round(wrong.share * points, 2), points, "partly", str(wrong), wrong.value)
    except Wrong as wrong:
        return Mark(0, points, "not yet", str(wrong), wrong.value)
    except (StudentError, Stopped) as error:
        return Mark(0, points, "not yet", what_happened(error))
    except Exception as error:  # where the function is called directly, or its answer is of no use to the test
        return Mark(
            0,
            points,
            "not yet",
            f"the function or its answer does not fit ({type(error).__name__}): is it of the shape that is asked for?",
        )
    return Mark(points, points, "passed", value=value)


def _attempted(function: Callable) -> Callable:
    def call(*arguments, **keywords):
        value = function(*arguments, **keywords)
        if value is None or value is Ellipsis:
            raise NotImplementedError
        return value

    return call


def what_happened(error: StudentError | Stopped) -> str:
    """In words for the student."""
    if isinstance(error, Stopped):
        return f"the function gave no answer: {error}"
    if error.kind == "NotImplementedError":
        return "a part of the function still raises NotImplementedError"
    if error.kind == "unreadable":
        return f"it returns an object ({error.line}); tensors, arrays, numbers and lists of them can be read"
    if error.kind == "MemoryError":
        return "it asked for more memory than there is" + (f", in the line `{error.line}`" if error.line else "")
    if error.kind == "SystemExit":
        return "it calls exit(), which ends the program: return the answer instead"
    return f"it stopped with {error.kind}" + (f" in the line `{error.line}`" if error.line else "")
