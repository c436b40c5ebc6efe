"""The book's workshop: its parts, and where things lie. `book/tools.py` is the way in."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"


def list_notebooks() -> list[Path]:
    """The welcome page and the chapters, in order."""
    return [ROOT / "index.ipynb", *sorted((ROOT / "book").glob("*.ipynb"))]
