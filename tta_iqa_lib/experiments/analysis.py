"""Reading results: means, differences with intervals by content, tables. Every number of the book comes from here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..datasets.tinyshift import TARGETS
from ..metrics import Interval, resamples
from ..store import atomic_write, data_folder
from .methods import METHODS


def write_results(results: dict, path: Path) -> None:
    """One run a line, so that a difference between two files can be read; and no blanks, which were a tenth of it."""
    tight = json.JSONEncoder(separators=(",", ":")).encode
    lines = [tight(run) for run in results["runs"]]
    head = {key: value for key, value in results.items() if key != "runs"}
    text = tight(head)[:-1] + ',"runs":[\n' + ",\n".join(lines) + "\n]}\n"
    with atomic_write(path) as partial:
        partial.write_text(text)


def read_results(name: str = "headline") -> dict:
    """The stored results of a grid (data/results/NAME.json).

    Raises:
        FileNotFoundError: they have not been computed; says how.
    """
    path = data_folder() / "results" / f"{name}.json"
    if not path.is_file():
        commands = {
            "opinions": "opinions PACK",
            "bench": "bench",
            "order": "order-study NAME=PATH …",
            "endurance": "endurance",
        }
        command = commands.get(name.split("-")[0], f"experiment {name}")
        raise FileNotFoundError(f"no results at '{path}'; `tta-iqa {command}` computes them")
    return json.loads(path.read_text())


def select(results: dict, **where) -> list[dict]:
    """Runs whose fields equal the given ones: `select(results, method="rank", batch_size=32)`."""
    return [run for run in results["runs"] if all(run[key] == value for key, value in where.items())]


def mean_srcc(results: dict, method: str, target: str, batch_size: int) -> float:
    """SRCC of a method on a target, averaged over seeds."""
    return float(np.mean([run["srcc"] for run in select(results, method=method, target=target, batch_size=batch_size)]))


def headline_targets(results: dict) -> list[str]:
    """The targets of the headline mean: reported, shifted, and readable by the source (SRCC ≥ .2, mean over seeds).

    Raises:
        ValueError: the source model is not among the methods.
    """
    if "source" not in results["about"]["grid"]["methods"]:
        raise ValueError("which targets count depends on the source model, and these results do not hold it")
    size = results["about"]["grid"]["batch_sizes"][0]
    return [
        name
        for name, target in TARGETS.items()
        if name in results["about"]["grid"]["targets"]
        and target.role == "reported"
        and target.shifted
        and mean_srcc(results, "source", name, size) >= 0.2
    ]


class Bootstrap:
    """SRCC of every run under resampled contents, computed once a run and shared by all comparisons.

    Contents are drawn with replacement, the same for every target, seed and method of a draw, as all targets show the same
    contents: differences are paired.

    Args:
        results: of a grid that keeps scores.
        count: draws. seed: of the draws.
    """

    def __init__(self, results: dict, count: int = 500, seed: int = 0):
        self.results, self.count, self.seed = results, count, seed
        self._runs: dict[tuple, list[dict]] = {}
        for run in results["runs"]:
            self._runs.setdefault((run["method"], run["target"], run["batch_size"]), []).append(run)
        self._draws: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._values: dict[tuple, np.ndarray] = {}

    def _draws_of(self, target: str) -> tuple[np.ndarray, np.ndarray]:
        """How often each image counts, once on the whole and then in each draw, and the ranks of their quality there."""
        if target not in self._draws:
            truth = self.results["truth"][target]
            quality, content = np.array(truth["quality"]), truth["content"]
            n = len(content)
            drawn = [np.arange(n), *resamples(n, content, self.count, self.seed)]
            times = np.array([np.bincount(rows, minlength=n) for rows in drawn], float)
            self._draws[target] = times, _standardised_ranks(quality, times)
        return self._draws[target]

    def values(self, run: dict) -> np.ndarray:
        """SRCC (as `metrics.srcc`) of a run on all its images, then on each draw: (1 + count,). Quality's ranks are shared."""
        key = run["method"], run["target"], run["seed"], run["batch_size"]
        if key not in self._values:
            times, truth = self._draws_of(run["target"])
            self._values[key] = (times * _standardised_ranks(np.array(run["scores"]), times) * truth).sum(1)
        return self._values[key]

    def mean(self, method: str, targets: Iterable[str], batch_size: int) -> np.ndarray:
        """Mean over targets and seeds, on all images and on each draw: (1 + count,)."""
        runs = [run for target in targets for run in self._runs[method, target, batch_size]]
        return np.mean([self.values(run) for run in runs], 0)

    def _change(self, method: str, minus: str, targets: Iterable[str], batch_size: int) -> np.ndarray:
        """Mean difference, on all images and on each draw: (1 + count,)."""
        targets = list(targets)
        return self.mean(method, targets, batch_size) - self.mean(minus, targets, batch_size)

    def difference(self, method: str, minus: str, targets: Iterable[str], batch_size: int) -> Interval:
        """Mean difference in SRCC over targets and seeds, with its 95 % interval."""
        change = self._change(method, minus, targets, batch_size)
        low, high = np.quantile(change[1:], [0.025, 0.975])
        return Interval(float(change[0]), float(low), float(high))

    def p_value(self, method: str, minus: str, targets: Iterable[str], batch_size: int) -> float:
        """Two-sided p-value against "no difference": twice the share of the draws on the rarer side of zero."""
        change = self._change(method, minus, targets, batch_size)[1:]
        rarer = min((change <= 0).sum(), (change >= 0).sum())
        return float(min(1.0, 2 * (1 + rarer) / (1 + self.count)))

    def worse_by(self, method: str, minus: str, targets: Iterable[str], batch_size: int, margin: float) -> float:
        """One-sided p-value against "method is at most `margin` worse": share of the draws that agree with that."""
        change = self._change(method, minus, targets, batch_size)
        agree = change[1:] >= -margin - 1e-9  # a tie agrees, whatever the rounding
        return float((1 + agree.sum()) / (1 + self.count))


def _standardised_ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ranks of N values in each of several draws, with mean 0 and length 1; NaN where all drawn are equal, or any is NaN.

    Args:
        values: (N,). times: (draws, N), how often each was drawn. Its rank is the number of those below it, and half of
            those equal to it: a product of matrices instead of a sort for each draw.
    """
    below = (values < values[:, None]) + 0.5 * (values == values[:, None])
    ranks = times @ below.T
    ranks -= (times * ranks).sum(1, keepdims=True) / times.sum(1, keepdims=True)
    length = np.sqrt((times * ranks**2).sum(1, keepdims=True))
    known = (length > 0) & np.isfinite(values).all()
    return np.where(known, ranks / np.where(known, length, 1), np.nan)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for having looked at all of them: Holm's step-down rule."""
    order, corrected, largest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def difference(
    results: dict, method: str, control: str, targets: Iterable[str], batch_size: int, count: int = 500, seed: int = 0
) -> Interval:
    """Mean difference in SRCC, method − control, over targets and seeds, with a 95 % interval by content (`Bootstrap`)."""
    return Bootstrap(results, count, seed).difference(method, control, targets, batch_size)


WORSE = 0.01  # a loss in SRCC that a gate must not let through


def summarise(results: dict, against: Sequence[str] = ("source",)) -> list[dict]:
    """Every method against its control and against some others: on each target, and on the mean over headline targets.

    Returns:
        [{"method", "minus", "batch_size", "targets", "value", "low", "high", "p_worse"}]; "p_worse" is the p-value of "more than
        .01 worse" (`Bootstrap.worse_by`), not corrected for the number of lines.
    """
    grid = results["about"]["grid"]
    groups = {target: [target] for target in grid["targets"]}
    headline = headline_targets(results)
    if headline:  # a grid of unshifted targets has none
        groups = {"headline": headline} | groups
    bootstrap, summary = Bootstrap(results), []
    for method in tqdm(grid["methods"], desc="intervals"):
        for other in dict.fromkeys((*against, METHODS[method].control)):
            if other in (None, method) or other not in grid["methods"]:
                continue
            for size in grid["batch_sizes"]:
                for name, targets in groups.items():
                    interval = bootstrap.difference(method, other, targets, size)
                    numbers = {key: round(value, 4) for key, value in asdict(interval).items()}
                    numbers["p_worse"] = round(bootstrap.worse_by(method, other, targets, size, WORSE), 4)
                    summary.append({"method": method, "minus": other, "batch_size": size, "targets": name, **numbers})
    return summary


def stored_difference(
    results: dict, method: str, minus: str, targets: str = "headline", batch_size: int = 32
) -> Interval:
    """A line of `summarise` out of a results file, as an `Interval`."""
    where = {"method": method, "minus": minus, "targets": targets, "batch_size": batch_size}
    for line in results["summary"]:
        if all(line[key] == value for key, value in where.items()):
            return Interval(line["value"], line["low"], line["high"])
    raise KeyError(f"the results hold no difference {where}")


def table(results: dict, batch_size: int, methods: Sequence[str] | None = None) -> str:
    """SRCC, mean over seeds, as plain text: one row a target, one column a method."""
    methods = methods or results["about"]["grid"]["methods"]
    targets = results["about"]["grid"]["targets"]
    width = max(len(t) for t in targets) + 2
    columns = [METHODS[m].label for m in methods]
    lines = ["".ljust(width) + "  ".join(columns)]
    for target in targets:
        cells = [
            f"{mean_srcc(results, m, target, batch_size):.2f}".rjust(len(c))
            for m, c in zip(methods, columns, strict=True)
        ]
        lines.append(target.ljust(width) + "  ".join(cells))
    return "\n".join(lines)
