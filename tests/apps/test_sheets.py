"""The page of scored pictures."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tta_iqa_lib.apps.results import Row
from tta_iqa_lib.apps.sheets import SHOWN, SIDE, write_sheet


class Page(HTMLParser):
    """Headings, pictures and all that points somewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.images: list[dict] = []
        self.links: list[str] = []
        self.sections: dict[str, list[dict]] = {}
        self.tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tag, found = tag, dict(attrs)
        self.links += [value for key, value in attrs if key in ("src", "href")]
        if tag == "img":
            self.images.append(found)
            self.sections[next(reversed(self.sections))].append(found)

    def handle_data(self, data):
        if self.tag == "h2" and data.strip():
            self.sections[data] = []

    def names(self, section: str) -> list[str]:
        return [image["alt"].split(",")[0] for image in self.sections[section]]


@pytest.fixture
def rows(twelve) -> list[Row]:
    """Scores rise with the number; adapting moves the later ones further."""
    files = sorted(path for path in twelve.iterdir() if len(path.stem) == 2)
    scored = [Row(path, i + (-1) ** i * i * i / 100, float(i)) for i, path in enumerate(files)]
    return [*scored, Row(twelve / "05b.png", error="no image")]


def test_best_worst_and_most_moved_in_one_file_that_needs_nothing_else(rows, tmp_path):
    write_sheet(tmp_path / "s.html", rows, "A <title>", ["a & b"])
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    page = Page(text)
    by_score = sorted(rows[:12], key=lambda row: row.score)
    assert page.names("Worst") == [row.path.name for row in by_score[:6]]
    assert page.names("Best") == [row.path.name for row in by_score[::-1][:6]]
    assert page.names("Moved most by adapting") == [f"{i:02d}.png" for i in range(11, 11 - SHOWN, -1)]
    assert page.links and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "http" not in text and "<script" not in text
    assert "A &lt;title&gt;" in text and "a &amp; b" in text and "12 pictures; 1 more could not be scored" in text
    assert "prefers-color-scheme: dark" in text and 'lang="en"' in text


def test_thumbnails_are_the_pictures_and_small(rows, tmp_path):
    large = tmp_path / "large.png"
    Image.new("RGB", (1000, 500), (200, 30, 30)).save(large)
    write_sheet(tmp_path / "s.html", [Row(large, 1.0, 1.0)], "t")
    (image,) = Page((tmp_path / "s.html").read_text(encoding="utf-8")).images
    shown = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
    assert shown.size == (SIDE, SIDE // 2) == (int(image["width"]), int(image["height"]))
    assert abs(shown.getpixel((50, 50))[0] - 200) < 8


def test_the_histogram_counts_every_picture(rows, tmp_path):
    write_sheet(tmp_path / "s.html", rows, "t")
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    heights = [float(h) for h in re.findall(r'<rect class="new"[^>]* height="([\d.]+)"', text)]
    unit = min(h for h in heights if h)
    assert sum(round(h / unit) for h in heights) == 12
    assert 'role="img" aria-label="Histogram of 12 scores from' in text and '<path class="old"' in text
    write_sheet(tmp_path / "s.html", [Row(row.path, row.score, row.score) for row in rows[:12]], "t")
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert '<path class="old"' not in text and "Moved most" not in text


def test_lower_may_be_better_and_a_picture_may_be_gone(rows, tmp_path):
    rows[0].path.unlink()
    write_sheet(tmp_path / "s.html", rows, "t", higher_is_better=False)
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    lowest = sorted(rows[:12], key=lambda row: row.score)
    assert Page(text).names("Best") == [row.path.name for row in lowest[:6] if row.path.is_file()]
    assert "cannot be read any more" in text


def test_nothing_was_scored_and_the_page_says_so(tmp_path):
    write_sheet(tmp_path / "s.html", [Row(Path("x\udce9.png"), error="e")], "x\udce9")
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "0 pictures; 1 more could not be scored" in text and "<svg" not in text
