"""The whole book as one EPUB, by Sphinx's own builder over the sources of the pages."""

import re
from pathlib import Path
from zipfile import ZipFile

import yaml

import tta_iqa_lib

from . import ROOT
from .pages import jupyter_book

NAME = "tta-iqa-book"

# What needs a script or the theme of the pages.
ON_PAGES_ONLY = {
    "sphinx_comments",
    "sphinx_copybutton",
    "sphinx_togglebutton",
    "sphinx_book_theme",
    "sphinx.ext.viewcode",
}


def configure(folder: Path) -> Path:
    """Write the book's configuration, changed for an EPUB, into a folder → its path."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    sphinx = settings["sphinx"]
    ours = {name: str(ROOT / path) for name, path in sphinx["local_extensions"].items()}
    sphinx["local_extensions"] = ours | {"workshop.stills": str(ROOT / "book")}
    config = sphinx["config"]
    config["extensions"] = [
        name for name in config["extensions"] if name not in ON_PAGES_ONLY
    ] + ["workshop.stills"]
    config |= {
        "html_static_path": [],
        "html_js_files": [],
        "html_css_files": [],
        "epub_css_files": [],
        "epub_show_urls": "no",
        "epub_use_index": False,
        "version": tta_iqa_lib.__version__,
        "epub_uid": NAME,
        "epub_identifier": NAME,
        "epub_contributor": settings["author"],
        "epub_title": settings["title"],
        "epub_description": settings["title"],
        "nb_mime_priority_overrides": [["epub", "text/html", 0]],
    }
    target = folder / "_config-epub.yml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return target


def contents(names: list[str], folder: Path) -> Path:
    """Write a table of contents of a few pages → its path."""
    root, *rest = names
    chapters = [{"file": name} for name in rest]
    target = folder / "_toc-epub.yml"
    text = yaml.safe_dump({"format": "jb-book", "root": root, "chapters": chapters})
    target.write_text(text, encoding="utf-8")
    return target


def epub(
    names: list[str] | None = None, target: Path = ROOT / "_build" / "book.epub"
) -> int:
    """Build the EPUB. `names`: only these pages, such as "book/05_batchnorm"; their links to others lead nowhere."""
    folder = target.parent / "epub"
    config = configure(folder)
    some = ["--toc", str(contents(names, folder))] if names else []
    code = jupyter_book(
        str(ROOT), "--config", str(config), *some,
        "--path-output", str(folder), "--builder", "custom", "--custom-builder", "epub",
        strict=not names,
    )  # fmt: skip
    if code == 0:
        (made,) = (folder / "_build" / "epub").glob("*.epub")
        seal(made, target)
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return code


UNLINKED = re.compile(r'<a [^>]*href="[^"]*_static/[^"]*"[^>]*>(.*?)</a>', re.DOTALL)


def with_ids_once(page: str) -> str:
    """A page without the ids that stood on it before."""
    seen: set[str] = set()

    def once(found: re.Match) -> str:
        known, _ = found[1] in seen, seen.add(found[1])
        return "" if known else found[0]

    return re.sub(r' id="([^"]*)"', once, page)


def seal(made: Path, target: Path) -> None:
    """Copy an EPUB, mended where Sphinx leaves it short of the format.

    Its list of files tells which pages hold formulas; an id stands once on a page; files of the web pages are no links.
    """
    with ZipFile(made) as old, ZipFile(target, "w") as new:
        pages = [name for name in old.namelist() if name.endswith(".xhtml")]
        marked = {name for name in pages if b"<math" in old.read(name)}

        def mark(item: re.Match) -> str:
            return item[0] + (' properties="mathml"' if item[1] in marked else "")

        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "content.opf":
                page = r'href="([^"]+)" media-type="application/xhtml\+xml"'
                content = re.sub(page, mark, content.decode()).encode()
            elif entry.filename in pages:
                content = with_ids_once(UNLINKED.sub(r"\1", content.decode())).encode()
            new.writestr(entry, content)
