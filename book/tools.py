"""The book's workshop: run the notebooks, check them and their figures, build the pages.

python book/tools.py execute [NOTEBOOK ...]   run notebooks and store their outputs
python book/tools.py check-figures            every figure has alt text and a caption
python book/tools.py lint                     the chapters keep the rules of CONTRIBUTING.md
python book/tools.py build                    the static pages, in _build/html
python book/tools.py pdf                      the same pages as one file, _build/book.pdf
python book/tools.py epub                     the same sources as an EPUB, _build/book.epub
python book/tools.py slides                   slides of each chapter, in _build/slides
python book/tools.py versions SITE            a switch between the versions of the book that lie in a folder of pages
python book/tools.py vendor                   what the pages need beside themselves (build does it, too)
"""

import argparse
import sys
from pathlib import Path

from workshop import ROOT, list_notebooks
from workshop.ebook import epub
from workshop.notebooks import check_figures, execute
from workshop.pages import build
from workshop.paper import pdf
from workshop.slides import slides
from workshop.vendor import vendor
from workshop.versions import versions


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vendor")
    commands.add_parser("build")
    commands.add_parser("pdf")
    commands.add_parser("epub")
    commands.add_parser("slides")
    commands.add_parser("check-figures")
    commands.add_parser("lint")
    commands.add_parser("versions").add_argument("site", type=Path)
    commands.add_parser("execute").add_argument("notebooks", nargs="*", type=Path)
    arguments = parser.parse_args()
    match arguments.command:
        case "execute":
            return execute(
                [path.resolve() for path in arguments.notebooks] or list_notebooks()
            )
        case "build":
            return build()
        case "pdf":
            return build() or pdf()  # never an older book
        case "epub":
            return epub()
        case "slides":
            return build() or slides()
        case "versions":
            return versions(arguments.site)
        case "check-figures":
            faults = check_figures(list_notebooks())
            print("\n".join(faults) or "every figure has alt text and a caption")
            return 1 if faults else 0
        case "lint":
            import pytest  # who only builds the book need not have it

            configuration = ["-c", str(ROOT / "pyproject.toml")]
            return pytest.main(["-q", *configuration, str(ROOT / "book" / "lint")])
        case _:
            vendor()
            return 0


if __name__ == "__main__":
    sys.exit(main())
