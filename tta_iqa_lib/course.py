"""Checkers for the exercises: `check.ex05_1(your_function)` says *not attempted*, *passed*, or why it fails.

A checker runs the reader's function on fresh inputs and compares with values worked out another way. It never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


class Wrong(Exception):
    """The reader's answer is not right; the message says what to think about."""


@dataclass(frozen=True)
class Verdict:
    """What a checker answers. `status`: "not attempted", "passed" or "not yet"."""

    exercise: str
    status: str
    message: str = ""

    def __repr__(self) -> str:
        sign = {"passed": "✓", "not attempted": "○"}.get(self.status, "✗")
        return f"{sign} {self.exercise}: {self.status}" + (f": {self.message}" if self.message else "")


def _checker(exercise: str) -> Callable:
    """Turn a function that raises `Wrong` into one that answers with a `Verdict`."""

    def decorate(test: Callable) -> Callable:
        def run(answer: Callable) -> Verdict:
            def call(*arguments):
                value = answer(*arguments)
                if value is None or value is Ellipsis:
                    raise NotImplementedError
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


def _close(a, b) -> bool:
    return torch.allclose(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), rtol=1e-4, atol=1e-6
    )


class Check:
    """The checkers, one method an exercise: `check.exNN_M(function)`."""

    @staticmethod
    @_checker("ex05_1")
    def ex05_1(mix):
        """`mix(mean_s, var_s, mean_t, var_t, alpha) -> (mean, var)`: the moments of the mixture, checked on real samples."""
        generator = torch.Generator().manual_seed(51)
        old = 1 + 0.5 * torch.randn(4, 3000, generator=generator, dtype=torch.float64)
        new = -2 + 2.0 * torch.randn(4, 1000, generator=generator, dtype=torch.float64)
        arguments = old.mean(1), old.var(1, correction=0), new.mean(1), new.var(1, correction=0)
        kept = [a.clone() for a in arguments]
        both = torch.cat([old, new], 1)  # α = 1/4: the mixture is simply both sets together
        mean, var = mix(*arguments, 0.25)
        if any(not torch.equal(a, b) for a, b in zip(arguments, kept, strict=True)):
            raise Wrong("your function changed its inputs; make new tensors instead of writing into old ones")
        if not _close(mean, both.mean(1)):
            if _close(mean, 0.25 * arguments[0] + 0.75 * arguments[2]):
                raise Wrong("the weights are swapped: alpha is the share of the test batch, not of the source")
            raise Wrong("the mean is not (1 − alpha)·mean_s + alpha·mean_t")
        expected = both.var(1, correction=0)
        if _close(var, 0.75 * arguments[1] + 0.25 * arguments[3]):
            raise Wrong("this is the linear blend of the variances; it misses the spread between the two means")
        if _close(torch.as_tensor(var) ** 2, expected):
            raise Wrong("this is the standard deviation; BatchNorm keeps the variance")
        if not _close(var, expected):
            raise Wrong(
                "the mean is right, the variance is not: work out E[x²] of the mixture first, then subtract the mean squared"
            )
        zero_mean, zero_var = mix(*arguments, 0.0)
        if not (_close(zero_mean, arguments[0]) and _close(zero_var, arguments[1])):
            raise Wrong("alpha = 0 must give the source's moments back")

    @staticmethod
    @_checker("ex08_1")
    def ex08_1(episodic):
        """`episodic(start, batches, adapt, score) -> [scores]`: every batch starts from the same state."""

        def adapt(state, batch):  # writes into the state it is given, as optimisers do
            state["shift"] = state["shift"] + sum(batch)
            return state

        def score(state, batch):
            return [x + state["shift"] for x in batch]

        batches = [[1.0, 2.0], [10.0], [1.0, 2.0]]
        expected = [[4.0, 5.0], [20.0], [4.0, 5.0]]
        start = {"shift": 0.0}
        scores = [list(s) for s in episodic(start, batches, adapt, score)]
        if scores == [list(b) for b in batches]:
            raise Wrong("these are the scores before adapting; adapt to a batch first, then score it")
        if scores == [[4.0, 5.0], [23.0], [17.0, 18.0]] or scores == [[17.0, 18.0], [26.0], [17.0, 18.0]]:
            raise Wrong("the state leaks from one batch into the next: batches 1 and 3 are equal, their scores are not")
        if scores == [[1.0, 2.0], [13.0], [14.0, 15.0]]:
            raise Wrong("each batch is scored with the state of the batch before it")
        if scores != expected:
            raise Wrong(f"for the batches {batches} the scores should be {expected}; yours are {scores}")
        if start != {"shift": 0.0}:
            raise Wrong(
                "the scores are right, but `start` was changed: `adapt` writes into what it gets, so give it a copy"
            )


check = Check()
