"""What goes out: remarks on stderr, lines on stdout, tables and pages. Nothing is lost without a word."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..tables import check_table, json_line, write_table

if TYPE_CHECKING:
    from ..journals import Journal
    from ..results import Results, Row


def report(message: str) -> None:
    """One line on stderr."""
    print(f"tta-iqa: {message}", file=sys.stderr)


@contextmanager
def kept() -> Iterator[None]:
    """What a machine does to a long run ends it with one line; what is done is in the store."""
    try:
        yield
    except (OSError, ValueError) as error:
        report(f"{error}; what is done is kept")
    except BrokenProcessPool:
        report(
            "a worker was ended from outside, or no memory was left; what is done is kept: start again, with fewer --processes"
        )
    else:
        return
    raise typer.Exit(2)


def print_lines(lines: Iterable[str]) -> bool:
    """To stdout, at once. Where nobody reads on (`| head`), quietly no further: False.

    Raises:
        typer.Exit: 2, with a word, where they cannot be written.
    """
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer goes nowhere: else Python would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        closed = errno.EINVAL if os.name == "nt" else errno.EPIPE
        if error.errno != closed:
            report(f"cannot write to standard output: {error.strerror}")
            raise typer.Exit(2) from None
        return False
    return True


class Printing:
    """Rows to standard output, for as long as somebody reads them."""

    def __init__(self, as_json: bool):
        self.as_json, self.ended, self.status = as_json, False, 0

    def __call__(self, rows: Iterable[Row]) -> None:
        from ..results import HEADER, cells

        if self.ended:
            return
        if self.as_json:
            lines = [json_line(HEADER, cells(row)) for row in rows]
        else:
            lines = [f"{row.score:.4f}\t{row.path}" for row in rows if not row.error]
        try:
            self.ended = not print_lines(lines)
        except typer.Exit as stop:  # a table that is to be written is worth going on for
            self.ended, self.status = True, stop.exit_code


def check_outputs(out: Path | None, sheet: Path | None) -> None:
    """Raises: OSError, ValueError."""
    if out:
        check_table(out)
    if sheet:
        check_table(sheet, frozenset({".html", ".htm"}))


def finish(
    results: Results,
    out: Path | None,
    sheet: Path | None,
    notes: list[str],
    higher_is_better: bool,
    status: int = 0,
    journal: Journal | None = None,
) -> None:
    """Table and page, and the exit status. The journal goes when the table is whole."""
    from ..results import HEADER, cells

    rows = results.rows
    if not save(out, HEADER, map(cells, rows)):
        status = 2
    elif journal:
        journal.remove()
    try:
        if sheet:
            from ..sheets import write_sheet

            write_sheet(sheet, rows, "Scores", notes, higher_is_better)
    except OSError as error:
        report(f"the page '{sheet}' could not be written: {error.strerror or error}")
        status = 2
    if results.failed:
        report(f"{results.failed} of {len(rows)} files could not be scored")
        status = status or (1 if results.failed < len(rows) else 2)
    raise typer.Exit(status)


def save(table: Path | None, header: Sequence[str], rows: Iterable[Sequence]) -> bool:
    """False, with a word, where the table could not be written."""
    try:
        if table:
            write_table(table, header, rows)
    except OSError as error:
        report(
            f"the table '{table}' could not be written: {error.strerror or error}; the scores are on standard output"
        )
        return False
    return True
