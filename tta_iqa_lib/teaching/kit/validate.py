"""What a student runs before handing in: is everything there, and do the examples pass? (all chapters)"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ..course.checker import Wrong
from .functions import Notebook
from .grade import remote_functions
from .marking import what_happened
from .release import ANSWER
from .sandbox import Stopped, StudentError
from .source import ABOUT, NotebookError, cells_of, read_notebook
from .submissions import BACKUPS, written_answer


def keep_copy(path: Path) -> tuple[Path, bool]:
    """Copy a notebook into the folder backups beside it, under the time of day; or the last copy and False, if it is the same."""
    folder = path.parent / BACKUPS
    last = max(folder.glob(f"{path.stem}-*.ipynb"), default=None)
    if last and last.read_bytes() == path.read_bytes():
        return last, False
    folder.mkdir(exist_ok=True)
    copy = folder / f"{path.stem}-{datetime.now():%Y-%m-%d-%H%M%S}.ipynb"
    shutil.copyfile(path, copy)
    return copy, True


def validate(path: Path) -> tuple[list[str], bool]:
    """What is missing in a student's notebook, line by line; and is it complete?

    Raises:
        NotebookError: the file is no notebook, or was never released as an assignment.
    """
    notebook = read_notebook(path)
    about = notebook["metadata"].get(ABOUT, {})
    names = about.get("functions") if isinstance(about, dict) else None
    if not names:
        raise NotebookError(
            f"'{path}' does not say which assignment it is: its metadata are gone. Copy your cells into a fresh one"
        )
    code = Notebook(cells_of(notebook))
    found = {name: code.find(name) for name in names}
    lines = [f"✗ Python cannot read {where}" for where in code.unreadable]
    lines += [f"{'○' if f.stub else '✗'} {name}: {f.problem}" for name, f in found.items() if not f.code]
    answers = {item: written_answer(item, places, notebook) for item, places in about.get("written", {}).items()}
    lines += [f"○ {item}: no answer" for item, answer in answers.items() if answer in ("", ANSWER)]
    complete = not lines
    examples = [
        c["source"]
        for c in notebook["cells"]
        if "examples" in c["metadata"].get("tags", ()) and c["cell_type"] == "code"
    ]
    if not examples:
        return [*lines, "✗ the cell with the examples is gone; the grader does not need it"], complete
    with remote_functions(found) as functions:
        said: list[str] = []
        given = [c["source"] for c in notebook["cells"] if "given" in c["metadata"].get("tags", ())]
        namespace = {"__name__": "__main__", "print": lambda *values: said.extend(map(str, values))}
        namespace |= {name: _telling(name, function) for name, function in functions.items()}
        try:
            exec("\n".join([*given, *examples]), namespace)
        except Wrong as wrong:
            said.append(f"✗ the examples stopped: {wrong}")
        except Exception as error:
            said.append(f"✗ the examples stopped with {type(error).__name__}: has a locked cell been changed?")
        complete = complete and not any(line.startswith(("✗", "○")) for line in said)
    return lines + [line for line in said if not line.startswith("○")], complete


def _telling(name: str, function: Callable) -> Callable:
    """What stops it is told to the student as a grader tells it: with the kind of the error, and the line."""

    def call(*arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except (StudentError, Stopped) as error:
            raise Wrong(what_happened(error)) from None

    call.__name__ = name  # which the examples show
    return call
