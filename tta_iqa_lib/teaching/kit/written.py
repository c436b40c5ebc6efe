"""The table in which an instructor marks written answers: made by the grader, filled in by hand, taken up again (all chapters).

Whatever a spreadsheet makes of the file, and whoever is graded, no point that stands in it is lost.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from ...store.files import atomic_write
from .grade import Grade
from .marking import Mark

FOR_EXCEL = "utf-8-sig"  # with a mark at the beginning, by which Excel knows the letters
HEAD = ["student", "item", "points", "comment", "answer"]
FORMULA = ("=", "+", "-", "@", "\t")

Row = dict[str, str]


def cell(text: str) -> str:
    """A spreadsheet takes a text that begins so for a formula, and runs it."""
    return "'" + text if text.startswith(FORMULA) else text


def written_table(out: Path, assignment: str) -> Path:
    """Where it lies, by the name of the assignment."""
    return out / f"{assignment}-written.csv"


def take_up(grades: Sequence[Grade], possible: dict[str, float], path: Path, anew: bool = True) -> None:
    """Give each written answer the points that stand in the table.

    Lines of students who are not among the grades stay as they are.

    Args:
        possible: points of each item.
        path: of the table; it need not be there.
        anew: write the table, too, with all answers there are now.

    Raises:
        ValueError: it is no such table, or holds points that cannot be; it is left as it was.
    """
    rows = _read(path) if path.is_file() else {}
    for grade in grades:
        for item, answer in grade.answers.items():
            row = rows.get((grade.student, item), {})
            if answer and row.get("points"):
                grade.marks[item] = _mark(row, possible[item], path)
            if row.get("points") and _letters(row.get("answer", "")) != _letters(answer):
                grade.notes.append(f"{item}: the answer is another one than that which got {row['points']} points")
            if answer or row.get("points"):
                new = {"student": grade.student, "item": item, "points": "", "comment": ""}
                rows[grade.student, item] = new | row | {"answer": answer}
    if rows and anew:
        with atomic_write(path) as partial, partial.open("w", newline="", encoding=FOR_EXCEL) as file:
            writer = csv.DictWriter(file, HEAD, extrasaction="ignore")
            writer.writeheader()
            for _, row in sorted(rows.items()):
                writer.writerow(row | {"student": cell(row["student"]), "answer": cell(row["answer"])})


def unclaimed(grades: Sequence[Grade], path: Path) -> list[str]:
    """Students who have points in the table and are not among the grades: gone, or with a name that a spreadsheet has spoilt."""
    rows = _read(path) if path.is_file() else {}
    return sorted({student for (student, _), row in rows.items() if row["points"]} - {g.student for g in grades})


def spreadsheet_text(path: Path) -> str:
    """A table as a spreadsheet has saved it: as UTF-8, with Excel's mark or without, or in the letters of Windows."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _read(path: Path) -> dict[tuple[str, str], Row]:
    """Its lines, by student and item. Spreadsheets save commas, semicolons or tabs."""
    text = spreadsheet_text(path)
    rows: dict[tuple[str, str], Row] = {}
    for delimiter in ",;\t":
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        if set(HEAD) <= set(reader.fieldnames or ()):
            for found in reader:
                row = {name: found[name] or "" for name in HEAD}
                row["points"] = row["points"].strip()
                for name in ("student", "answer"):
                    row[name] = (
                        row[name][1:] if row[name].startswith("'") and row[name][1:].startswith(FORMULA) else row[name]
                    )
                rows[row["student"], row["item"]] = row
            return rows
    raise ValueError(f"'{path}' has no columns {', '.join(HEAD)}; mend it, or put it elsewhere and a new one is made")


def _mark(row: Row, of: float, path: Path) -> Mark:
    try:
        points = float(row["points"].replace(",", "."))
    except ValueError:
        points = -1.0
    if not 0 <= points <= of:
        raise ValueError(
            f"'{path}', {row['student']}, {row['item']}: points must be a number from 0 to {of:g}; got {row['points']!r}"
        )
    return Mark(points, of, "passed" if points == of else "partly" if points else "not yet", row["comment"])


def _letters(text: str) -> str:
    """What a spreadsheet leaves of a text, whatever it does to its lines and its accents."""
    return re.sub(r"[^A-Za-z0-9]+", "", text)
