"""Checkers for the exercises: `check.ex05_1(your_function)` says *not attempted*, *passed*, or why it fails.

A checker runs the reader's function on fresh inputs and compares with values worked out another way. It never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
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


def _near(a, b, tolerance: float = 1e-4) -> bool:
    return bool(np.shape(a) == np.shape(b) and np.abs(np.asarray(a) - np.asarray(b)).max() <= tolerance)


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

    @staticmethod
    @_checker("ex09_1")
    def ex09_1(interval):
        """`interval(draws_a, draws_b) -> (low, high)`: the 95 % interval of a paired difference."""
        generator = np.random.default_rng(91)
        common = generator.normal(0, 0.1, 400)  # what is hard for one method is hard for the other
        a = 0.7 + common + generator.normal(0, 0.01, 400)
        b = 0.68 + common + generator.normal(0, 0.01, 400)
        low, high = (float(v) for v in interval(a.copy(), b.copy()))
        expected = np.quantile(a - b, [0.025, 0.975])
        ends = [np.quantile(x, [0.025, 0.975]) for x in (a, b)]
        if _near((low, high), -expected[::-1]):
            raise Wrong("this is B minus A; the difference asked for is A minus B")
        if _near((low, high), ends[0] - ends[1]) or _near(
            (low, high), (ends[0][0] - ends[1][1], ends[0][1] - ends[1][0])
        ):
            raise Wrong("these are two intervals subtracted; what both methods share does not cancel that way")
        if low > high:
            raise Wrong("the lower end comes first")
        if _near((low, high), np.quantile(np.sort(a) - np.sort(b), [0.025, 0.975])):
            raise Wrong("the draws were sorted before they were paired: draw i of A belongs to draw i of B")
        if _near((low, high), np.quantile(a - b, [0.05, 0.95])):
            raise Wrong("this is a 90 % interval: 95 % leaves 2.5 % at each end")
        half = 1.96 * (a - b).std() / np.sqrt(len(a))
        if _near((low, high), ((a - b).mean() - half, (a - b).mean() + half), 2e-3):
            raise Wrong("this interval shrinks with the number of draws; more draws do not make more images")
        if not _near((low, high), expected, 2e-3):
            raise Wrong("take the difference draw by draw, then its 2.5 % and 97.5 % quantiles")

    @staticmethod
    @_checker("ex09_2")
    def ex09_2(share):
        """`share(image_means, source_mean, source_var) -> α`: the positive-part rule of James and Stein."""
        generator = torch.Generator().manual_seed(92)
        source_mean, source_var = torch.zeros(6), torch.linspace(0.5, 3, 6)
        means = 0.6 + torch.randn(12, 6, generator=generator) * source_var.sqrt()
        answer = float(share(means, source_mean, source_var))
        distance = (means.mean(0) - source_mean) ** 2 / source_var
        spread = means.var(0) / source_var
        expected = float((1 - spread.mean() / 12 / distance.mean()).clamp(0, 1))
        if _near(answer, 1 - expected):
            raise Wrong("this is the share of the source; α is that of the batch")
        if _near(answer, float((1 - spread.mean() / distance.mean()).clamp(0, 1))):
            raise Wrong(
                "this is the spread of single images; the mean of B images is B times more certain, as a variance"
            )
        if _near(answer, float((1 - spread / 12 / distance).clamp(0, 1).mean())):
            raise Wrong("average over the channels first, then divide: single channels are too noisy")
        unscaled = (means.mean(0) - source_mean) ** 2
        if _near(answer, float((1 - means.var(0).mean() / 12 / unscaled.mean()).clamp(0, 1))):
            raise Wrong("measure both in units of the source's variance: else loud channels decide alone")
        if not _near(answer, expected, 0.01):
            raise Wrong(f"for 12 images of 6 channels α should be {expected:.3f}; yours is {answer:.3f}")
        if float(share(means - means.mean(0), source_mean, source_var)) != 0:
            raise Wrong("with no displacement at all α must be 0, not negative and not NaN")
        alone = float(share(means[:1], source_mean, source_var))
        if alone != 0:
            raise Wrong(f"a single image tells nothing about its own error: α must be 0; yours is {alone}")

    @staticmethod
    @_checker("ex10_1")
    def ex10_1(calibrate):
        """`calibrate(ratios, false_alarms) -> threshold`: as many unshifted batches at or above it as are tolerated."""
        generator = np.random.default_rng(101)
        ratios = generator.gamma(1.5, 1.0, 2000)
        answer = float(calibrate(ratios.copy(), 0.05))
        alarms = float((ratios >= answer).mean())
        if abs(alarms - 0.95) < 0.01:
            raise Wrong("95 % of the unshifted batches would be adapted: the threshold is at the wrong end")
        if _near(answer, ratios.mean() + 1.645 * ratios.std(), 1e-3):
            raise Wrong("these ratios are not Gaussian; use their own distribution")
        if answer >= ratios.max():
            raise Wrong("no alarm at all: that also misses shifts; the tolerated share is yours to use")
        if not 0.04 <= alarms <= 0.06:
            raise Wrong(f"{alarms:.1%} of the unshifted batches lie at or above your threshold; 5 % were asked for")
        stricter = float(calibrate(ratios.copy(), 0.01))
        if not 0.005 <= float((ratios >= stricter).mean()) <= 0.015:
            raise Wrong("right for 5 %, not for 1 %: use the second argument")

    @staticmethod
    @_checker("ex10_2")
    def ex10_2(correct):
        """`correct(p_values) -> corrected`: Holm's step-down rule, in the order of the input."""
        cases = [[0.01, 0.04, 0.03, 0.005], [0.2, 0.001], [0.02, 0.02, 0.02], [0.6, 0.9]]
        expected = [[0.03, 0.06, 0.06, 0.02], [0.2, 0.002], [0.06, 0.06, 0.06], [1.0, 1.0]]
        for p_values, right in zip(cases, expected, strict=True):
            answer = [float(v) for v in correct(list(p_values))]
            if _near(answer, right, 1e-9):
                continue
            count = len(p_values)
            if len(answer) == count and _near(answer, [min(1, p * count) for p in p_values], 1e-9):
                raise Wrong("this is Bonferroni's rule: valid, but Holm's asks less of all but the smallest p-value")
            if len(answer) == count and _near(sorted(answer), sorted(right), 1e-9):
                raise Wrong("the values are right, their order is not: answer in the order of the input")
            if any(v > 1 for v in answer):
                raise Wrong("a corrected p-value is at most 1")
            raise Wrong(
                f"for {p_values} the answer is {right}; yours is {answer}. A larger p-value never gets a smaller answer"
            )


check = Check()
