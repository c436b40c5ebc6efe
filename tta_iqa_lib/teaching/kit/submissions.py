"""Which file is whose: a folder of handed-in notebooks, in whatever way a learning platform packs it (all chapters)."""

from __future__ import annotations

import re
from pathlib import Path

from .release import ANYONE
from .source import ABOUT, Assignment, NotebookError, read_notebook

BACKUPS = "backups"  # the copies that `validate` keeps


def find_submissions(folder: Path, assignment: Assignment) -> dict[str, Path]:
    """The notebook of each student, by name.

    SUBMISSIONS/STUDENT/…/any.ipynb is STUDENT's. A notebook that lies in SUBMISSIONS itself belongs to whom it was released
    to, if it still says so, else to the name of its file. Of several of one student the last-written counts; what was released
    as another assignment does not.

    Raises:
        NotebookError: no such folder, or no notebook in it.
    """
    if not folder.is_dir():
        raise NotebookError(f"no folder of submissions: '{folder}'")
    found: dict[str, list[Path]] = {}
    loose: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") or part == BACKUPS for part in inside.parts):
            continue
        about = released_as(path)
        if about.get("name", assignment.name) != assignment.name:
            continue
        if len(inside.parts) > 1:
            found.setdefault(inside.parts[0], []).append(path)
        else:
            loose.setdefault(str(about.get("student", ANYONE)), []).append(path)
    for student, paths in loose.items():
        for path in paths:  # two that were released to one student: at least one of them is somebody else's
            sure = student != ANYONE and len(paths) == 1
            found.setdefault(_file_name(student) if sure else _stem(path, assignment.name), []).append(path)
    if not found:
        raise NotebookError(f"no notebook of {assignment.name} in '{folder}'")
    return {student: max(paths, key=lambda p: p.stat().st_mtime) for student, paths in sorted(found.items())}


def _stem(path: Path, name: str) -> str:
    stem = path.stem
    for joint in "_-. ":
        stem = stem.removesuffix(joint + name).removeprefix(name + joint)
    return stem


def _file_name(student: str) -> str:
    """A name out of a file that anybody may have written, as the name of a file."""
    return re.sub(r"[^\w.@+-]+", "_", student).lstrip(".") or "nameless"


def released_as(path: Path) -> dict:
    """What the release wrote into the notebook's metadata; {} if that is gone."""
    try:
        about = read_notebook(path)["metadata"].get(ABOUT, {})
    except NotebookError:
        return {}
    return about if isinstance(about, dict) else {}


def written_answer(assignment: Assignment, item: str, cells: list[tuple[str, str]]) -> str:
    """What stands in a notebook between a written question and what follows it, however the cells are cut."""
    source = assignment.notebook["cells"]
    place = next(i for i, c in enumerate(source) if c["metadata"].get("nbgrader", {}).get("grade_id") == item)

    def edge(cell: dict, last: bool) -> str:
        return [line for line in cell["source"].splitlines() if line.strip()][-1 if last else 0]

    text = "\n\n".join(text for _, text in cells)
    question = edge(source[place - 1], last=True)
    begin = text.find(question)
    if begin < 0:
        return ""
    begin += len(question)
    following = source[place + 1 : place + 2]
    end = text.find(edge(following[0], last=False), begin) if following else -1
    return text[begin : end if end >= 0 else None].strip()
