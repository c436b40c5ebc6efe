"""The pages of the book as its checks read them."""

from pathlib import Path

import nbformat

from . import list_notebooks

PAGES = list_notebooks()
CHAPTERS = {int(path.name[:2]): path for path in PAGES if path.parent.name == "book"}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)
