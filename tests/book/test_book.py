"""What library and book owe each other: exercises and their checkers, names and equations and their chapters."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from workshop import ROOT
from workshop.chapters import CHAPTERS, read
from workshop.places import EXPLAINED, explain, places, table

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


def test_each_public_name_stands_on_the_library_s_page_and_in_its_chapters():
    rows = {row.split("`")[1]: row for row in table()[2:]}
    rooms = {p.name.removesuffix(".py") for p in Path(tta_iqa_lib.__file__).parent.iterdir()}
    assert sorted(rows) == sorted(set(tta_iqa_lib.__all__) - rooms) and len(rows) > 30
    assert "```{explained}" in (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for public, row in rows.items():
        chapters, labels = places(getattr(tta_iqa_lib, public))
        assert chapters and all(f"[{n}]({CHAPTERS[n].stem})" in row for n in chapters)
        assert row.count("{eq}") == len(labels) and all(f"{{eq}}`{label}`" in row for label in labels)
        for number in chapters:
            source = "\n".join(cell.source for cell in read(CHAPTERS[number]).cells)
            assert re.search(rf"\b{public}\b", source), f"chapter {number} does not mention {public}"


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
    "eq-merge": "exercise 13.1",
}


def listed() -> list[str]:
    """The modules on the library's page."""
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"automodule:: (tta_iqa_lib[\w.]*)", page)


def documented() -> list:
    """Every public class and function on the library's page that has a docstring."""
    modules = [importlib.import_module(name) for name in listed()]
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


def test_every_symbol_has_its_chapter_and_every_equation_its_symbol():
    """From symbol to chapter and equation, and back."""
    things, where = documented(), equations()
    assert len(things) > 150 and len(where) > 30
    named = {}
    for thing in things:
        chapters, labels = places(thing)
        assert set(chapters) <= set(CHAPTERS), thing.__qualname__
        assert all(where.get(label) in chapters for label in labels), f"{thing.__qualname__}: {labels}, {chapters}"
        named |= {label: thing.__qualname__ for label in labels}
    assert sorted({*named, *WITHOUT_A_NAME}) == sorted(where) and not {*named} & {*WITHOUT_A_NAME}


def test_the_table_has_no_row_for_what_is_not_on_the_page():
    modules = set(listed())
    for row in (f"tta_iqa_lib.{row}" for row in EXPLAINED):
        module, _, symbol = row.rpartition(".")
        assert row in modules or (module in modules and hasattr(importlib.import_module(module), symbol)), row


def test_chapters_and_equations_come_behind_the_first_paragraph_of_a_docstring():
    lines = ["What it is.", "", "More of it."]
    explain(None, "class", "", tta_iqa_lib.Blend, None, lines)
    said = "Chapter :doc:`5 </book/05_batchnorm>` and equation :eq:`eq-mixture`."
    assert [line for line in lines if line] == ["What it is.", said, "More of it."] and lines[1] == lines[3] == ""
    two = ["What it is."]
    explain(None, "class", "", tta_iqa_lib.Anchor, None, two)
    assert two[2] == "Chapters :doc:`8 </book/08_loop>` and :doc:`10 </book/10_when_not>`."
