"""No result is typed: numbers come from the run."""

import ast
import re
from pathlib import Path

import pytest

from workshop import ROOT
from workshop.chapters import PAGES, read

# A decimal like .47 or 0.935, or a percentage, that stands in a sentence. Settings are whole numbers, short decimals or code;
# the levels of intervals and tests are a convention, no result.
TYPED = re.compile(
    r"(?<![\w.])[-−+]?0?\.\d{2,}(?![\w%])|(?<![\w.])(?!(?:95|5|2\.5|97\.5)\s?%)\d+(?:\.\d+)?\s?(?:%|per cent)"
)


def sentences(source: str) -> str:
    """Markdown without code, formulas, links and HTML."""
    for pattern in (
        r"```.*?```",
        r"`[^`]*`",
        r"\$\$.*?\$\$",
        r"\$[^$]*\$",
        r"\]\([^)]*\)",
        r"<[^>]+>",
    ):
        source = re.sub(pattern, " ", source, flags=re.DOTALL)
    return source


def captions(source: str) -> list[str]:
    """What a code cell says below its players: the fixed parts of the caption."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    players = [
        call
        for call in calls
        if getattr(call.func, "attr", "") in ("Player", "Compare")
    ]
    parts = [node for call in players for node in ast.walk(call.args[-1])]
    return [
        node.value
        for node in parts
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def said(path: Path) -> list[tuple[str, str]]:
    """Everything that a page says in fixed words, with its place: prose, captions, text alternatives."""
    if path.suffix == ".md":
        return [(path.name, path.read_text(encoding="utf-8"))]
    texts = []
    for cell in read(path).cells:
        figure = cell.metadata.get("mystnb", {})
        found = [
            figure.get("figure", {}).get("caption", ""),
            figure.get("image", {}).get("alt", ""),
        ]
        found += (
            [cell.source] if cell.cell_type == "markdown" else captions(cell.source)
        )
        texts += [(cell.id, text) for text in found]
    return texts


MEASURED = {"execution.md"}  # written by the run
WRITTEN = [
    p
    for p in [*sorted((ROOT / "book").glob("*.md")), ROOT / "README.md"]
    if p.name not in MEASURED
]


@pytest.mark.parametrize("path", [*PAGES, *WRITTEN], ids=lambda path: path.stem)
def test_no_result_is_typed_into_the_text(path):
    """Results in the text come from cells that run; a hypothetical number is marked by 'say' or 'suppose' in its line."""
    typed = []
    for place, text in said(path):
        for line in sentences(text).splitlines():
            if not re.search(r"\b([Ss]ay|[Ss]uppose|[Ii]magine)\b", line):
                typed += [f"{place}: {line.strip()}" for _ in TYPED.finditer(line)]
    assert typed == []
