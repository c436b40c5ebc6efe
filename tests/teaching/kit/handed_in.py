"""Submissions for the tests: a student's version with the instructor's answers in it, or others."""

import ast
import copy
from pathlib import Path

from tta_iqa_lib.teaching.kit.functions import is_stub
from tta_iqa_lib.teaching.kit.release import ANSWER, ANYONE, student_version
from tta_iqa_lib.teaching.kit.source import Assignment

COURSE = Path(__file__).resolve().parents[3] / "book" / "assignments"
NAMES = sorted(path.name for path in (COURSE / "source").iterdir())


def assignment(name: str) -> Assignment:
    return Assignment.read(COURSE / "source" / name / f"{name}.ipynb")


def solutions(source: Assignment) -> dict[str, str]:
    """The instructor's own cell of each function."""
    cells = [c["source"] for c in source.notebook["cells"] if "### BEGIN SOLUTION" in c["source"]]
    return {name: cell for cell in cells for name in source.functions if f"def {name}(" in cell}


def handed_in(source: Assignment, answers: dict[str, str] | None = None, student: str = ANYONE, key: str = "") -> dict:
    """A notebook of a student who has answered everything rightly but for `answers`, which are taken as they are."""
    notebook = copy.deepcopy(student_version(source, student, key))
    right = solutions(source) | (answers or {})
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            stubs = [s.name for s in ast.parse(cell["source"]).body if is_stub(s)]
            cell["source"] = "\n\n\n".join(right[name] for name in stubs) or cell["source"]
        elif cell["source"] == ANSWER:
            cell["source"] = "The statistics move, too; a run without steps shows it."
    return notebook
