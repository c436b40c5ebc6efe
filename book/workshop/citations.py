"""A Sphinx extension: what docstrings cite as [wang2021tent] is a citation on the library's page, too."""

import re

KEYS = re.compile(r"\[([a-z]+\d{4}\w+(?:, [a-z]+\d{4}\w+)*)\]")


def cite(app, what, name, thing, options, lines: list[str]) -> None:
    """Rewrite the lines of a docstring. The prefix keeps the page's list apart from those of the chapters."""
    lines[:] = [KEYS.sub(role, line) for line in lines]


def role(keys: re.Match) -> str:
    return ":cite:`" + ",".join(f"lib-{key}" for key in keys[1].split(", ")) + "`"


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", cite)
    return {"parallel_read_safe": True}
