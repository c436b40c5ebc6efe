"""A part of a plan, scored by whoever has the time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ..imaging import files as picture_files
from .parts import open_batches, part_journal
from .plans import Plan, PlanError
from .results import Row
from .scoring import score_batches


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


def run_shard(
    plan: Plan, index: int, count: int = 1, device: str | None = None, readers: int = 0
) -> Iterator[tuple[int, list[Row]]]:
    """`score_shard`, but for what is done already; each batch is kept in the plan's folder of parts.

    Raises:
        PlanError: as `score_shard`, `parts.journals`.
        OSError: it cannot be kept.
    """
    numbers = open_batches(plan, _numbers(plan, index, count))
    journal = part_journal(plan, f"{index}-of-{count}")
    if numbers:
        for number, rows in Worker(plan, device, readers).score(numbers):
            journal.add(number, rows)
            yield number, rows
