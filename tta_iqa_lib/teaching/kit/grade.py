"""Grading: each function by its name, each item by itself, each call behind the wall (all chapters)."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from ...experiments.runner import start_worker
from ...store.files import atomic_write
from ..course.checker import Wrong
from .functions import Found, Notebook
from .kernel import undumpable
from .marking import NOT_ATTEMPTED, Mark
from .release import ANSWER, ANYONE
from .sandbox import Remote, interrupts_later
from .source import Assignment, Item, NotebookError, cells_of, read_notebook
from .submissions import released_as, written_answer
from .walls import Limits

LONGEST_ANSWER = 20_000  # letters that are kept of a written answer


@dataclass
class Grade:
    """What one student gets for one assignment.

    Attributes:
        student, assignment: names.
        marks: by item; a written question that nobody has read yet has None.
        answers: to the written questions.
        notes: for the instructor: what was unusual.
        problem: for the student: why nothing could be graded.
        digest: of all that decides the grade; a grade with another digest is made again.
    """

    student: str
    assignment: str
    marks: dict[str, Mark | None] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digest: str = ""
    problem: str = ""

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


def grades_folder(out: Path, assignment: Assignment) -> Path:
    return out / ".grades" / assignment.name


def digest_of(assignment: Assignment, path: Path, student: str, key: str) -> str:
    handed_in = b""
    with contextlib.suppress(OSError):  # what cannot be read is graded as it is
        handed_in = path.read_bytes()
    parts = [handed_in, assignment.path.read_bytes(), student.encode(), key.encode()]
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
        handed_in = read_notebook(path)
    except NotebookError:
        grade.notes.append("the file is no notebook")
        grade.problem = "Your file could not be read; hand it in again."
        grade.marks = {item.name: Mark(0, item.points, NOT_ATTEMPTED) for item in assignment.items}
        grade.answers = {item.name: "" for item in assignment.items if not item.test}
        return grade
    cells = cells_of(handed_in)
    constants, notes = _numbers(assignment, cells, released_as(path), student, key)
    notebook = Notebook(cells, assignment.given(constants))
    grade.notes += notes
    found = {name: notebook.find(name) for name in assignment.functions}
    grade.notes += [f.problem for f in found.values() if f.code and f.problem]
    grade.notes += [f"Python cannot read {where}" for where in notebook.unreadable]
    for item in assignment.items:
        if item.test:
            grade.marks[item.name] = run_item(item, notebook.given, found, limits)
        else:
            answer = written_answer(item.name, assignment.written[item.name], handed_in)
            if len(answer) > LONGEST_ANSWER:
                grade.notes.append(f"{item.name}: cut after {LONGEST_ANSWER:,} of {len(answer):,} letters")
                answer = answer[:LONGEST_ANSWER]
            empty = answer in ("", ANSWER)
            grade.answers[item.name] = "" if empty else answer
            grade.marks[item.name] = Mark(0, item.points, NOT_ATTEMPTED, "no answer") if empty else None
    return grade


def _numbers(
    assignment: Assignment, cells: list[tuple[str, str]], about: dict, student: str, key: str
) -> tuple[dict[str, Any], list[str]]:
    """The numbers that a student was given, and what is odd about it. `about`: what the release said."""
    mine, everybody = assignment.constants(student, key), assignment.constants(ANYONE, key)
    written, released = Notebook(cells).numbers(mine), about.get("student", student)
    if released == ANYONE or (written == everybody and written != mine):  # one version was released for all
        mine = everybody
    elif released != student:
        return mine, [f"this notebook was released to {str(released)[:80]}"]
    other = [
        f"{name} = {written[name]}, not {value}" for name, value in mine.items() if written.get(name, value) != value
    ]
    if not other or "variants" in about:  # the instructor's own has its own
        return mine, []
    return mine, [
        f"the notebook has other numbers ({', '.join(other)}): changed by hand, or released with another key?"
    ]


def run_item(item: Item, given: str, found: dict[str, Found], limits: Limits | None = None) -> Mark:
    """Run the tests of one item, here; the functions that they call run elsewhere, in a process that is new for this item."""
    with remote_functions({name: found[name] for name in item.functions}, limits) as functions:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(given, "<given>", "exec"), namespace)
        namespace |= functions
        body, call = item.parsed()
        exec(compile(ast.Module(body, []), f"<{item.name}>", "exec"), namespace)
        return eval(compile(ast.Expression(call), f"<{item.name}>", "eval"), namespace)


@contextlib.contextmanager
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


Task = tuple[Assignment, Path, Path, str, str, Limits | None]


def _safely(task: Task) -> Grade:
    """One failure stops one grade, not the batch. What is graded is kept at once, whatever becomes of the batch."""
    assignment, path, folder, student, key, limits = task
    undumpable()
    try:
        grade = grade_one(assignment, path, student, key, limits)
    except Exception as error:
        grade = Grade(student, assignment.name, notes=[f"could not be graded, {type(error).__name__}: {error}"])
    grade.save(folder / f"{student}.json")
    return grade


def kept_grades(assignment: Assignment, submissions: dict[str, Path], out: Path, key: str = "") -> list[Grade]:
    """What `grade_all` has kept in OUT, of notebooks that have not changed since."""
    folder = grades_folder(out, assignment)
    stored = {student: Grade.load(folder / f"{student}.json") for student in submissions}
    return [g for s, g in stored.items() if g and g.digest == digest_of(assignment, submissions[s], s, key)]


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
    kept = kept_grades(assignment, submissions, out, key)
    yield from kept
    done, folder = {grade.student for grade in kept}, grades_folder(out, assignment)
    tasks = [(assignment, path, folder, s, key, limits) for s, path in submissions.items() if s not in done]
    many = processes > 1 and len(tasks) > 1
    yield from _in_workers(tasks, processes) if many else map(_safely, tasks)


def _in_workers(tasks: list[Task], processes: int) -> Iterator[Grade]:
    """Each grade as soon as it is there. A worker that dies (no memory is left, say) takes one grade with it, and no other."""
    while tasks:
        lost, others = [], set(active_children())
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=start_worker) as pool:
            try:
                with interrupts_later():
                    jobs = {pool.submit(_safely, task): task for task in tasks}
                for job in as_completed(jobs):
                    if not isinstance(job.exception(), BrokenProcessPool):
                        yield job.result()
                lost = [task for job, task in jobs.items() if job.exception()]
            except BaseException:  # the pool would first work off all jobs; without workers it ends
                for worker in set(active_children()) - others:
                    worker.terminate()
                raise
        if processes == 1 and lost:  # one after another: it was at the first of them
            source, _, folder, student, *_ = lost[0]
            note = "could not be graded: the process that graded it was ended from outside, or ran out of memory"
            grade = Grade(student, source.name, notes=[note])
            grade.save(folder / f"{student}.json")
            yield grade
            tasks = lost[1:]
        else:  # no more than these lay with the workers
            yield from _in_workers(lost[: processes + 1], 1)
            tasks = lost[processes + 1 :]
