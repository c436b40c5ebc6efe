"""Parts of a plan: scored by whoever has the time, kept in journals, merged into one table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ..imaging import files as picture_files
from .journals import Journal
from .plans import Plan, PlanError
from .results import Results
from .scoring import Row, score_batches


class Worker:
    """The plan's model, held in memory, for any of its batches.

    Args:
        device: None: the plan's. Of the same kind, as another kind rounds otherwise.
        readers: threads that read pictures ahead of the model.

    Raises:
        PlanError: model, method, library or PyTorch are not those of the plan.
    """

    def __init__(self, plan: Plan, device: str | None = None, readers: int = 0):
        self.plan, self.readers = plan, readers
        if str(plan.folder) not in sys.path:
            sys.path.append(str(plan.folder))  # where a model's package.module may stand
        settings = replace(plan.settings, device=device or plan.device)
        self.scorer = settings.scorer()
        if settings.identity(self.scorer) != plan.identity:
            raise PlanError(
                f"this is not what the plan '{plan.path}' was made with: another model, method, kind of device, version of "
                "this library or of PyTorch"
            )

    def score(self, numbers: Iterable[int]) -> Iterator[tuple[int, list[Row]]]:
        """Number and rows of each batch, in turn.

        Raises:
            PlanError: an image has changed.
        """
        numbers = list(numbers)
        picture_files.MAX_PIXELS = self.plan.max_pixels
        with _threads(self.plan.settings.threads):
            scored = score_batches(self.scorer, map(self.plan.unchanged, numbers), self.readers)
            for number, rows in zip(numbers, scored, strict=True):
                names = [path for _, path in self.plan.batch(number)]
                yield number, [_spelt(row, name) for row, name in zip(rows, names, strict=True)]


def _spelt(row: Row, name: Path) -> Row:
    return replace(row, path=name, error=row.error.replace(f"'{row.path}'", f"'{name}'"))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def score_shard(plan: Plan, index: int, count: int = 1, readers: int = 0) -> Iterator[tuple[int, list[Row]]]:
    """Every `count`-th batch of a plan from number `index` on: its number and its rows.

    What it gives depends on the plan alone: not on who else works at it, nor when.

    Raises:
        PlanError: as `Worker`; or no such part.
    """
    return Worker(plan, readers=readers).score(_numbers(plan, index, count))


def _numbers(plan: Plan, index: int, count: int) -> range:
    if not 0 <= index < count:
        raise PlanError(f"there is no part {index} of {count}: parts are counted from 0")
    return range(index, plan.batches, count)


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


def run_shard(
    plan: Plan, index: int, count: int = 1, device: str | None = None, readers: int = 0
) -> Iterator[tuple[int, list[Row]]]:
    """`score_shard`, but for what is done already; each batch is kept in the plan's folder of parts.

    Raises:
        PlanError: as `score_shard`, `journals`.
        OSError: it cannot be kept.
    """
    numbers = open_batches(plan, _numbers(plan, index, count))
    journal = part_journal(plan, f"{index}-of-{count}")
    if numbers:
        for number, rows in Worker(plan, device, readers).score(numbers):
            journal.add(number, rows)
            yield number, rows


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
