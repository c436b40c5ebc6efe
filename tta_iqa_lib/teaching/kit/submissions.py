"""Which file is whose: a folder of handed-in notebooks, in whatever way a learning platform packs it (all chapters)."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

from .release import ANYONE
from .source import ABOUT, Assignment, NotebookError, cells_of, read_notebook

BACKUPS = "backups"  # the copies that `validate` keeps
PLATFORM = re.compile(r"_\d+_assignsubmission_(file|onlinetext)_?$")  # what Moodle adds to a student's name
NO_NAME = '/\\:*?"<>|'  # what the name of a folder cannot hold, on one system or another


def find_submissions(folder: Path, assignment: Assignment) -> dict[str, Path]:
    """The notebook of each student, by name.

    SUBMISSIONS/STUDENT/…/any.ipynb is STUDENT's. A notebook that lies in SUBMISSIONS itself belongs to whom it was released
    to, if it still says so, else to the name of its file. Of several of one student the last-written counts; what was released
    as another assignment does not, nor does a link, which could lead to anybody's work.

    Raises:
        NotebookError: no such folder, or no notebook in it.
    """
    return collect(folder, assignment)[0]


def collect(folder: Path, assignment: Assignment) -> tuple[dict[str, Path], list[str]]:
    """As `find_submissions`; and, for the instructor, what lies in the folder and is not graded."""
    if not folder.is_dir():
        raise NotebookError(f"no folder of submissions: '{folder}'")
    found: dict[str, list[Path]] = {}
    loose: dict[str, list[Path]] = {}
    odd: list[str] = []
    others: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") or part == BACKUPS for part in inside.parts) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()) or path.is_symlink():
            odd.append(f"'{inside}' is a link, which is not followed")
            continue
        about = released_as(path)
        if about.get("name", assignment.name) != assignment.name:
            others.setdefault(str(about["name"])[:80], []).append(inside)
        elif len(inside.parts) > 1:
            found.setdefault(composed(PLATFORM.sub("", inside.parts[0])), []).append(path)
        else:
            loose.setdefault(str(about.get("student", ANYONE)), []).append(path)
    for name, paths in others.items():
        those = f"'{paths[0]}' was" if len(paths) == 1 else f"{len(paths)} notebooks were"
        odd.append(f"{those} released as {name}")
    for student, paths in loose.items():
        for path in paths:  # two that were released to one student: at least one of them is somebody else's
            sure = student != ANYONE and len(paths) == 1
            name = _file_name(student) if sure else _stem(path, assignment.name)
            found.setdefault(composed(name), []).append(path)
    if not found:
        raise NotebookError(f"no notebook of {assignment.name} in '{folder}'")
    chosen = {student: max(paths, key=lambda p: p.stat().st_mtime) for student, paths in sorted(found.items())}
    for student, paths in found.items():
        if len(paths) > 1:
            odd.append(
                f"{student} has {len(paths)} notebooks; '{chosen[student].relative_to(folder)}' was written last"
            )
    for entry in sorted(folder.iterdir()):
        named = {path.relative_to(folder).parts[0] for paths in found.values() for path in paths}
        if entry.name not in named and not entry.name.startswith((".", "__MACOSX")) and entry.suffix != ".ipynb":
            odd.append(f"'{entry.name}' holds no notebook of {assignment.name}")
    return chosen, odd


def composed(name: str) -> str:
    """A name with its accents on their letters: some systems take them apart in the names of files."""
    return unicodedata.normalize("NFC", name)


def _stem(path: Path, name: str) -> str:
    joint, name = r"[-_. ]", re.escape(name)
    stem = re.sub(f"^{name}{joint}|{joint}{name}$", "", path.stem)
    return re.sub(f"{joint}{name}(?={joint})", "", stem)


def _file_name(student: str) -> str:
    """A name out of a file that anybody may have written, as the name of a file. One of a roster stays as it is."""
    safe = "".join(letter if letter.isprintable() and letter not in NO_NAME else "_" for letter in student)
    return safe.strip().lstrip(".")[:80] or "nameless"


def released_as(path: Path) -> dict:
    """What the release wrote into the notebook's metadata; {} if that is gone."""
    try:
        about = read_notebook(path)["metadata"].get(ABOUT, {})
    except NotebookError:
        return {}
    return about if isinstance(about, dict) else {}


def written_answer(item: str, places: list[str], notebook: dict) -> str:
    """What stands in a notebook between a written question and what follows it, however the cells are cut.

    Where nothing does: what stands in the cell that was made for the answer.

    Args:
        places: of `Assignment.written`.
    """
    (question, following), text = places, "\n\n".join(text for _, text in cells_of(notebook))
    begin = text.find(question) + len(question)
    end = re.compile(r"\s+".join(map(re.escape, following.split())) or "$").search(text, begin)
    answer = text[begin : end.start() if end else None].strip() if question in text else ""
    return answer or next((cell["source"].strip() for cell in notebook["cells"] if _id(cell) == item), "")


def _id(cell: dict) -> Any:
    about = cell["metadata"].get("nbgrader")
    return about.get("grade_id") if isinstance(about, dict) else None
