"""What came of a file, a row; rows in the order of the images, and what is to be said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HEADER = ("path", "score", "source_score", "decision", "reason", "error")
BLANK = "shows nothing: one colour, or noise"  # the reason of a picture that took no part in its batch


@dataclass(frozen=True, slots=True)  # there may be a million
class Row:
    """One file: its score and the source model's, or why there is none.

    Attributes:
        decision, reason: whose score it is, and why it is not the adapted one; see `scorers.Outcome`.
    """

    path: Path
    score: float = float("nan")
    source_score: float = float("nan")
    error: str = ""
    decision: str = ""
    reason: str = ""


def cells(row: Row) -> tuple:
    """Under `HEADER`."""
    return str(row.path), row.score, row.source_score, row.decision, row.reason, row.error


class Results:
    """Rows that come in any order, and leave in that of the images.

    Args:
        count: of images.

    Attributes:
        ready: so many from the first on are there.
    """

    def __init__(self, count: int):
        self._rows: list[Row | None] = [None] * count
        self.ready = 0
        self._batches: Counter[tuple[str, str]] = Counter()
        self._blank = 0

    def add(self, places: Sequence[int], rows: Sequence[Row]) -> list[Row]:
        """A batch is done: the rows that need wait no longer."""
        for place, row in zip(places, rows, strict=True):
            self._rows[place] = row
        scored = [row for row in rows if not row.error]
        if took_part := [row for row in scored if row.reason != BLANK]:
            self._batches[took_part[0].decision, took_part[0].reason.split(" (")[0]] += 1
        self._blank += len(scored) - len(took_part)
        first = self.ready
        while self.ready < len(self._rows) and self._rows[self.ready] is not None:
            self.ready += 1
        return [row for row in self._rows[first : self.ready] if row]

    @property
    def rows(self) -> list[Row]:
        """Those that are there, in the order of the images."""
        return [row for row in self._rows if row]

    @property
    def failed(self) -> int:
        """How many files could not be scored."""
        return sum(bool(row.error) for row in self.rows)

    def summary(self) -> str:
        """How many batches were adapted, and why the others were not, or not as the method has it."""
        total = self._batches.total()
        adapted = sum(n for (decision, _), n in self._batches.items() if decision != "source")
        left = [
            f"{n} left to the source model{reason and ': '}{reason}" if decision == "source" else f"{n} {reason}"
            for (decision, reason), n in self._batches.items()
            if decision == "source" or reason
        ]
        if self._blank:
            left.append(
                f"{self._blank} {'picture that shows' if self._blank == 1 else 'pictures that show'} nothing left out"
            )
        return "; ".join([f"adapted to {adapted} of {total} batches", *left])
