"""The course kit: `course release`, `course export`, `course validate`, `course grade`, `course report`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .output import print_lines, report

course = typer.Typer(
    help="Assignments: hand out, check, grade. The instructor's guide is a page of the book.", no_args_is_help=True
)
app.add_typer(course, name="course")

Source = Annotated[
    Path, typer.Argument(metavar="ASSIGNMENT", help="The instructor's notebook, with solutions and hidden tests.")
]
Key = Annotated[
    str,
    typer.Option(
        envvar="TTA_COURSE_KEY",
        help="A secret of the course: with it the variants are drawn. The same for release and grade.",
    ),
]
HEADERS = ("student", "id", "username", "user", "name", "email")


def _read(path: Path):
    from ...teaching.kit.source import Assignment, NotebookError

    try:
        return Assignment.read(path)
    except NotebookError as error:
        report(str(error))
        raise typer.Exit(2) from None


def _roster(path: Path) -> list[str]:
    """The first column, without its heading. Names become folders."""
    from ...teaching.kit.submissions import NO_NAME, composed
    from ...teaching.kit.written import spreadsheet_text

    lines = spreadsheet_text(path).splitlines()
    delimiter = next((mark for mark in ";\t" if lines and mark in lines[0]), ",")
    names = [composed(row[0].strip()) for row in csv.reader(lines, delimiter=delimiter) if row and row[0].strip()]
    names = names[1:] if names and names[0].lower() in HEADERS else names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"'{path}': more than one student is called {twice[0]!r} in the first column")
    bad = [name for name in names if name.startswith(".") or any(letter in name for letter in NO_NAME)]
    if bad or not names:
        raise ValueError(
            f"'{path}': a student's name must do as the name of a folder; got {bad[0]!r}"
            if bad
            else f"no students in '{path}'"
        )
    return names


@course.command()
def release(
    assignment: Source,
    out: Annotated[Path, typer.Option(help="Folder of the students' versions, and of a zip of them.")] = Path(
        "release"
    ),
    students: Annotated[
        Path | None, typer.Option(help="A table whose first column names them: each gets a variant of their own.")
    ] = None,
    key: Key = "",
) -> None:
    """Make the students' version: no solution and no hidden test is left in it."""
    from ...teaching.kit.release import release as write

    found = _read(assignment)
    try:
        names = _roster(students) if students else []
        files = write(found, out, names, key)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    print_lines(map(str, files))


@course.command()
def export(
    assignment: Source,
    out: Annotated[
        Path, typer.Option(help="Folder for the notebook. It holds solutions and tests: it is yours.")
    ] = Path("otter"),
) -> None:
    """Write the assignment in otter-grader's form, for `otter assign`. nbgrader takes it as it is."""
    from ...teaching.kit.otter import otter_version

    found = _read(assignment)
    place = out / f"{found.name}.ipynb"
    try:
        found.write_elsewhere(otter_version(found), place)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    print_lines([str(place)])


@course.command()
def validate(notebook: Annotated[Path, typer.Argument(help="Your notebook, saved.")]) -> None:
    """For students, before handing in: what is missing? Keeps a copy in the folder backups."""
    from ...teaching.kit.source import NotebookError
    from ...teaching.kit.validate import keep_copy
    from ...teaching.kit.validate import validate as check

    try:
        lines, complete = check(notebook)
        copy, new = keep_copy(notebook)
    except (NotebookError, OSError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    report(f"a copy is kept in '{copy}'" if new else f"the last copy is the same: '{copy}'")
    print_lines([*lines, "Ready to hand in." if complete else "Not everything is there yet."])
    raise typer.Exit(0 if complete else 1)


@course.command()
def grade(
    assignment: Source,
    submissions: Annotated[Path, typer.Argument(help="Folder of notebooks: one a student, or a folder a student.")],
    out: Annotated[Path, typer.Option(help="Folder of the table and of the students' pages.")] = Path("grades"),
    key: Key = "",
    processes: Annotated[int, typer.Option(help="Notebooks at a time.", min=1)] = 2,
) -> None:
    """Grade what was handed in. Interrupt it and start it again as you like: what is done is kept."""
    import sys

    from tqdm import tqdm

    from ...store import check_folder
    from ...teaching.kit.grade import grade_all, kept_grades
    from ...teaching.kit.pages import write_pages
    from ...teaching.kit.submissions import collect
    from ...teaching.kit.written import unclaimed, written_table

    found = _read(assignment)
    try:
        handed_in, odd = collect(submissions, found)
        check_folder(out)
        grades = grade_all(found, handed_in, out, key, processes)
        marked = write_pages(tqdm(grades, desc="notebooks", total=len(handed_in), file=sys.stderr), found, out)
    except KeyboardInterrupt:
        kept = len(kept_grades(found, handed_in, out, key))
        report(f"stopped; {kept} of {len(handed_in)} are kept: start it again")
        raise typer.Exit(130) from None
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    table = written_table(out, found.name)
    if strangers := unclaimed(marked, table):
        report(f"'{table}' holds points of {', '.join(map(repr, strangers))}, not graded now")
    for line in odd:
        report(line)
    for one in marked:
        for note in one.notes:
            report(f"{one.student}: {note}")
    print_lines([f"{one.points:g}\t{one.student}" for one in marked])


@course.command("report")
def describe(
    assignment: Source,
    submissions: Annotated[Path, typer.Argument(help="As for grade.")],
    out: Annotated[Path, typer.Option(help="As for grade.")] = Path("grades"),
) -> None:
    """After grading: distribution, difficulty and discrimination of each part, frequent faults, equal code, leaderboard."""
    from ...teaching.kit.report import load_grades, report_lines
    from ...teaching.kit.submissions import find_submissions

    found = _read(assignment)
    try:
        handed_in = find_submissions(submissions, found)
        grades = load_grades(out, found, handed_in)
        lines = report_lines(found, grades, handed_in)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    if len(grades) < len(handed_in):
        report(f"{len(handed_in) - len(grades)} of {len(handed_in)} are not graded yet, and not in this report")
    print_lines(lines)
