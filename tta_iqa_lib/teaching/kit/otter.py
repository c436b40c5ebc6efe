"""The same assignment in otter-grader's form: the notebook that `otter assign` takes (all chapters).

To otter a test is passed or not. So an item that can be half right becomes four tests, each of a quarter of its points.
"""

from __future__ import annotations

import ast
import copy
import json

from .release import ANSWER, STUB
from .source import ABOUT, SOLUTION, Assignment, Item

CONFIG = {  # students need no otter: no cell of theirs calls it
    "init_cell": False,
    "strip_solutions_from_all_cells": True,
    "tests": {"ok_format": False},
}


def otter_version(assignment: Assignment) -> dict:
    """The notebook for `otter assign`, JSON. It holds solutions and hidden tests, and the numbers of the source: one variant."""
    notebook = copy.deepcopy(assignment.notebook)
    about = assignment.about
    notebook["metadata"][ABOUT] = {
        "name": about["name"],
        "version": about["version"],
        "functions": list(assignment.functions),
    }
    items, given = {item.name: item for item in assignment.items}, assignment.given({})
    cells = [_raw("ASSIGNMENT CONFIG", CONFIG)]
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name in items:
            cells += _question(items[name], cell, given)
        else:
            cells.append(_cell(cell["cell_type"], _marked(cell["source"]), cell["metadata"].get("tags")))
    for number, cell in enumerate(cells):
        cell["id"] = f"c{number:03}"
    return notebook | {"cells": cells, "nbformat_minor": 5}


def _question(item: Item, cell: dict, given: str) -> list[dict]:
    if not item.test:
        solution = SOLUTION.search(cell["source"])
        answer = "\n".join(solution[0].splitlines()[1:-1]) if solution else cell["source"]
        inside = [
            _raw("BEGIN PROMPT"),
            _cell("markdown", ANSWER),
            _raw("END PROMPT"),
            _raw("BEGIN SOLUTION"),
            _cell("markdown", answer),
            _raw("END SOLUTION"),
        ]
        about: dict = {"name": item.name, "manual": True, "points": item.points}
    else:
        tests = _tests(item, given)
        inside = [
            _raw("BEGIN TESTS"),
            *(_cell("code", f"# HIDDEN\n{test}") for test in tests),
            _raw("END TESTS"),
        ]
        about = {"name": item.name, "check_cell": False, "points": [item.points / len(tests)] * len(tests)}
    return [_raw("BEGIN QUESTION", about), *inside, _raw("END QUESTION")]


def _tests(item: Item, given: str) -> list[str]:
    """One function for each step: it takes the student's functions, and fails where less of the points is earned."""
    body, call = item.parsed()
    body = ast.parse(given).body + body
    parts = any(isinstance(n, ast.Call) and ast.unparse(n.func) == "Partly" for n in ast.walk(ast.Module(body, [])))
    steps = 4 if parts else 1
    found = []
    for step in range(1, steps + 1):
        (function,) = ast.parse(f"def {item.name}_{step}({', '.join(item.functions)}): ...").body
        assert isinstance(function, ast.FunctionDef)
        verdict = f"assert earned.points >= {step / steps} * earned.of, earned.message"
        function.body = [*body, *ast.parse(f"earned = {ast.unparse(call)}\n{verdict}").body]
        found.append(ast.unparse(function))
    return found


def _marked(source: str) -> str:
    """A cell with otter's marks around a solution instead of ours, and our stub for the students."""

    def mark(match) -> str:
        solution = match[0].replace("### BEGIN SOLUTION", "# BEGIN SOLUTION NO PROMPT")
        stub = f'{match[1]}""" # BEGIN PROMPT\n{match[1]}{STUB}\n{match[1]}"""; # END PROMPT'
        return f"{solution.replace('### END SOLUTION', '# END SOLUTION')}\n{stub}"

    return SOLUTION.sub(mark, source)


def _raw(mark: str, about: dict | None = None) -> dict:
    """What otter reads: a raw cell with a mark, and YAML below it, of which JSON is a part."""
    return _cell("raw", f"# {mark}" + "".join(f"\n{k}: {json.dumps(v)}" for k, v in (about or {}).items()))


def _cell(kind: str, source: str, tags: list[str] | None = None) -> dict:
    outputs = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {"tags": tags} if tags else {}, "source": source, **outputs}
