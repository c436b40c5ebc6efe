"""What library and book owe each other: exercises and their checkers, names and equations and their chapters."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from workshop import ROOT
from workshop.chapters import CHAPTERS, read
from workshop.places import places

import tta_iqa_lib
from tta_iqa_lib.teaching.course import check


@pytest.mark.parametrize("number", CHAPTERS, ids=lambda n: f"chapter {n}")
def test_every_exercise_has_a_stub_hints_and_a_solution_that_is_checked(number):
    """At least three a chapter; the stub is not attempted, and the solution is run against its checker."""
    exercises = sorted(name for name in vars(check) if name.startswith(f"ex{number:02d}_"))
    assert len(exercises) >= 3
    cells = read(CHAPTERS[number]).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for name in exercises:
        title = f"## Exercise {number}.{name[-1]}"
        assert prose.count(title) == 1, title
        stubs = [cell for cell in cells if re.search(rf"^check\.{name}\(", cell.source, re.MULTILINE)]
        assert len(stubs) == 1 and "# your code here" in stubs[0].source
        assert "not attempted" in str(stubs[0].outputs)
        solved = [c for c in cells if re.search(rf'assert check\.{name}\(.*\)\.status == "passed"', c.source)]
        assert len(solved) == 1 and "hide-input" in solved[0].metadata.tags
    assert prose.count("<summary>Hint 1</summary>") == prose.count("<summary>Hint 2</summary>") == len(exercises)
    assert len(re.findall(r"\*\*Difficulty\*\* [●○]{3} · \*\*about \d+ minutes\*\*", prose)) == len(exercises)


def test_each_public_name_is_explained_in_a_chapter():
    """The map on the API page is complete both ways: each name has its chapter, the chapter has name and equation."""
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| \[(\d+)\]\((\w+)\) \| (?:\{eq\}`([\w-]+)`|–) \|$", page, re.MULTILINE)
    names = [name for name, *_ in rows]
    rooms = {p.name.removesuffix(".py") for p in Path(tta_iqa_lib.__file__).parent.iterdir()}
    assert sorted(names) == sorted(set(tta_iqa_lib.__all__) - rooms)
    for name, number, stem, equation in rows:
        source = "\n".join(cell.source for cell in read(CHAPTERS[int(number)]).cells)
        assert CHAPTERS[int(number)].stem == stem
        assert re.search(rf"\b{name}\b", source), f"chapter {number} does not mention {name}"
        assert not equation or f":label: {equation}\n" in source, f"chapter {number} has no equation {equation}"


# Equations that the library has no name for: what is taught with them, the chapter or the reader computes.
WITHOUT_A_NAME = {
    "eq-mos": "opinions are averaged by those who collect them",
    "eq-standard-error": "likewise",
    "eq-observer": "a simulation of the chapter's own",
    "eq-ceiling": "what it says of a panel, nobody can compute without one",
    "eq-psnr": "shown as the metric not to use",
    "eq-three-parts": "exercise 4.2",
    "eq-weight": "a derivative, which autograd takes",
    "eq-negatives": "likewise",
    "eq-merge": "exercise 11.1",
}


def documented() -> list:
    """Every public class and function on the library's page that has a docstring."""
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    modules = [importlib.import_module(name) for name in re.findall(r"automodule:: (tta_iqa_lib[\w.]*)", page)]
    things = [thing for module in modules for name, thing in vars(module).items() if not name.startswith("_")]
    ours = [t for t in things if inspect.isclass(t) or inspect.isfunction(t)]
    return [t for t in dict.fromkeys(ours) if t.__module__.startswith("tta_iqa_lib") and t.__doc__]


def equations() -> dict[str, int]:
    """The chapter of each equation that has a label."""
    found = {
        n: re.findall(r":label: (eq-[\w-]+)", "\n".join(c.source for c in read(path).cells))
        for n, path in CHAPTERS.items()
    }
    return {label: number for number, labels in found.items() for label in labels}


def test_every_symbol_names_its_chapter_and_every_equation_its_symbol():
    """From symbol to chapter and equation, and back; what the page's table says is what the docstrings say."""
    things, where = documented(), equations()
    assert len(things) > 150 and len(where) > 30
    named = {}
    for thing in things:
        chapters, labels = places(thing)
        assert chapters and set(chapters) <= set(CHAPTERS), f"{thing.__qualname__} names no chapter"
        assert all(where.get(label) in chapters for label in labels), (
            f"{thing.__qualname__}: {labels} are not in {chapters}"
        )
        named |= {label: thing.__qualname__ for label in labels}
    assert sorted({*named, *WITHOUT_A_NAME}) == sorted(where) and not {*named} & {*WITHOUT_A_NAME}
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for name, number, label in re.findall(r"^\| `(\w+)` \| \[(\d+)\]\(\w+\) \| (?:\{eq\}`([\w-]+)`|–) \|$", page, re.M):
        chapters, labels = places(getattr(tta_iqa_lib, name))
        assert int(number) in chapters and (label in labels if label else not labels), f"{name}: {chapters}, {labels}"
