"""Tables of image paths and opinions as people keep them: any encoding, any delimiter; every fault is named with its line.

Chapter 11.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class DatabaseError(ValueError):
    """A folder or file does not hold the database it should; the message says what is missing. Chapter 11."""


def read_table(file: Path, folder: Path, path_column: str, score_column: str) -> tuple[list[Path], list[float]]:
    """The paths and opinions of a table with a header line, in its order; lines that are blank do not count. Chapter 11.

    Comma, semicolon, tab or bar part the columns. Where it is the semicolon, 3,5 is a number, as spreadsheets have it.

    Args:
        file: the table.
        folder: what its paths are relative to.
        path_column, score_column: names in the header.

    Raises:
        DatabaseError: no such column, a stray quote, a line of another length, a path that is missing, twice there or leads
            to no file, a score that is no number.
    """
    text, encoding = read_text(file)
    delimiter = _delimiter(text, path_column, score_column)
    rows = _rows(text, delimiter, file)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    for column in (path_column, score_column):
        if header.count(column) != 1:
            what = f"two columns '{column}'" if column in header else f"no column '{column}'"
            raise DatabaseError(f"'{file}' has {what}; it has {', '.join(header)}")
    paths, scores, lines = [], [], []
    for line, row in rows:
        if len(row) > len(header) and any(cell.strip() for cell in row[len(header) :]):
            raise DatabaseError(f"'{file}', line {line}: {len(row)} cells under a header of {len(header)}")
        cells = dict(zip(header, row, strict=False))
        if not cells.get(path_column, "").strip():
            raise DatabaseError(f"'{file}', line {line}: no path")
        score = cells.get(score_column)
        if delimiter == ";" and score:
            score = score.replace(",", ".")
        scores.append(parse_score(score, file, line))
        paths.append(_find(folder, cells[path_column].strip(), encoding))
        lines.append(line)
    check_paths(paths, file, lines)
    return paths, scores


def read_text(file: Path) -> tuple[str, str]:
    """The text of a table, and its encoding: by its mark, else UTF-8, else that of Windows.

    Chapter 11.

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


def _delimiter(text: str, *columns: str) -> str:
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


def _rows(text: str, delimiter: str, file: Path) -> Iterator[tuple[int, list[str]]]:
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


def _find(folder: Path, name: str, encoding: str) -> Path:
    """The file of that name; or of the same bytes, where both are older than Unicode."""
    path = folder / name
    if encoding in ("cp1252", "latin-1") and not path.is_file():
        same_bytes = folder / os.fsdecode(name.encode(encoding))
        return same_bytes if same_bytes.is_file() else path
    return path


def parse_score(text: str | None, file: Path, line: int) -> float:
    """A finite number. Chapter 11.

    Raises:
        DatabaseError: anything else; names the table and the line.
    """
    try:
        score = float(text or "nan")
    except ValueError:
        score = float("nan")
    if not np.isfinite(score):
        raise DatabaseError(f"'{file}', line {line}: {text!r} is not a score")
    return score


def check_paths(paths: list[Path], file: Path, lines: list[int] | None = None) -> None:
    """Every image is there, and once. Chapter 11.

    Raises:
        DatabaseError: some are missing, one is there twice, or there are none.
    """
    if not paths:
        raise DatabaseError(f"'{file}' names no images")
    places = [f"line {line}" for line in lines] if lines else [f"number {i}" for i in range(1, len(paths) + 1)]
    first: dict[str, str] = {}
    for path, place in zip(paths, places, strict=True):
        if (before := first.setdefault(os.path.normpath(path), place)) != place:
            raise DatabaseError(f"'{file}', {place}: '{path.name}' is there already, as {before}")
    missing = [(path, place) for path, place in zip(paths, places, strict=True) if not path.is_file()]
    if missing:
        path, place = missing[0]
        raise DatabaseError(f"{len(missing)} of {len(paths)} images of '{file}' are missing, first '{path}' ({place})")
