"""Scoring files on disk: any images, at their native resolution, in crops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import torch

from ..adaptation.batches import balanced_batches
from ..adaptation.screens import Blank
from ..imaging.files import ImageError, read_crops
from ..models import ScoringModel
from .results import BLANK, Row
from .scorers import DEFAULT_METHOD, Scorer

A = TypeVar("A")
B = TypeVar("B")


def score_files(
    model: ScoringModel,
    files: Sequence[Path],
    adapt: bool | str = False,
    batch_size: int = 32,
    crops: int = 4,
    seed: int = 0,
    workers: int = 0,
) -> Iterator[list[Row]]:
    """Score files batch by batch, a few batches in memory. Yields the rows of each batch, unreadable files among them.

    A picture whose crops all show nothing (`Blank`) takes no part in its batch, and has the source's score.

    Args:
        adapt: True: with the default `Adapter`, to the crops of each batch; or the name of a method, see `Scorer`.
        batch_size: pictures that are adapted to together; drawn in a seeded shuffle where a score depends on its batch.
        crops: a square number; an image's score is the mean over its crops and the model's symmetric views.
        workers: threads that read pictures ahead of the model; 0: in turn with it. The scores are the same.
    """
    scorer = Scorer(model, _method(adapt), crops, seed)
    batches = cut_batches(len(files), batch_size, scorer, seed)
    yield from score_batches(scorer, ([files[i] for i in batch] for batch in batches), workers)


def cut_batches(count: int, batch_size: int, scorer: Scorer, seed: int) -> list[list[int]]:
    """Whose batch an image is in: 0 … count − 1 in lists of about `batch_size`.

    Neighbours in a folder are alike, so batches are drawn in a seeded shuffle where scores depend on them; elsewhere they
    follow the order of the files.
    """
    return balanced_batches(count, batch_size, seed if scorer.mixes else None)


def score_batches(scorer: Scorer, batches: Iterable[Sequence[Path]], workers: int = 0) -> Iterator[list[Row]]:
    """The rows of each batch of files, as it is done; `workers` threads read ahead."""

    def read(path: Path) -> torch.Tensor | str:
        try:
            return read_crops(path, scorer.model.crop or 224, scorer.crops, scorer.model.side)
        except ImageError as error:
            return str(error)

    waiting: deque[Sequence[Path]] = deque()

    def paths() -> Iterator[Path]:
        for batch in batches:
            waiting.append(batch)
            yield from batch

    with closing(ahead(read, paths(), workers)) as pictures:
        found: list[torch.Tensor | str] = []
        for picture in pictures:
            found.append(picture)
            if len(found) == len(waiting[0]):
                yield _rows(scorer, waiting.popleft(), found)
                found = []


def ahead(work: Callable[[A], B], items: Iterable[A], workers: int, each: int = 16) -> Generator[B]:
    """`map(work, items)` with `workers` threads that run ahead by up to `each` items a thread."""
    if not workers:
        yield from map(work, items)
        return
    pool, waiting = ThreadPoolExecutor(workers), deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers * each:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _rows(scorer: Scorer, files: Sequence[Path], found: list[torch.Tensor | str]) -> list[Row]:
    rows = {i: Row(files[i], error=picture) for i, picture in enumerate(found) if isinstance(picture, str)}
    pictures = {i: picture for i, picture in enumerate(found) if isinstance(picture, torch.Tensor)}
    blank = {i for i, picture in pictures.items() if scorer.mixes and bool(Blank()(picture).all())}
    own = next(scorer.model.parameters())
    for some, score in ((pictures.keys() - blank, scorer), (blank, scorer.alone)):
        if not some:
            continue
        places = sorted(some)
        outcome = score(torch.cat([pictures[i] for i in places]).to(own.device, own.dtype))
        reason = BLANK if some is blank else outcome.reason
        for i, new, old in zip(places, outcome.scores, outcome.source_scores, strict=True):
            rows[i] = Row(files[i], new, old, decision=outcome.decision, reason=reason)
    return [rows[i] for i in range(len(files))]


def _method(adapt: bool | str) -> str | None:
    return adapt if isinstance(adapt, str) else DEFAULT_METHOD if adapt else None
