"""Submissions for the tests: a student's version with the instructor's answers in it, or others."""

import ast
import copy
import re
from importlib import import_module
from pathlib import Path

from tta_iqa_lib.teaching.kit.functions import is_stub
from tta_iqa_lib.teaching.kit.release import ANSWER, ANYONE, student_version
from tta_iqa_lib.teaching.kit.source import HIDDEN, SOLUTION, Assignment

COURSE = Path(__file__).resolve().parents[3] / "book" / "assignments"
NAMES = sorted(path.name for path in (COURSE / "source").iterdir())


def assignment(name: str) -> Assignment:
    return Assignment.read(COURSE / "source" / name / f"{name}.ipynb")


def solutions(source: Assignment) -> dict[str, str]:
    """The instructor's own cell of each function."""
    cells = [c["source"] for c in source.notebook["cells"] if "### BEGIN SOLUTION" in c["source"]]
    return {name: cell for cell in cells for name in source.functions if f"def {name}(" in cell}


def wrong_answers(name: str) -> dict[str, str]:
    """One wrong answer to each function."""
    return {function: code for function, code, *_ in reversed(import_module(name).WRONG)}


def fill_in(notebook: dict, answers: dict[str, str]) -> dict:
    """A copy of a notebook with these answers in the place of its stubs."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            stubs = [s.name for s in ast.parse(cell["source"]).body if is_stub(s)]
            cell["source"] = "\n\n\n".join(answers[name] for name in stubs) or cell["source"]
        elif cell["source"] == ANSWER:
            cell["source"] = "The statistics move, too; a run without steps shows it."
    return notebook


def handed_in(source: Assignment, answers: dict[str, str] | None = None, student: str = ANYONE, key: str = "") -> dict:
    """A notebook of a student who has answered everything rightly but for `answers`, which are taken as they are."""
    return fill_in(student_version(source, student, key), solutions(source) | (answers or {}))


def secrets(source: Assignment) -> set[str]:
    """What no student's file may hold: the lines of solutions, the sentences of hidden tests, however they are written."""
    cells = [c["source"] for c in source.notebook["cells"]]
    solved = {line.strip() for cell in cells for m in SOLUTION.finditer(cell) for line in m[0].splitlines()[1:-1]}
    hidden = ast.walk(ast.parse("\n".join(m[1] for cell in cells for m in HIDDEN.finditer(cell))))
    said = {n.value for n in hidden if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {line for line in solved | said if len(line) > 18 and not re.match("from |import ", line)}
