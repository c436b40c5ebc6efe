"""A Sphinx extension: on the library's page each class and function names the chapters and equations that explain it.

They stand in `book/explained.toml`, and nowhere else.
"""

import importlib
import tomllib
from inspect import ismodule
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

BOOK = Path(__file__).parents[1]
CHAPTERS = {int(path.name[:2]): path.stem for path in BOOK.glob("[0-9][0-9]_*.ipynb")}
EXPLAINED = tomllib.loads((BOOK / "explained.toml").read_text(encoding="utf-8"))


def places(thing) -> tuple[list[int], list[str]]:
    """The chapters and the labels of the equations that explain a module, a class or a function of the library.

    Raises:
        KeyError: neither it nor its module is in the table.
    """
    module = getattr(thing, "__module__", None) or thing.__name__
    module = module.removeprefix("tta_iqa_lib.")
    row = EXPLAINED.get(f"{module}.{getattr(thing, '__qualname__', '')}")
    row = EXPLAINED[module] if row is None else row
    chapters, equations = (
        [part for part in row if isinstance(part, kind)] for kind in (int, str)
    )
    return chapters, equations


def explain(app, what: str, full_name: str, thing, options, lines: list[str]) -> None:
    """Add chapters and equations to a docstring, behind its first paragraph."""
    if what in ("module", "class", "exception", "function"):
        chapters, equations = places(thing)
        if chapters:
            links = [f":doc:`{n} </book/{CHAPTERS[n]}>`" for n in chapters]
            links[0] = f"Chapter{'s' * (len(links) > 1)} {links[0]}"
            words = [*links, *(f"equation :eq:`{label}`" for label in equations)]
            end = lines.index("") if "" in lines else len(lines)
            lines[end:end] = ["", _listed(words) + ".", ""]


def _listed(words: list[str]) -> str:
    """One, two and three."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def table() -> list[str]:
    """The public names by chapter, as a table in Markdown."""
    library = importlib.import_module("tta_iqa_lib")
    names = {name: getattr(library, name) for name in library.__all__}
    found = [(places(it), name) for name, it in names.items() if not ismodule(it)]
    rows = ["| name | chapter | equation |", "|---|---|---|"]
    for (chapters, labels), name in sorted(found, key=lambda row: row[0][0]):
        links = ", ".join(f"[{n}]({CHAPTERS[n]})" for n in chapters)
        equations = ", ".join(f"{{eq}}`{label}`" for label in labels) or "–"
        rows.append(f"| `{name}` | {links} | {equations} |")
    return rows


class Explained(SphinxDirective):
    """`table()` on a page in Markdown."""

    def run(self) -> list[nodes.Node]:
        box = nodes.container()
        self.state.nested_parse(
            StringList(table(), "explained.toml"), self.content_offset, box
        )
        return box.children


def setup(app) -> dict:
    app.add_directive("explained", Explained)
    app.connect("autodoc-process-docstring", explain)
    return {"parallel_read_safe": True}
