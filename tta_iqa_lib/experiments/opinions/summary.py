"""Reading a study of opinions: cells of three sources each, differences with intervals by content, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from ..analysis import Bootstrap, holm

PAIRS = "pairs"  # the three sources of two subsets each, taken together


def cells(results: dict) -> dict[str, list[str]]:
    """Targets by cell. What is one cell for "live", three trainings of one source, is for the pairs the mean of three sources."""
    found: dict[str, list[str]] = {}
    for target in results["truth"]:
        source, rest = target.split(" → ")
        if source != "live":
            third = rest.removeprefix(source.removeprefix("no-"))
            rest, source = ("the third" + third if third != rest else rest), PAIRS
        found.setdefault(f"{source} → {rest}", []).append(target)
    return found


WORDS = {
    "live": "phones",
    PAIRS: "two parts of BIQ2021",
    "held out": "new ones of the same kind",
    "the third": "its third part",
    "ss01": "personal pictures",
    "ss02": "faults made on purpose",
    "ss03": "a site for photographers",
    "agiqa": "generated pictures",
}


def in_words(cell: str) -> str:
    """The name of a cell for a reader: "live → agiqa, haze" is "phones → generated pictures, haze"."""
    pictures, condition = cell.split(", ")
    light = "" if condition == "as it is" else f", {condition}"
    return " → ".join(WORDS[name] for name in pictures.split(" → ")) + light


def groups(results: dict, role: str = "test") -> dict[str, list[str]]:
    """All targets of a role by kind: "database", "light", "none"; and "shifted", the first two together."""
    found: dict[str, list[str]] = {"shifted": []}
    for target, about in results["truth"].items():
        if about["role"] == role:
            found.setdefault(about["kind"], []).append(target)
            if about["kind"] != "none":
                found["shifted"].append(target)
    return {name: targets for name, targets in found.items() if targets}


class Differences:
    """Mean differences in SRCC over targets; a target with several sources counts once. Draws are paired; see `Bootstrap`."""

    def __init__(self, results: dict, count: int = 1000):
        self.bootstrap, self.results = Bootstrap(results, count), results
        self.has = {(run["method"], run["target"], run["batch_size"]) for run in results["runs"]}

    def draws(self, method: str, minus: str, targets: Sequence[str], batch_size: int) -> np.ndarray:
        """On all images, then on each draw: (1 + count,)."""
        sizes = {m: 32 if (m, targets[0], batch_size) not in self.has else batch_size for m in (method, minus)}
        changes = [
            self.bootstrap.mean(method, [target], sizes[method]) - self.bootstrap.mean(minus, [target], sizes[minus])
            for target in targets
        ]
        return np.mean(changes, 0)

    def line(self, method: str, minus: str, targets: Sequence[str], batch_size: int) -> dict[str, float]:
        """Value, 95 % interval, two-sided p-value against "no difference"."""
        found = self.draws(method, minus, targets, batch_size)
        low, high = np.quantile(found[1:], [0.025, 0.975])
        rarer = min((found[1:] <= 0).sum(), (found[1:] >= 0).sum())
        p = min(1.0, 2 * (1 + rarer) / len(found))
        numbers = {"value": found[0], "low": low, "high": high, "p": p}
        return {name: round(float(number), 4) for name, number in numbers.items()}


def summarise(results: dict, progress: bool = True) -> list[dict]:
    """Every method against the source and against its control, on each cell and each group of both roles.

    A method that was run on some of the test targets alone, as a time limit may leave it, has one line for those.

    Returns:
        [{"method", "minus", "batch_size", "on", "value", "low", "high", "p"}]; where "on" names a group, "holm" is the p-value
        corrected for all methods, sizes and groups of test targets against the same kind of opponent.
    """
    differences, lines = Differences(results), []
    where: dict[str, list[str]] = dict(cells(results))
    for role in ("test", "development"):
        where |= {f"{role}: {kind}": targets for kind, targets in groups(results, role).items()}
    about = results["about"]["methods"]
    for method in tqdm(about, desc="intervals", disable=not progress):
        for minus in dict.fromkeys(("source", about[method]["control"])):
            if minus in (None, method):
                continue
            for size in (32, 8):
                for name, targets in where.items():
                    known = [target for target in targets if (method, target, size) in differences.has]
                    if len(known) != len(targets):
                        continue
                    numbers = differences.line(method, minus, targets, size)
                    lines.append({"method": method, "minus": minus, "batch_size": size, "on": name, **numbers})
                every = [target for target, of in results["truth"].items() if of["role"] == "test"]
                some = [target for target in every if (method, target, size) in differences.has]
                if 0 < len(some) < len(every):
                    numbers = differences.line(method, minus, some, size)
                    name = f"{len(some)} of {len(every)} test targets"
                    lines.append({"method": method, "minus": minus, "batch_size": size, "on": name, **numbers})
    for source in (True, False):
        family = [line for line in lines if line["on"].startswith("test: ") and (line["minus"] == "source") == source]
        for line, p in zip(family, holm([line["p"] for line in family]), strict=True):
            line["holm"] = round(p, 4)
    return lines


def text_table(results: dict, batch_size: int = 32) -> str:
    """SRCC of the source on each cell, and the change by each method, as plain text: one row a method."""
    found = cells(results)
    boot = Bootstrap(results, 1)
    width = max(len(name) for name in results["about"]["methods"]) + 2
    lines = [f"{'':{width}}" + " ".join(f"{name[-14:]:>14s}" for name in found)]
    has = {(run["method"], run["target"], run["batch_size"]) for run in results["runs"]}
    for method in results["about"]["methods"]:
        row = []
        for targets in found.values():
            if any((method, target, batch_size) not in has for target in targets):
                row.append(f"{'–':>14s}")
                continue
            mean = boot.mean(method, targets, batch_size)[0]
            sign = "" if method == "source" else "+"
            row.append(f"{mean - (boot.mean('source', targets, batch_size)[0] if sign else 0):>{sign}14.3f}")
        if set(row) != {f"{'–':>14s}"}:
            lines.append(f"{method:{width}}" + " ".join(row))
    return "\n".join(lines)
