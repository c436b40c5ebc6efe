"""A Sphinx extension: on the library's page each class and function names the chapter and the equations that explain it.

They stand in its docstring, as "(chapter 5, eq-shrink)"; where it names no chapter, those of its module's docstring count.
"""

import re
import sys
from pathlib import Path

CHAPTERS = {
    int(path.name[:2]): path.stem
    for path in Path(__file__).parents[1].glob("[0-9][0-9]_*.ipynb")
}
NUMBERS = re.compile(r"\b[Cc]hapters? (\d+(?:(?:, | and )\d+)*)")
EQUATION = re.compile(r"\beq-[\w-]*\w")
ALL = re.compile(r"\b[Aa]ll chapters\b")


def places(thing) -> tuple[list[int], list[str]]:
    """The chapters and the labels of the equations that a class or function names."""
    own, module = thing.__doc__ or "", sys.modules[thing.__module__].__doc__ or ""
    chapters = _chapters(own) or _chapters(module)
    return chapters, list(dict.fromkeys(EQUATION.findall(own)))


def _chapters(text: str) -> list[int]:
    if ALL.search(text):
        return sorted(CHAPTERS)
    return sorted(
        {
            int(number)
            for group in NUMBERS.findall(text)
            for number in re.findall(r"\d+", group)
        }
    )


def name(app, what: str, full_name: str, thing, options, lines: list[str]) -> None:
    """Link the chapters and equations of a docstring; a class or function that names no chapter gets those of its module."""
    if what in ("class", "exception", "function") and not _chapters(
        thing.__doc__ or ""
    ):
        chapters, _ = places(thing)
        if chapters != sorted(CHAPTERS):  # on each would say nothing
            lines += [
                "",
                f"Chapter{'s' * (len(chapters) > 1)} {' and '.join(map(str, chapters))}.",
                "",
            ]
    lines[:] = [
        NUMBERS.sub(_links, EQUATION.sub(r"equation :eq:`\g<0>`", line))
        for line in lines
    ]


def _links(found: re.Match) -> str:
    return re.sub(
        r"\d+",
        lambda number: f":doc:`{number[0]} </book/{CHAPTERS[int(number[0])]}>`",
        found[0],
    )


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", name)
    return {"parallel_read_safe": True}
