"""What happens to notebooks on their way to a grader, and what some students try.

`python tests/teaching/kit/mutilations.py` grades every mutilation of fifteen submissions, 300 notebooks, and says which got other
points than they should; the test takes a few of them.
"""

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from handed_in import NAMES, assignment, handed_in

from tta_iqa_lib.teaching.kit.grade import Grade, grade_all
from tta_iqa_lib.teaching.kit.source import ABOUT, Assignment, write_notebook
from tta_iqa_lib.teaching.kit.submissions import find_submissions
from tta_iqa_lib.teaching.kit.walls import Limits


@dataclass(frozen=True)
class Mutilation:
    """What is done to a notebook, and whether the attacked function still earns what it earned.

    `change(notebook, function, generator)` works on a copy; `harmless`: all points stay.
    """

    change: Callable[[dict, str, random.Random], None]
    harmless: bool = True


def code_cell(source: str) -> dict:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None, "id": "new"}


def holder(notebook: dict, function: str) -> dict:
    return next(c for c in notebook["cells"] if c["cell_type"] == "code" and f"def {function}(" in c["source"])


def deletes_the_rest(notebook, function, generator):
    notebook["cells"] = [c for c in notebook["cells"] if "def " in c["source"] or c["cell_type"] == "markdown"]


def deletes_a_function(notebook, function, generator):
    notebook["cells"].remove(holder(notebook, function))


def doubles(notebook, function, generator):
    notebook["cells"] = [copy.deepcopy(c) for cell in notebook["cells"] for c in (cell, cell)]


def retypes(notebook, function, generator):
    for cell in notebook["cells"]:
        cell["cell_type"] = {"code": generator.choice(["markdown", "raw"]), "markdown": "code"}[cell["cell_type"]]


def reorders(notebook, function, generator):
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    order = iter(generator.sample(code, len(code)))
    notebook["cells"] = [next(order) if c["cell_type"] == "code" else c for c in notebook["cells"]]


def renames(notebook, function, generator):
    for i, cell in enumerate(notebook["cells"]):
        cell["id"] = f"{generator.random()}"[2:10]
        cell["metadata"].setdefault("nbgrader", {})["grade_id"] = f"cell-{i % 3}"


def merges(notebook, function, generator):
    code = "\n".join(c["source"] for c in notebook["cells"] if c["cell_type"] == "code")
    text = "\n\n".join(c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown")
    notebook["cells"] = [notebook["cells"][0] | {"source": text}, code_cell(code)]


def clears_metadata(notebook, function, generator):
    notebook["metadata"] = {}
    for cell in notebook["cells"]:
        cell["metadata"] = {}


def is_older(notebook, function, generator):
    """A version before the numbers were one's own, with another example, another text and a function that was dropped."""
    notebook["metadata"][ABOUT] = {"name": notebook["metadata"][ABOUT]["name"], "version": "0"}
    for cell in notebook["cells"]:
        if "given" in cell["metadata"].get("tags", ()):
            cell["source"] = "import math\nimport torch\nimport numpy as np\nMARGIN = TEMPERATURE = LEVELS = 1.0"
        elif "examples" in cell["metadata"].get("tags", ()):
            cell["source"] = "assert dropped(1) == 1"
    notebook["cells"].insert(2, code_cell("def dropped(x):\n    return x"))


def comes_from_colab(notebook, function, generator):
    about = notebook["metadata"].pop(ABOUT)
    notebook["metadata"] |= {"colab": {"provenance": [], "toc_visible": True}, "accelerator": "GPU", ABOUT: about}
    notebook["nbformat_minor"] = 0
    for cell in notebook["cells"]:
        cell["metadata"] = {
            "id": cell.pop("id"),
            "colab": {"base_uri": "x"},
            "executionInfo": {"status": "ok", "user": {}},
        }
    notebook["cells"].insert(
        0, code_cell("#@title Set-up\n!pip install torch\n%cd /content\nfrom google.colab import drive")
    )


def breaks_a_cell(notebook, function, generator):
    notebook["cells"] += [
        code_cell("for i in range(3)\n  print(i"),
        code_cell("sum = max = len = list = 4\nmath = torch = None"),
    ]


def at_the_top(code: str) -> Callable:
    def change(notebook, function, generator):
        notebook["cells"].insert(generator.randrange(len(notebook["cells"])), code_cell(code))

    return change


def inside(code: str) -> Callable:
    """`code` runs whenever the function is called, before what it did."""

    def change(notebook, function, generator):
        cell = holder(notebook, function)
        wrapped = (
            f"_right = {function}\n\n\ndef _attack():\n{_indent(code)}\n\n\n"
            f"def {function}(*arguments):\n    found = _attack()\n    return _right(*arguments) if found is None else found"
        )
        cell["source"] = (
            cell["source"].replace(f"def {function}(", "def _original(")
            + "\n\n"
            + wrapped.replace(f"_right = {function}", "_right = _original")
        )

    return change


def _indent(code: str) -> str:
    return "\n".join("    " + line for line in code.strip("\n").splitlines())


PATCH = """
import torch, builtins
import tta_iqa_lib.teaching.course.checker as checker
import tta_iqa_lib.teaching.kit.marking as marking
checker.close = checker.near = torch.allclose = torch.equal = lambda *a, **k: True
marking.mark = lambda *a, points=9, **k: marking.Mark(points, points, 'passed')
builtins.AssertionError = Exception
return torch.zeros(3, 3, 3)
"""
WRITE = """
import glob, os
for folder in ('.', '..', FOLDER):
    for place in glob.glob(folder + '/**/*', recursive=True) + [folder + '/grades.csv', folder + '/.grades/me.json']:
        try:
            open(place, 'w').write('100 points')
        except OSError:
            pass
"""
READ = """
import os
seen = []
for folder in ('.', '..', FOLDER):
    try:
        for where, _, files in os.walk(folder, onerror=lambda e: None):
            seen += [open(os.path.join(where, f)).read() for f in files]
    except OSError:
        pass
return None if seen else 'nothing to copy from'
"""

MUTILATIONS = {
    "other cells deleted": Mutilation(deletes_the_rest),
    "a function deleted": Mutilation(deletes_a_function, harmless=False),
    "every cell doubled": Mutilation(doubles),
    "every cell retyped": Mutilation(retypes),
    "reordered": Mutilation(reorders),
    "cells renamed": Mutilation(renames),
    "merged into one": Mutilation(merges),
    "metadata cleared": Mutilation(clears_metadata),
    "an older version": Mutilation(is_older),
    "saved by Colab": Mutilation(comes_from_colab),
    "cells that break": Mutilation(breaks_a_cell),
    "endless at the top": Mutilation(at_the_top("while True:\n    pass")),
    "endless": Mutilation(inside("while True:\n    pass"), harmless=False),
    "100 MB of output": Mutilation(inside("for _ in range(100):\n    print('a' * 2**20)")),
    "50 GB of memory": Mutilation(inside("return bytearray(50 * 2**30)"), harmless=False),
    "a fork bomb": Mutilation(inside("import os\nwhile True:\n    os.fork()"), harmless=False),
    "exit()": Mutilation(inside("exit()"), harmless=False),
    "a monkeypatched checker": Mutilation(inside(PATCH), harmless=False),
    "writes to the grader's files": Mutilation(inside(WRITE)),
    "reads of other files": Mutilation(inside(READ), harmless=False),
}


def submissions(count: int) -> list[tuple[Assignment, dict[str, str]]]:
    """All right, all wrong in one way, all wrong in another … of each assignment in turn."""
    found = []
    for turn in range(count):
        name = NAMES[turn % len(NAMES)]
        wrong = import_module(name).WRONG
        start = turn // len(NAMES) * 2
        by_function = {f: [code for g, code, *_ in wrong if g == f] for f in dict.fromkeys(w[0] for w in wrong)}
        found.append((assignment(name), {f: c[(start - 1) % len(c)] for f, c in by_function.items()} if start else {}))
    return found


def mutilate(notebook: dict, name: str, function: str, folder: Path, seed: int = 0) -> dict:
    """A mutilated copy."""
    notebook = copy.deepcopy(notebook)
    MUTILATIONS[name].change(notebook, function, random.Random(seed))
    text = json.dumps(notebook).replace("FOLDER", json.dumps(str(folder))[1:-1].join(["'", "'"]))
    return json.loads(text)


def expected(source: Assignment, baseline: Grade, name: str, function: str) -> dict[str, float]:
    """Points by item: as without the mutilation, but for the items of an attacked function."""
    lost = {i.name for i in source.items if function in i.functions and not MUTILATIONS[name].harmless}
    return {k: 0 if k in lost else m.points for k, m in baseline.marks.items() if m}


def run(count: int, names: list[str], folder: Path, processes: int, limits: Limits) -> tuple[int, list[str]]:
    """Grade `count` submissions and their mutilations; how many notebooks, and what was graded wrongly."""
    wrong, graded = [], 0
    by_assignment: dict[str, list] = {}
    for number, (source, answers) in enumerate(submissions(count)):
        by_assignment.setdefault(source.name, []).append((number, source, answers))
    for name, group in by_assignment.items():
        source, place, out = group[0][1], folder / name / "in", folder / name / "out"
        cases = {}
        for number, _, answers in group:
            whole = handed_in(source, answers)
            write_notebook(whole, place / f"{number:02d}" / "x.ipynb")
            for m, mutilation in enumerate(names):
                function = source.functions[(number + m) % len(source.functions)]
                student = f"{number:02d}-{mutilation.replace(' ', '-')}"
                notebook = mutilate(whole, mutilation, function, folder, seed=number)
                write_notebook(notebook, place / student / "x.ipynb")
                cases[student] = (f"{number:02d}", mutilation, function)
        grades = {g.student: g for g in grade_all(source, find_submissions(place, source), out, "", processes, limits)}
        for student, (plain, mutilation, function) in cases.items():
            graded += 1
            found = {k: m.points for k, m in grades[student].marks.items() if m}
            right = expected(source, grades[plain], mutilation, function)
            if found != right:
                wrong.append(f"{name} {student} ({function}): {found}, not {right}; {grades[student].notes}")
    return graded, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submissions", type=int, default=15)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        graded, wrong = run(arguments.submissions, list(MUTILATIONS), Path(folder), arguments.processes, Limits())
    minutes = (time.perf_counter() - start) / 60
    print("\n".join(wrong))
    print(
        f"{graded} notebooks, {len(wrong)} graded wrongly, {minutes:.1f} minutes with {arguments.processes} processes"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
