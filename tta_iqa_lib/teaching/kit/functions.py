"""A student's functions, found by their names wherever in the notebook they stand (all chapters).

The code is read, not run. Of a notebook that has been moved, merged, doubled or retyped, what a function needs is still there.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

CELL_MAGIC = re.compile(r"^%%(\w+).*\n?")
LONGEST = 500_000  # letters of a cell
RUNS_PYTHON = ("time", "timeit", "capture", "prun")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Found:
    """One function of a notebook.

    Attributes:
        code: Python that defines it, with the imports, helpers and constants that it uses; "" where there is none.
        problem: why there is none, or what was unusual.
        stub: it is there, and nobody has written into it.
    """

    code: str = ""
    problem: str = ""
    stub: bool = False


@dataclass
class Notebook:
    """The code of a notebook, statement by statement, in the order of the cells.

    Args:
        cells: (kind, source) of each cell; kind: "code", "markdown", "raw".
        given: code that stands above all, and that no cell overrides: the locked cells of the assignment.
    """

    cells: list[tuple[str, str]]
    given: str = ""
    statements: list[ast.stmt] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._fixed = ast.parse(self.given).body
        aside: list[ast.stmt] = []
        for number, (kind, source) in enumerate(self.cells, 1):
            statements, problem = _parse(source)
            if kind == "code":
                self.statements += statements
                self.unreadable += [f"cell {number}: {problem}"] if problem else []
            else:
                aside += [s for s in statements if _binds(s)]
        self._aside = aside

    def numbers(self, names: Iterable[str]) -> dict[str, Any]:
        """What the code cells themselves set these names to, where that is a plain value."""
        return {
            s.targets[0].id: s.value.value
            for s in self.statements
            if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name) and isinstance(s.value, ast.Constant)
            if s.targets[0].id in names
        }

    def find(self, name: str) -> Found:
        """The function of this name: the last one that is no stub; in a text cell where no code cell has it."""
        note = ""
        written = _defining(self.statements, name)
        if all(is_stub(s) for s in written) and any(not is_stub(s) for s in _defining(self._aside, name)):
            note, written = (
                f"`{name}` stands in a cell that is no code cell; it was taken all the same",
                _defining(self._aside, name),
            )
        if not written:
            return Found(problem=self._missing(name))
        done = [s for s in written if not is_stub(s)]
        if not done:
            return Found(stub=True, problem="fill in the function")
        try:
            return Found(self._with_needs(done[-1]), note)
        except RecursionError:
            return Found(problem=f"Python cannot read `{name}`, or what it needs: it is nested too deeply")

    def _missing(self, name: str) -> str:
        names = [s.name for s in self.statements if isinstance(s, DEFINITIONS)]
        near = get_close_matches(name, names, 1, 0.8)
        hint = f"; there is a function `{near[0]}`: was it renamed?" if near else ""
        broken = f"; Python cannot read {self.unreadable[0]}" if self.unreadable and not near else ""
        return f"there is no function `{name}` in the notebook{hint}{broken}"

    def _with_needs(self, target: ast.stmt) -> str:
        """Its code, under that of all it uses, directly or not."""
        everything = [*self.statements, *(s for s in self._aside if s not in self.statements)]
        fixed = {name for s in self._fixed for name in _binds(s)}
        stars = [s for s in everything if isinstance(s, ast.ImportFrom) and s.names[0].name == "*"]
        chosen, waiting = [target, *stars], [target]
        while waiting:
            user = waiting.pop()
            for name in _uses(user) - fixed:
                if not any(name in _binds(s) for s in chosen):
                    needs = _giving(name, everything, everything.index(user))
                    chosen += needs
                    waiting += needs
        order = sorted(chosen, key=lambda s: (not isinstance(s, ast.Import | ast.ImportFrom), everything.index(s)))
        return "\n".join([self.given, *map(ast.unparse, order)])


def _giving(name: str, statements: list[ast.stmt], place: int) -> list[ast.stmt]:
    """What gives a name its value in this place: the last statement above it, else the first below; stubs do not count.

    Two imports may share a name (`import scipy.stats`, `import scipy.special`), and both count. Of the names that Python knows by
    itself only definitions and imports do: `sum = 3` in some other cell is a slip.
    """
    giving = [s for s in statements if name in _binds(s) and not is_stub(s)]
    if hasattr(builtins, name):
        imports_too = (*DEFINITIONS, ast.Import, ast.ImportFrom)
        giving = list(filter(lambda s: isinstance(s, imports_too), giving))
    above = [s for i, s in enumerate(statements) if i < place and s in giving]
    needs = above[-1:] or giving[:1]
    if needs and isinstance(needs[0], ast.Import):
        return [s for s in giving if isinstance(s, ast.Import)]
    return needs


def is_stub(statement: ast.stmt) -> bool:
    """A function that nobody has written: a docstring, `...`, `pass`, `raise NotImplementedError`, and no more."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.Raise) and "NotImplementedError" in ast.unparse(s))
        or (isinstance(s, ast.Return) and (s.value is None or ast.unparse(s) == "return None"))
        for s in statement.body
    )


def _parse(source: str) -> tuple[list[ast.stmt], str]:
    """The statements of a cell, without the commands of Jupyter; or none, and where Python stops."""
    if len(source) > LONGEST:
        return [], f"it has more than {LONGEST:,} letters"
    magic = CELL_MAGIC.match(source)
    if magic and magic[1] not in RUNS_PYTHON:
        return [], ""
    source = CELL_MAGIC.sub("\n", source, count=1)
    fence = re.search(r"^```(?:python)?\n(.*?)^```", source, re.DOTALL | re.MULTILINE)
    source = fence[1] if fence else source
    source = re.sub(r"^([ \t]*)[%!?].*$|^([ \t]*)[\w.]+\?{1,2}$", r"\1\2pass", source, flags=re.MULTILINE)
    try:
        return ast.parse(source).body, ""
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [], f"line {getattr(error, 'lineno', None) or 1}"


def _binds(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module gives a value to."""
    if isinstance(statement, DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Expr | ast.AugAssign):
        return set()
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= _binds(node)
    return names


def _uses(statement: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _defining(statements: list[ast.stmt], name: str) -> list[ast.stmt]:
    """Its definitions: `def`, or a name for a lambda or for another function."""
    return [
        s
        for s in statements
        if (isinstance(s, ast.FunctionDef) and s.name == name)
        or (
            isinstance(s, ast.Assign)
            and name in _binds(s)
            and isinstance(s.value, ast.Lambda | ast.Name | ast.Attribute)
        )
    ]
