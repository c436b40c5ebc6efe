"""Buttons that open a chapter in Colab.

Colab opens notebooks from GitHub alone, so there are buttons only where the book knows its repository there. A workflow on
GitHub sets GITHUB_REPOSITORY; anyone else may set TTA_BOOK_REPOSITORY=owner/name. The notebooks that the buttons open lie on
the branch `colab`, where the publishing workflow puts them; they differ from those of the book by their first cell.
"""

import os
import re
from pathlib import Path

import nbformat
import yaml

from . import ROOT, SITE

BRANCH = "colab"
INSTALL = """import sys

if "google.colab" in sys.modules:  # elsewhere the library is installed already
    %pip install --quiet "tta-iqa-lib @ git+https://github.com/{repository}"
"""


def repository() -> str | None:
    """owner/name on GitHub, or None if nobody has said.

    Raises:
        ValueError: TTA_BOOK_REPOSITORY is no owner/name.
    """
    name = os.environ.get("TTA_BOOK_REPOSITORY") or os.environ.get("GITHUB_REPOSITORY")
    if name and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"TTA_BOOK_REPOSITORY must be owner/name, as in https://github.com/owner/name; got {name!r}"
        )
    return name or None


def configure(name: str, config: Path = ROOT / "_config.yml") -> Path:
    """Write a copy of the book's configuration with the buttons, beside the pages → its path."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    theme = settings["sphinx"]["config"]["html_theme_options"]
    folders = settings["sphinx"].get("local_extensions", {})
    settings["sphinx"]["local_extensions"] = {
        name: str(config.parent / folder) for name, folder in folders.items()
    }
    theme["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    theme |= {
        "repository_url": f"https://github.com/{name}",
        "repository_branch": BRANCH,
    }
    target = config.parent / "_build" / "_config-colab.yml"
    target.parent.mkdir(exist_ok=True)
    target.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return target


def add_install_cells(name: str, site: Path = SITE) -> None:
    """Put the cell that installs the library first in every notebook that the pages offer."""
    for path in (site / "_sources").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        cell = nbformat.v4.new_code_cell(INSTALL.format(repository=name), id="install")
        notebook.cells.insert(0, cell)
        path.write_text(
            nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n"
        )
