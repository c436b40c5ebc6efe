"""A run over a list of files that goes on, after an interruption, from what its journal holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..imaging import files as picture_files
from ..store import identity
from ..store.identity import Unidentified
from .journals import Journal
from .results import Row
from .scorers import Scorer
from .scoring import score_batches
from .settings import Settings
from .tables import is_device

log = logging.getLogger(__name__)  # without a handler: one line on stderr


def score_open(
    scorer: Scorer, batches: Sequence[Sequence[Path]], journal: Journal | None, readers: int = 0
) -> Iterator[tuple[int, list[Row]]]:
    """Number and rows of each batch: first of those that are done, then of the others, which are kept.

    A journal that cannot be written costs the journal, not the scores.
    """
    done = set(journal.done) if journal else set()
    if journal:
        yield from ((number, journal.rows(number, batches[number])) for number in sorted(done))
    todo = [number for number in range(len(batches)) if number not in done]
    for number, rows in zip(todo, score_batches(scorer, (batches[n] for n in todo), readers), strict=True):
        if journal:
            try:
                journal.add(number, rows)
            except OSError as error:
                log.warning(
                    "tta-iqa: cannot write '%s' (%s): an interruption would cost all", journal.path, error.strerror
                )
                journal = None
        yield number, rows


def journal_beside(out: Path | None, settings: Settings, scorer: Scorer, files: list[Path]) -> Journal | None:
    """Where finished batches are kept, beside a table. None for what is no file, a stream, or a model without an identity."""
    if not out or is_device(out):
        return None
    if scorer.carries:
        log.warning("tta-iqa: the method '%s' is a stream: an interrupted run will begin anew", settings.method)
        return None
    try:
        key = identity([settings.identity(scorer), files, picture_files.MAX_PIXELS])
    except Unidentified as error:
        log.warning("tta-iqa: an interrupted run will begin anew: %s", error)
        return None
    return Journal(out.with_name(f"{out.name}.journal"), key)
