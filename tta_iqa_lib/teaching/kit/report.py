"""After grading: which parts were hard, which tell students apart, who worked alike (all chapters)."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from itertools import combinations
from math import isfinite, isnan
from pathlib import Path
from statistics import mean, median

import numpy as np

from .functions import Notebook
from .grade import Grade, grades_folder
from .source import Assignment, NotebookError, cells_of, read_notebook
from .written import take_up, written_table


def load_grades(out: Path, assignment: Assignment, students: Collection[str]) -> list[Grade]:
    """The grades of these students that `grade` has kept in OUT, with the points of their written answers.

    Raises:
        NotebookError: there are none.
        ValueError: the table of written answers cannot be read (`written.take_up`).
    """
    kept = grades_folder(out, assignment)
    found = [grade for student in sorted(students) if (grade := Grade.load(kept / f"{student}.json"))]
    if not found:
        raise NotebookError(f"no grades of {assignment.name} in '{out}': grade first")
    take_up(found, {i.name: i.points for i in assignment.items}, written_table(out, assignment.name), anew=False)
    return found


def difficulty(grades: Sequence[Grade], item: str) -> float:
    """The mean share of its points that students earned, in [0, 1]; NaN if nobody has been marked."""
    shares = [mark.points / mark.of for grade in grades if (mark := grade.marks.get(item))]
    return mean(shares) if shares else float("nan")


def discrimination(grades: Sequence[Grade], item: str) -> float:
    """Correlation of an item's points with those of all others, in [-1, 1]; NaN where one of the two is constant.

    Near zero or below: the item does not measure what the others do, or its test is wrong.
    """
    pairs = [(mark.points, grade.points - mark.points) for grade in grades if (mark := grade.marks.get(item))]
    own, rest = np.array(pairs or [(0.0, 0.0)]).T
    if own.std() == 0 or rest.std() == 0:
        return float("nan")
    return float(np.corrcoef(own, rest)[0, 1])


def reasons(grades: Sequence[Grade], item: str) -> list[tuple[int, str]]:
    """What the tests said, and to how many, the most frequent first."""
    said = [mark.message for grade in grades if (mark := grade.marks.get(item)) and mark.message]
    return sorted(((said.count(reason), reason) for reason in set(said)), key=lambda pair: (-pair[0], pair[1]))


def fingerprint(code: str) -> list[str]:
    """A function as the kinds of its nodes: names, comments, layout and numbers do not count."""
    return [type(node).__name__ for node in ast.walk(ast.parse(code)) if not isinstance(node, ast.expr_context)]


def alike(
    assignment: Assignment, submissions: dict[str, Path], least: float = 0.95, common: float = 0.2
) -> list[tuple[str, str, float]]:
    """Pairs of students whose code is nearly the same, most alike first: a reason to read both, not a verdict.

    Functions that are too short to differ do not count, nor does a form that more than the share `common` of the class has.

    Args:
        least: the similarity from which a pair is named, in [0, 1].

    Returns:
        (student, student, mean similarity of their functions).
    """
    prints: dict[str, dict[str, list[str]]] = {}
    for student, path in submissions.items():
        try:
            notebook = Notebook(cells_of(read_notebook(path)))
        except NotebookError:
            continue
        found = {name: notebook.find(name).code for name in assignment.functions}
        prints[student] = {name: form for name, code in found.items() if code and len(form := fingerprint(code)) >= 30}
    forms = [tuple(form) for functions in prints.values() for form in functions.values()]
    usual = {form for form in set(forms) if forms.count(form) > max(2, common * len(prints))}
    pairs = []
    for a, b in combinations(prints, 2):
        shared = [n for n in prints[a] if n in prints[b] and tuple(prints[a][n]) not in usual]
        if len(shared) >= 2 or (shared and len(assignment.functions) == 1):
            both = [SequenceMatcher(None, prints[a][n], prints[b][n], autojunk=False) for n in shared]
            possible = mean(one.quick_ratio() for one in both)  # never less, and found at once: a class has many pairs
            if possible >= least and (likeness := mean(one.ratio() for one in both)) >= least:
                pairs.append((a, b, likeness))
    return sorted(pairs, key=lambda pair: -pair[2])


def leaderboard(grades: Sequence[Grade]) -> list[tuple[str, float]]:
    """(student, what the tests measured, to a thousandth), the best first; empty where they measured nothing."""
    measured = {
        g.student: [m.value for m in g.marks.values() if m and m.value is not None and isfinite(m.value)]
        for g in grades
    }
    return sorted(((s, round(max(v), 3)) for s, v in measured.items() if v), key=lambda pair: -pair[1])


def report_lines(assignment: Assignment, grades: Sequence[Grade], submissions: dict[str, Path]) -> list[str]:
    """The whole report, as lines of text."""
    points, of = [g.points for g in grades], sum(i.points for i in assignment.items)
    middle = f"the mean is {mean(points):.1f}, the median {median(points):g}"
    waiting = {i.name: sum(i.name in g.marks and g.marks[i.name] is None for g in grades) for i in assignment.items}
    unread = ", without the answers that nobody has read yet" if any(waiting.values()) else ""
    lines = [f"{assignment.about['title']}: {len(grades)} students; of {of:g} points {middle}{unread}"]
    edges = np.linspace(0, of, 11)
    counts = np.histogram(points, edges)[0]
    lines += [
        "",
        *(f"{low:5.1f} to {high:5.1f}  {'█' * n} {n}" for low, high, n in zip(edges, edges[1:], counts, strict=False)),
    ]
    lines += ["", f"{'item':24s}{'points':>8s}{'earned':>8s}{'discrimination':>16s}"]
    for item in assignment.items:
        if waiting[item.name]:  # those who wrote nothing have been marked, and would stand for all
            lines.append(f"{item.name:24s}{item.points:8g}{'–':>8s}{'–':>16s}")
            lines.append(f"    {waiting[item.name]} wait for a reader")
            continue
        share, tells = difficulty(grades, item.name), discrimination(grades, item.name)
        figures = f"{'–' if isnan(share) else f'{share:.0%}':>8s}{'–' if isnan(tells) else f'{tells:.2f}':>16s}"
        lines.append(f"{item.name:24s}{item.points:8g}{figures}")
        lines += [f"    {n} ×  {reason}" for n, reason in reasons(grades, item.name)[:3]]
    board = leaderboard(grades)
    if board:
        lines += [
            "",
            "Leaderboard",
            *(f"{1 + sum(v > value for _, v in board):4d}  {value:.3f}  {student}" for student, value in board),
        ]
    same = alike(assignment, submissions)
    if same:
        lines += [
            "",
            "Nearly the same code; read both before you ask",
            *(f"    {a} and {b}: {s:.0%}" for a, b, s in same),
        ]
    noted = [f"    {g.student}: {note}" for g in grades for note in g.notes]
    return lines + (["", "Notes", *noted] if noted else [])
