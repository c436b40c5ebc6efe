"""Grading: each function by its name, each item by itself, each call behind the wall (all chapters)."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ...store.files import atomic_write
from ..course.checker import Wrong
from .functions import Found, Notebook
from .kernel import undumpable
from .marking import Mark
from .release import ANSWER, ANYONE
from .sandbox import Remote
from .source import Assignment, Item, NotebookError, cells_of, read_notebook
from .submissions import released_as, written_answer
from .walls import Limits


@dataclass
class Grade:
    """What one student gets for one assignment.

    Attributes:
        student, assignment: names.
        marks: by item; a written question that nobody has read yet has None.
        answers: to the written questions.
        notes: for the instructor: what was unusual.
        digest: of all that decides the grade; a grade with another digest is made again.
    """

    student: str
    assignment: str
    marks: dict[str, Mark | None] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def points(self) -> float:
        return sum(m.points for m in self.marks.values() if m)

    @property
    def of(self) -> float:
        return sum(m.of for m in self.marks.values() if m)

    def save(self, path: Path) -> None:
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Grade | None:
        """None where there is no grade, or none that can be read."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            marks = {name: mark and Mark(**mark) for name, mark in stored.pop("marks").items()}
            return cls(marks=marks, **stored)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def digest_of(assignment: Assignment, path: Path, student: str, key: str) -> str:
    parts = [path.read_bytes(), assignment.path.read_bytes(), student.encode(), key.encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()


def grade_one(
    assignment: Assignment, path: Path, student: str = ANYONE, key: str = "", limits: Limits | None = None
) -> Grade:
    """Grade one notebook. Whatever is in the file, this returns.

    Args:
        path: of the student's notebook.
        student, key: choose the variant, as in the release.
        limits: for each function of each item.
    """
    grade = Grade(student, assignment.name, digest=digest_of(assignment, path, student, key))
    try:
        cells = cells_of(read_notebook(path))
    except NotebookError:
        cells = []
        grade.notes.append("the file is no notebook")
    constants = assignment.constants(student, key)
    notebook = Notebook(cells, assignment.given(constants))
    released = released_as(path).get("student", student)
    if released not in (student, ANYONE):
        grade.notes.append(f"this notebook was released to {released}")
    found = {name: notebook.find(name) for name in assignment.functions}
    grade.notes += [f.problem for f in found.values() if f.code and f.problem]
    grade.notes += [f"Python cannot read {where}" for where in notebook.unreadable]
    for item in assignment.items:
        if item.test:
            grade.marks[item.name] = run_item(item, notebook.given, found, limits)
        else:
            answer = written_answer(assignment, item.name, cells).strip()
            empty = answer in ("", ANSWER)
            grade.answers[item.name] = "" if empty else answer
            grade.marks[item.name] = Mark(0, item.points, "not attempted", "no answer") if empty else None
    return grade


def run_item(item: Item, given: str, found: dict[str, Found], limits: Limits | None = None) -> Mark:
    """Run the tests of one item, here; the functions that they call run elsewhere, in a process that is new for this item."""
    with remote_functions({name: found[name] for name in item.functions}, limits) as functions:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(given, "<given>", "exec"), namespace)
        namespace |= functions
        body, call = item.parsed()
        exec(compile(ast.Module(body, []), f"<{item.name}>", "exec"), namespace)
        return eval(compile(ast.Expression(call), f"<{item.name}>", "eval"), namespace)


@contextmanager
def remote_functions(found: dict[str, Found], limits: Limits | None = None) -> Iterator[dict[str, Callable]]:
    """Something to call for each function of a student's, whether it is there or not; each in a process of its own."""
    functions = {name: Remote(f.code, name, limits) if f.code else _absent(f) for name, f in found.items()}
    try:
        yield functions
    finally:
        for function in functions.values():
            if isinstance(function, Remote):
                function.close()


def _absent(found: Found) -> Callable:
    def call(*_, **__):
        raise NotImplementedError if found.stub else Wrong(found.problem)

    return call


def _safely(task: tuple[Assignment, Path, str, str, Limits | None]) -> Grade:
    """One failure stops one grade, not the batch."""
    assignment, path, student, key, limits = task
    undumpable()
    try:
        return grade_one(assignment, path, student, key, limits)
    except Exception as error:
        note = f"could not be graded, {type(error).__name__}: {error}"
        return Grade(student, assignment.name, notes=[note])


def grade_all(
    assignment: Assignment,
    submissions: dict[str, Path],
    out: Path,
    key: str = "",
    processes: int = 1,
    limits: Limits | None = None,
) -> Iterator[Grade]:
    """Grade the notebook of each student; yields each grade as soon as it is there.

    Grades are kept in OUT/.grades, one file a student: started again, this goes on where it stopped, and grades only what has
    changed.
    """
    kept = out / ".grades"
    tasks = []
    for student, path in submissions.items():
        stored = Grade.load(kept / f"{student}.json")
        if stored and stored.digest == digest_of(assignment, path, student, key):
            yield stored
        else:
            tasks.append((assignment, path, student, key, limits))
    with ExitStack() as stack:
        run = map
        if processes > 1 and len(tasks) > 1:
            run = stack.enter_context(ProcessPoolExecutor(processes, mp_context=get_context("spawn"))).map
        for grade in run(_safely, tasks):
            grade.save(kept / f"{grade.student}.json")
            yield grade
