"""Finished batches on disk, one line each: what a kill leaves behind, and a restart goes on from."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from ..store import partial_name
from .results import Row


class Journal:
    """The batches of one run that are done, in a file that only grows.

    A line is written in one go when its batch is done; a line that a kill has cut short is passed over, and its batch scored
    again. Scores keep all their digits, so that a run that goes on gives what an uninterrupted one gives. In memory stands only
    where a batch is in the file: a journal of a million images takes little.

    Several processes may write to one journal at once. One of another key takes its place under the name, and never writes into
    the same file.

    Args:
        path: the file. It is made when the first batch is done.
        key: of all that decides the scores. What stands in a file with another key does not count.

    Attributes:
        done: by number of the batch, where its line begins.
        stale: the file was there, and of another run; the first batch that is added replaces it.
    """

    _file: FileIO | None = None

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self.done: dict[int, int] = {}
        self.stale = False
        if path.is_file():
            with path.open("rb") as file:
                self.stale = file.readline().rstrip(b"\n") != self._head()
                start = file.tell()
                for line in () if self.stale else file:
                    if batch := _read(line):
                        self.done[batch[0]] = start
                    start += len(line)

    def add(self, number: int, rows: Sequence[Row]) -> None:
        """A batch is done.

        Raises:
            OSError: it could not be written.
        """
        self._file = file = self._file or self._begin()
        line = json.dumps([number, to_cells(rows)]).encode()
        # The end of line comes first: it also ends a line that was cut short.
        if file.write(b"\n" + line) <= len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(file.fileno())
        self.done[number] = file.tell() - len(line)
        self.stale = False

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._file = None

    def remove(self) -> None:
        """What it was for is done. The journal of another run that has taken its place stays."""
        self.close()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _begin(self) -> FileIO:
        """The file, to append to; with its first line, if it is not there yet or of another run."""
        if not self._is_mine():
            partial = partial_name(self.path)
            try:
                partial.write_bytes(self._head())
                with contextlib.suppress(OSError):
                    os.link(
                        partial, self.path
                    )  # never over one that has just been begun: of the same run, it is joined
                if not self._is_mine():
                    partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)
        return self.path.open("ab", buffering=0)

    def _is_mine(self) -> bool:
        try:
            with self.path.open("rb") as file:
                return file.readline().rstrip(b"\n") == self._head()
        except OSError:
            return False

    def cells(self, number: int) -> list[tuple]:
        """Of a batch that is done: score, source score, error, decision and reason of each of its files."""
        with self.path.open("rb") as file:
            file.seek(self.done[number])
            batch = _read(file.readline())
        if batch is None or batch[0] != number:
            raise OSError(errno.EIO, "it has changed since it was read", str(self.path))
        return batch[1]

    def rows(self, number: int, files: Sequence[Path]) -> list[Row]:
        """The rows of a batch that is done, of these files."""
        return from_cells(self.cells(number), files)

    def _head(self) -> bytes:
        return json.dumps({"tta-iqa": "finished batches", "of": self.key}).encode()


def to_cells(rows: Sequence[Row]) -> list[list]:
    """Plain data of rows, without their paths, as a journal has them."""
    scores = ([row.score, row.source_score] for row in rows)
    finite = ([score if math.isfinite(score) else None for score in pair] for pair in scores)
    return [[*pair, row.error, row.decision, row.reason] for pair, row in zip(finite, rows, strict=True)]


def from_cells(cells: Sequence[Sequence], files: Sequence[Path]) -> list[Row]:
    """The rows again."""
    kept = zip(files, cells, strict=True)
    return [Row(path, _number(new), _number(old), *rest) for path, (new, old, *rest) in kept]


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def _read(line: bytes) -> tuple[int, list[tuple]] | None:
    try:
        number, rows = json.loads(line)
        return number, [tuple(cells) for cells in rows]
    except (ValueError, TypeError):
        return None
