"""An assignment as its instructor keeps it: one notebook with solutions, hidden tests, points and variants (all chapters).

The marks in the cells are nbgrader's, so that a department's nbgrader takes the same file.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .functions import Notebook

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS\n(.*?)^[ \t]*### END HIDDEN TESTS[ \t]*$", re.DOTALL | re.MULTILINE)
MARKS = re.compile(r"###\s*(BEGIN|END)|#\s*(BEGIN|END)\s+(SOLUTION|HIDDEN)")
ABOUT = "tta_iqa_course"  # of a notebook's metadata


class NotebookError(ValueError):
    """A file that is no notebook, or no assignment. The message names it."""


@dataclass(frozen=True)
class Item:
    """One part of an assignment that has points of its own.

    Attributes:
        name: its grade_id.
        points: for all of it.
        test: Python, to run with the student's functions; "" for a written question.
        functions: those of the assignment that the test calls.
        rubric: of a written question, lines (points, what is worth them).
    """

    name: str
    points: float
    test: str = ""
    functions: tuple[str, ...] = ()
    rubric: tuple[tuple[float, str], ...] = ()

    def parsed(self) -> tuple[list[ast.stmt], ast.Call]:
        """The statements of the test, and the call of `mark` in which it ends.

        Raises:
            NotebookError: it ends in something else.
        """
        body = ast.parse(self.test).body
        call = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "mark"):
            raise NotebookError(f"the tests of {self.name} must end in `mark(…)`")
        return body[:-1], call


def read_notebook(path: Path) -> dict:
    """A notebook of format 4, as JSON; the sources of its cells are strings.

    Raises:
        NotebookError: it is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\\ud" in text.lower():  # halves of letters, which no file can hold
            text = json.dumps(json.loads(text), ensure_ascii=False)
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            source = cell.get("source", "")
            cell["source"] = source if isinstance(source, str) else "".join(source)
            cell["cell_type"] = str(cell.get("cell_type", "raw"))
            if not isinstance(cell.setdefault("metadata", {}), dict):
                cell["metadata"] = {}
    except OSError as error:
        raise NotebookError(f"'{path}' cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NotebookError(f"'{path}' is not a Jupyter notebook (format 4)") from None
    if not isinstance(notebook.setdefault("metadata", {}), dict):
        notebook["metadata"] = {}
    return notebook


def write_notebook(notebook: dict, path: Path) -> None:
    """As Jupyter writes it: sources in lines, one space of indentation."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _beginning(cell: dict) -> str:
    return f"a cell that begins {cell['source'][:40]!r}"


def cells_of(notebook: dict) -> list[tuple[str, str]]:
    """(kind, source) of each cell."""
    return [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]


@dataclass(frozen=True)
class Assignment:
    """An instructor's notebook.

    Attributes:
        path: of the file.
        notebook: its JSON.
    """

    path: Path
    notebook: dict

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """Raises: NotebookError: no notebook, no assignment, or marks that do not belong together."""
        notebook = read_notebook(path)
        if "name" not in notebook["metadata"].get(ABOUT, {}):
            raise NotebookError(f"'{path}' is no instructor's notebook: its metadata lack '{ABOUT}'")
        found = cls(path, notebook)
        for cell in notebook["cells"]:
            if MARKS.search(HIDDEN.sub("", SOLUTION.sub("", cell["source"]))):
                raise NotebookError(f"'{path}': a BEGIN or END without its partner in {_beginning(cell)}")
            about = cell["metadata"].get("nbgrader", {})
            if about.get("solution") and not SOLUTION.search(cell["source"]):  # it would be handed out as it is
                raise NotebookError(f"'{path}': a solution without '### BEGIN SOLUTION' in {_beginning(cell)}")
            for key in ("grade_id", "points"):
                if about.get("grade") and key not in about:
                    raise NotebookError(f"'{path}': a graded cell without {key!r} in its metadata, {_beginning(cell)}")
        for name, values in found.about.get("variants", {}).items():
            if not re.search(rf"^{name} = ", found.given({}), re.MULTILINE):
                raise NotebookError(f"'{path}': there are variants of {name}, and no cell tagged 'given' sets it")
            if not values:
                raise NotebookError(f"'{path}': the list of variants of {name} is empty")
        names = [item.name for item in found.items]
        if len(set(names)) < len(names):
            raise NotebookError(f"'{path}': two items are called {max(names, key=names.count)!r}")
        for slip in filter(None, map(found._slip, found.items)):
            raise NotebookError(f"'{path}': {slip}")
        return found

    def _slip(self, item: Item) -> str:
        """What would spoil everybody's grade in this item; "" if nothing does."""
        if not item.test:
            return ""
        try:
            _, call = item.parsed()
        except NotebookError as error:
            return str(error)
        others = [ast.unparse(a) for a in call.args[1:] if not isinstance(a, ast.Name) or a.id not in item.functions]
        if others or len(call.args) < 2:
            got = others[0] if others else "none"
            return f"`mark` of {item.name} takes functions that have a solution in the assignment; got {got}"
        (given,) = [k.value for k in call.keywords if k.arg == "points"] or [None]
        if isinstance(given, ast.Constant) and given.value != item.points:
            return f"{item.name} has {item.points:g} points in its metadata, and {given.value} in its `mark`"
        return ""

    def _parsed(self, cell: dict) -> ast.Module:
        try:
            return ast.parse(cell["source"])
        except SyntaxError as error:
            line = f"line {error.lineno} of {_beginning(cell)}"
            raise NotebookError(f"'{self.path}': Python cannot read {line}: {error.msg}") from None

    @property
    def about(self) -> dict:
        return self.notebook["metadata"][ABOUT]

    @property
    def name(self) -> str:
        return self.about["name"]

    def write_elsewhere(self, notebook: dict, place: Path) -> None:
        """Write a notebook made from this one, and never over it.

        Raises:
            NotebookError: the place is this one's.
        """
        if place.resolve() == self.path.resolve():
            raise NotebookError(f"'{place}' is the assignment itself; name another folder")
        write_notebook(notebook, place)

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """What students write, that is every function defined in a cell with a solution."""
        found: list[str] = []
        for cell in self.notebook["cells"]:
            if cell["cell_type"] == "code" and SOLUTION.search(cell["source"]):
                found += [s.name for s in self._parsed(cell).body if isinstance(s, ast.FunctionDef)]
        return tuple(dict.fromkeys(found))

    @cached_property
    def items(self) -> tuple[Item, ...]:
        found = []
        for cell in self.notebook["cells"]:
            about = cell["metadata"].get("nbgrader", {})
            if not about.get("grade"):
                continue
            if cell["cell_type"] == "code":
                used = {n.id for n in ast.walk(self._parsed(cell)) if isinstance(n, ast.Name)}
                functions = tuple(name for name in self.functions if name in used)
                found.append(Item(about["grade_id"], about["points"], cell["source"], functions))
            else:
                rubric = tuple((points, text) for points, text in cell["metadata"].get("rubric", []))
                found.append(Item(about["grade_id"], about["points"], rubric=rubric))
        return tuple(found)

    @cached_property
    def written(self) -> dict[str, list[str]]:
        """The last line of each written question, below which the answer stands, and the beginning of what follows it, or "".

        That goes to its first line with a letter in it. (A rule, ---, may stand in an answer, too.)
        """
        cells, places = [*self.notebook["cells"], {"source": ""}], {}
        for before, cell, after in zip(cells, cells[1:], cells[2:], strict=False):
            about = cell["metadata"].get("nbgrader", {})
            if about.get("grade") and cell["cell_type"] != "code":
                following = re.match(r"\s*((?:.*\n)*?.*[^\W\d_].*)", after["source"])
                places[about["grade_id"]] = [
                    before["source"].rstrip().rpartition("\n")[2],
                    following[1] if following else "",
                ]
        return places

    def constants(self, student: str, key: str = "") -> dict[str, Any]:
        """The numbers of a student's variant. Who has not the key cannot tell them beforehand."""
        student, chosen = unicodedata.normalize("NFC", student), {}  # a Mac takes a name's accents apart
        for name, values in self.about.get("variants", {}).items():
            digest = hashlib.sha256("\0".join([key, self.name, student, name]).encode()).digest()
            chosen[name] = values[int.from_bytes(digest[:8], "big") % len(values)]
        return chosen

    def with_constants(self, source: str, constants: dict[str, Any]) -> str:
        """A cell with the numbers of a variant in place of its own."""
        for name, value in constants.items():
            line = f"{name} = {value!r}"
            source = re.sub(rf"^{name} = [^#\n]*?(?=\s*(#|$))", lambda _, line=line: line, source, flags=re.MULTILINE)
        return source

    def given(self, constants: dict[str, Any]) -> str:
        """The code that every function of the assignment may use: the cells tagged "given"."""
        cells = [c for c in self.notebook["cells"] if "given" in c["metadata"].get("tags", ())]
        return "\n".join(self.with_constants(c["source"], constants) for c in cells)

    def solved(self) -> Notebook:
        """The instructor's own answers."""
        return Notebook(cells_of(self.notebook), self.given({}))
