"""Tables of image paths and opinions as people keep them: text, Excel, Parquet; every fault is named with its line.

Chapter 11.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHEETS = (".xlsx", ".xlsm", ".parquet")  # read by packages of their own
TEXTS = (".csv", ".tsv", ".tab", ".txt")


class DatabaseError(ValueError):
    """A folder or file does not hold the database it should; the message says what is missing."""


@dataclass(frozen=True)
class Table:
    """Cells under a header, each row with its line.

    Attributes:
        file: where they come from.
        header: names of the columns.
        rows: cells by column; a short row lacks the last ones.
        lines: number of each row in the file.
        encoding: of a text; file names may be in it, too.
        decimal_comma: is 3,5 a number?
    """

    file: Path
    header: list[str]
    rows: list[dict[str, str]]
    lines: list[int]
    encoding: str = "utf-8"
    decimal_comma: bool = False

    @property
    def places(self) -> list[str]:
        """Where each row stands, in words."""
        return [f"line {line}" for line in self.lines]

    def column(self, name: str) -> list[str]:
        """The cells of a column, without spaces around them.

        Raises:
            DatabaseError: there is none of that name, or two.
        """
        if self.header.count(name) != 1:
            what = f"two columns '{name}'" if name in self.header else f"no column '{name}'"
            raise DatabaseError(f"'{self.file}' has {what}; it has {', '.join(filter(None, self.header)) or 'none'}")
        return [row.get(name, "").strip() for row in self.rows]

    def scores(self, name: str) -> list[float]:
        """A column of opinions.

        Raises:
            DatabaseError: no such column, or a cell that is no finite number.
        """
        self.column(name)
        cells = [row.get(name) for row in self.rows]
        if self.decimal_comma:
            cells = [cell and cell.replace(",", ".") for cell in cells]
        return [parse_score(cell, self.file, line) for cell, line in zip(cells, self.lines, strict=True)]

    def paths(self, name: str, folder: Path) -> list[Path]:
        """A column of names of files in a folder, which need not be there.

        Raises:
            DatabaseError: no such column, or an empty cell.
        """
        names = self.column(name)
        if "" in names:
            raise DatabaseError(f"'{self.file}', line {self.lines[names.index('')]}: no path")
        return [find_file(folder, cell, self.encoding) for cell in names]


def read_table(file: Path, *columns: str, sheet: str | None = None, header: Sequence[str] | None = None) -> Table:
    """A table: Excel (.xlsx), Parquet, or text. Rows that are blank do not count.

    In a text, comma, semicolon, tab or bar part the columns. Where it is the semicolon, 3,5 is a number, as spreadsheets have it.

    Args:
        columns: names that its header should have; they tell the delimiter, and which row of a sheet is the header.
        sheet: name of a sheet of a workbook; its first by default.
        header: names of the columns of a text that has no header; commas or spaces part them.

    Raises:
        DatabaseError: it cannot be read, a stray quote, a row of another length.
    """
    suffix = file.suffix.lower()
    if suffix in SHEETS:
        from .sheets import read_sheet

        rows = read_sheet(file, columns, sheet)
        encoding, delimiter = "utf-8", ""
    else:
        text, encoding = read_text(file)
        delimiter = delimiter_of(text, *columns)
        rows = rows_of(text, delimiter, file) if header is None else _plainrows_of(text, header, file)
    _, first = next(rows, (1, []))
    names = [name.strip() for name in first]
    cells, lines = [], []
    for line, row in rows:
        if len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
            raise DatabaseError(f"'{file}', line {line}: {len(row)} cells under a header of {len(names)}")
        found = dict(zip(names, row, strict=False))
        if suffix in SHEETS and columns and not any(found.get(column, "?") for column in columns):
            continue  # a remark beside or below the table
        cells.append(found)
        lines.append(line)
    return Table(file, names, cells, lines, encoding, delimiter == ";")


def _plainrows_of(text: str, header: Sequence[str], file: Path) -> Iterator[tuple[int, list[str]]]:
    yield 0, list(header)
    for line, content in enumerate(text.splitlines(), 1):
        if content.strip():
            row = re.split(r"\s*,\s*|\s+", content.strip())
            if len(row) != len(header):
                raise DatabaseError(f"'{file}', line {line}: expected {' and '.join(header)}")
            yield line, row


def read_text(file: Path) -> tuple[str, str]:
    """The text of a table, and its encoding: by its mark, else UTF-8, else that of Windows.

    Raises:
        DatabaseError: it cannot be opened, or is no text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DatabaseError(f"cannot read '{file}': {error.strerror}") from None
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            candidates = [encoding]
            break
    else:
        candidates = ["utf-8", "cp1252", "latin-1"]
    for encoding in candidates:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise DatabaseError(f"'{file}' is no text: save the table as CSV in UTF-8")


def delimiter_of(text: str, *columns: str) -> str:
    """The one by which the header holds the columns; a comma if none does."""
    header = next(io.StringIO(text.lstrip(), newline=""), "")
    for delimiter in ",;\t|":
        try:
            names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        except csv.Error:
            continue
        if set(columns) <= set(names):
            return delimiter
    return ","


def rows_of(text: str, delimiter: str, file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    last = 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DatabaseError(f"'{file}', line {last + 1}: {error}; is there a stray quote?") from None
        if row is None:
            return
        line, last = last + 1, reader.line_num
        if last > line:
            raise DatabaseError(f"'{file}', line {line}: a quoted cell runs on to line {last}; is there a stray quote?")
        if any(cell.strip() for cell in row):
            yield line, row


def find_file(folder: Path, name: str, encoding: str) -> Path:
    """The file of that name; or of the same bytes, where both are older than Unicode."""
    path = folder / name
    if encoding in ("cp1252", "latin-1") and not path.is_file():
        same_bytes = folder / os.fsdecode(name.encode(encoding))
        return same_bytes if same_bytes.is_file() else path
    return path


def parse_score(text: str | None, file: Path, line: int) -> float:
    """A finite number.

    Raises:
        DatabaseError: anything else; names the table and the line.
    """
    try:
        score = float((text or "nan").replace("_", "?"))  # Python's 4_5 is a slip for 4.5
    except ValueError:
        score = float("nan")
    if not np.isfinite(score):
        raise DatabaseError(f"'{file}', line {line}: {text or ''!r} is not a score")
    return score


def check_paths(paths: Sequence[Path], source: Path, places: Sequence[str] | None = None) -> None:
    """Every image is there, and once.

    Args:
        source: the table, or the folder of several.
        places: where each path stands in it; by default its number.

    Raises:
        DatabaseError: some are missing, one is there twice, or there are none.
    """
    if not paths:
        raise DatabaseError(f"'{source}' names no images")
    places = places or [f"number {i}" for i in range(1, len(paths) + 1)]
    first: dict[str, str] = {}
    for path, place in zip(paths, places, strict=True):
        if (before := first.setdefault(os.path.normpath(path), place)) != place:
            raise DatabaseError(f"'{source}', {place}: '{path.name}' is there already, as {before}")
    missing = [(path, place) for path, place in zip(paths, places, strict=True) if not path.is_file()]
    if missing:
        path, place = missing[0]
        raise DatabaseError(
            f"{len(missing)} of {len(paths)} images of '{source}' are missing, first '{path}' ({place})"
        )
