"""What comes out of grading: one page for each student, one table for the learning platform (all chapters).

A page is made of points and of sentences that the tests say to students. No test, no code of a test and no solution goes into it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from html import escape
from pathlib import Path

from ...store.files import atomic_write
from .grade import Grade
from .source import Assignment
from .written import FOR_EXCEL, cell, take_up, written_table

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; width: 100%; }
td, blockquote { overflow-wrap: anywhere; }
th, td { text-align: left; vertical-align: top; padding: .5rem; border-bottom: 1px solid #ccc; }
td.points { white-space: nowrap; overflow-wrap: normal; text-align: right; }
blockquote { white-space: pre-wrap; border-left: 3px solid #ccc; margin-left: 0; padding-left: 1rem; }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #181818; } }
"""
SIGNS = {"passed": "✓ passed", "partly": "◐ partly", "not yet": "✗ not yet", "not attempted": "○ not attempted"}


def student_page(grade: Grade, title: str, possible: dict[str, float]) -> str:
    """HTML of a student's grade, complete in itself.

    Args:
        possible: points of each item.
    """
    rows = []
    for name, of in possible.items():
        mark = grade.marks.get(name)
        points, state, message = (
            (f"{mark.points:g}", SIGNS[mark.status], mark.message) if mark else ("–", "to be read", "")
        )
        rows.append(
            f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(state)}<br>{escape(message)}</td>'
            f'<td class="points">{points} of {of:g}</td></tr>'
        )
    waiting = sum(of for name, of in possible.items() if grade.marks.get(name) is None)
    rest = f" Another {waiting:g} points wait for a reader." if waiting else ""
    answers = "".join(
        f"<h2>Your answer: {escape(k.replace('_', ' '))}</h2><blockquote>{escape(v)}</blockquote>"
        for k, v in grade.answers.items()
        if v
    )
    problem = f"<p>{escape(grade.problem)}</p>\n" if grade.problem else ""
    heading = f"{escape(title)}: {escape(grade.student)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n<h1>{heading}</h1>\n{problem}'
        f"<p><strong>{grade.points:g} of {sum(possible.values()) - waiting:g} points.</strong>{rest}</p>\n"
        "<table><thead><tr><th>part</th><th>what the tests say</th><th>points</th></tr></thead>\n"
        f"<tbody>{''.join(rows)}</tbody></table>\n"
        f"{answers}\n</body></html>\n"
    )


def write_pages(grades: Iterable[Grade], assignment: Assignment, out: Path) -> list[Grade]:
    """A page for each student, OUT/STUDENT/NAME.html, and all grades in OUT/NAME.csv: student, points, out of, each item, notes.

    Points for written answers are taken up from OUT/NAME-written.csv (`written`).

    Returns:
        The grades, with the points of the written answers.
    """
    possible = {item.name: item.points for item in assignment.items}
    grades = sorted(grades, key=lambda g: g.student)
    take_up(grades, possible, written_table(out, assignment.name))
    with (
        atomic_write(out / f"{assignment.name}.csv") as partial,
        partial.open("w", newline="", encoding=FOR_EXCEL) as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["student", "points", "out_of", *possible, "notes"])
        for grade in grades:
            marks = [grade.marks.get(name) for name in possible]
            row = [f"{mark.points:g}" if mark else "" for mark in marks]
            totals = f"{grade.points:g}", f"{sum(possible.values()):g}"
            writer.writerow([cell(grade.student), *totals, *row, cell("; ".join(grade.notes))])
    for grade in grades:
        with atomic_write(out / grade.student / f"{assignment.name}.html") as partial:
            partial.write_text(student_page(grade, assignment.about["title"], possible), encoding="utf-8")
    return grades
