"""What has been done of a plan: kept in journals, one a worker, and merged into one table. Needs no model, and no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

from .journals import Journal
from .plans import Plan, PlanError
from .results import Results


def journals(plan: Plan) -> list[Journal]:
    """What has been done of a plan, by whomever.

    Raises:
        PlanError: a journal of another plan stands among them.
    """
    found = [Journal(path, plan.key) for path in sorted(plan.parts.glob("*.jsonl"))]
    for journal in found:
        if journal.stale and journal.path.stat().st_size:
            raise PlanError(f"'{journal.path}' is not of the plan '{plan.path}': move or delete the folder")
    return found


def open_batches(plan: Plan, numbers: Iterable[int]) -> list[int]:
    """Those that nobody has done yet."""
    done = {number for journal in journals(plan) for number in journal.done}
    return [number for number in numbers if number not in done]


def part_journal(plan: Plan, name: str) -> Journal:
    """Where one worker keeps what it has done; no two may have the same name at a time."""
    plan.parts.mkdir(exist_ok=True)
    return Journal(plan.parts / f"{name}.jsonl", plan.key)


def merge(plan: Plan) -> Results:
    """All rows of a plan.

    Raises:
        PlanError: as `journals`; batches that are not done yet; or one that came out in two ways.
    """
    done: dict[int, Journal] = {}
    for journal in journals(plan):
        for number in journal.done:
            first = done.setdefault(number, journal)
            if first is not journal and first.cells(number) != journal.cells(number):
                raise PlanError(
                    f"batch {number} came out in two ways, in '{first.path}' and '{journal.path}': delete one"
                )
    missing = [number for number in range(plan.batches) if number not in done]
    if missing:
        raise PlanError(f"{len(missing)} of {plan.batches} batches are not done yet, first number {missing[0]}")
    results = Results(plan.images)
    for number in range(plan.batches):
        places, names = zip(*plan.batch(number), strict=True)
        results.add(places, done[number].rows(number, names))
    return results
