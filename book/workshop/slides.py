"""Slides for each chapter, made from its page: what is seen stands on a slide, what is said in the speaker's notes.

The rule. A heading begins a slide. Below it stand its first paragraph and all that there is to see, in its order: formulas,
code, figures, players, tables, quizzes, lists, what a cell says. What does not fit any more begins a slide of its own,
one further down. All other paragraphs are notes, and so are hints and answers. Predictions and exercises keep their text,
because a class reads them. The code of a cell that draws is left out.
"""

import math
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from . import ROOT, SITE
from .vendor import REVEAL, fetch_package, vendor_mathjax

LINES = 16  # of text, below the heading of a slide
LETTERS = 92  # in a line
LONGEST = 5  # lines of a sentence that a cell says
READ_BY_ALL = ("Predict", "Exercise")  # sections whose whole text is shown
LEFT_OUT = ("References",)
DRAWN = "figure, .tta-quiz, .tta-table, img"
SOURCES = ROOT / "book" / "slides"


@dataclass
class Slide:
    """What is on it, and what is said to it."""

    heading: Tag
    again: bool = False
    shown: list[Tag] = field(default_factory=list)
    notes: list[Tag] = field(default_factory=list)
    lines: float = 0

    def add(self, block: Tag) -> None:
        self.shown.append(block)
        self.lines += lines_of(block)

    def __str__(self) -> str:
        heading = f"<h2{' class=again' if self.again else ''}>{self.heading.decode_contents()}</h2>"
        notes = "".join(map(str, self.notes))
        notes = f'<aside class="notes">{notes}</aside>' if notes else ""
        return f"<section>{heading}{''.join(map(str, self.shown))}{notes}</section>"


def lines_of(block: Tag) -> float:
    """The height of a block in lines of text, roughly."""
    if block.select_one("figure, img") or block.name in ("figure", "img"):
        return 12.5
    if block.name in ("ul", "ol", "dl"):
        return sum(
            text_lines(item) for item in block.find_all(["li", "dd"], recursive=False)
        )
    if "math" in block.get("class", []):
        return 2.6
    if options := block.select(".option"):
        return 2.5 + 1.4 * len(options)
    if rows := block.select("tr"):
        return 1 + 0.95 * len(rows)
    if printed := block.select("pre"):
        return sum(
            0.5 + 0.7 * len(text.get_text().strip("\n").splitlines())
            for text in printed
        )
    return text_lines(block)


def text_lines(block: Tag) -> float:
    return 0.4 + math.ceil(len(block.get_text()) / LETTERS)


def blocks(section: Tag) -> Iterator[tuple[str, Tag]]:
    """What a section holds: ("heading" | "text" | "seen" | "aside", element), those of its subsections, too."""
    for block in section.find_all(True, recursive=False):
        if block.name == "section":
            yield "heading", block.find(["h3", "h4"])
            yield from blocks(block)
        elif block.name == "p":
            yield "text", block
        elif block.name == "details":
            yield "aside", block
        elif "cell" in block.get("class", []):
            yield from blocks_of_cell(block)
        elif block.name not in ("h1", "h2", "h3", "h4", "script", "span"):
            yield "seen", block


def blocks_of_cell(cell: Tag) -> Iterator[tuple[str, Tag]]:
    """Code with what it prints, or what it draws, or what it says; long sentences are text."""
    outputs = cell.select(":scope > .cell_output > *")
    draws = any(o.name in ("figure", "img") or o.select(DRAWN) for o in outputs)
    if cell.select(":scope > .cell_input") and not draws:
        yield "seen", cell
        return
    for output in outputs:
        said = output.name == "p" and lines_of(output) > LONGEST
        yield "text" if said else "seen", output


def stack(section: Tag) -> list[Slide]:
    """The slides of one section, from the top down."""
    heading = section.find(["h1", "h2"])
    all_text = heading.get_text().strip().startswith(READ_BY_ALL)
    slides, waiting = [Slide(heading)], []
    for kind, block in blocks(section):
        here = slides[-1]
        if kind == "heading":
            here.notes += waiting
            waiting = []
            slides.append(Slide(block))
        elif kind == "seen" or (kind == "text" and (all_text or not here.shown)):
            if here.shown and here.lines + lines_of(block) > LINES:
                here = Slide(here.heading, again=True)
                slides.append(here)
            here.add(block)
            here.notes += waiting
            waiting = []
        else:
            waiting.append(block)
    slides[-1].notes += waiting
    return [slide for slide in slides if slide.shown or slide.notes]


def clean(article: Tag) -> None:
    """Off with what only a page of the book can use: marks of headings, links to other pages."""
    for mark in article.select("a.headerlink, script:not([type='application/json'])"):
        mark.decompose()
    for link in article.select("a"):
        if link.get("href", "").startswith("http"):
            link["target"] = "_blank"
        else:
            link.unwrap()


def deck(page: str) -> tuple[str, str]:
    """A page of the book → (its title, the slides as HTML)."""
    article = BeautifulSoup(page, "html.parser").select_one("article")
    clean(article)
    chapter = article.find("section")
    title = chapter.find("h1")
    sections = chapter.find_all("section", recursive=False)
    goals = chapter.find(class_="admonition")
    parts = [f"<section><section class=title>{title}{goals or ''}</section></section>"]
    for section in sections:
        slides = stack(section)
        if slides and section.find("h2").get_text().strip() not in LEFT_OUT:
            inside = "".join(map(str, slides))
            parts.append(f'<section id="{section["id"]}">{inside}</section>')
    return title.get_text(), "\n".join(parts)


def slides(
    names: list[str] | None = None, target: Path = ROOT / "_build" / "slides"
) -> int:
    """The slides of all chapters, or of some ("05_batchnorm"), in a folder that needs nothing beside it.

    The pages must have been built.
    """
    shutil.rmtree(target, ignore_errors=True)
    vendor_mathjax(target / "_static" / "mathjax")
    with tarfile.open(fetch_package(*REVEAL)) as package:
        for name in ("reveal.js", "reveal.css", "plugin/notes.js"):
            content = package.extractfile(f"package/dist/{name}").read()
            (target / "_static" / Path(name).name).write_bytes(content)
    for file in ("pygments.css", "tta.css", "favicon.svg"):
        shutil.copy(SITE / "_static" / file, target / "_static")
    for file in ("slides.css", "slides.js"):
        shutil.copy(SOURCES / file, target / "_static")
    template = (SOURCES / "slides.html").read_text(encoding="utf-8")
    chapters = []
    for path in sorted((SITE / "book").glob("[0-9]*.html")):
        if names and path.stem not in names:
            continue
        title, body = deck(path.read_text(encoding="utf-8"))
        chapters.append(f'<li><a href="{path.name}">{escape(title)}</a></li>')
        for picture in (SITE / "_images").iterdir():
            if f"../_images/{picture.name}" in body:
                (target / "_images").mkdir(exist_ok=True)
                shutil.copy(picture, target / "_images")
        body = body.replace("../_images/", "_images/")
        write(target / path.name, template, title, body)
    contents = (
        f"<section class=contents><h1>Slides</h1><ul>{''.join(chapters)}</ul></section>"
    )
    write(target / "index.html", template, "Slides", contents)
    print(f"{len(chapters)} chapters: {target / 'index.html'}")
    return 0


def write(path: Path, template: str, title: str, body: str) -> None:
    text = template.replace("{{title}}", escape(title)).replace("{{slides}}", body)
    path.write_text(text, encoding="utf-8", newline="\n")
