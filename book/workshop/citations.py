"""A Sphinx extension: what docstrings cite as [wang2021tent] is a citation on the library's page, too."""

import re

KEY = re.compile(r"\[([a-z]+\d{4}[a-z]+)\]")


def cite(app, what, name, thing, options, lines: list[str]) -> None:
    """Rewrite the lines of a docstring. The prefix keeps the page's list apart from those of the chapters."""
    lines[:] = [KEY.sub(r":cite:`lib-\1`", line) for line in lines]


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", cite)
    return {"parallel_read_safe": True}
