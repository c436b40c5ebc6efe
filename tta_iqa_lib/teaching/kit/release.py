"""The student's version of an assignment: the same notebook without its solutions and hidden tests (all chapters)."""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .source import ABOUT, HIDDEN, SOLUTION, Assignment

STUB = "raise NotImplementedError  # your code here"
ANSWER = "*Your answer here.*"
ANYONE = "student"


def student_version(assignment: Assignment, student: str = ANYONE, key: str = "") -> dict:
    """The notebook to hand out, JSON. `student` and `key` choose the variant."""
    constants = assignment.constants(student, key)
    notebook = copy.deepcopy(assignment.notebook)
    about = assignment.about
    notebook["metadata"][ABOUT] = {
        "name": about["name"],
        "student": student,
        "version": about["version"],
        "functions": list(assignment.functions),
        "written": assignment.written,
    }
    for cell in notebook["cells"]:
        stub = STUB if cell["cell_type"] == "code" else ANSWER
        source = SOLUTION.sub(lambda match, stub=stub: match[1] + stub, cell["source"])
        source = HIDDEN.sub("", source)
        if "given" in cell["metadata"].get("tags", ()):
            source = assignment.with_constants(source, constants)
        cell["source"] = re.sub(r"\n{3,}", "\n\n\n", source).strip("\n")
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k in ("nbgrader", "tags")}
        cell.pop("attachments", None)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def release(assignment: Assignment, out: Path, students: Sequence[str] = (), key: str = "") -> list[Path]:
    """Write the students' versions into `out`, and all of them into one zip.

    Args:
        students: one variant each, in OUT/STUDENT/NAME.ipynb; without any: one version for all, OUT/NAME.ipynb.

    Returns:
        The files; the zip is the last.

    Raises:
        NotebookError: a file would take the place of the assignment itself.
    """
    name = f"{assignment.name}.ipynb"
    places = {student: out / student / name for student in students} or {ANYONE: out / name}
    for student, place in places.items():
        assignment.write_elsewhere(student_version(assignment, student, key), place)
    packed = out / f"{assignment.name}.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for place in places.values():
            archive.write(place, place.relative_to(out))
    return [*places.values(), packed]
