"""The book for an e-reader: pages in order, well formed, with pictures in files and nothing that would have to run."""

import posixpath
import re
import zipfile
from xml.etree import ElementTree

import pytest
from workshop.ebook import epub, with_ids_once
from workshop.stills import to_mathml

PAGES = ["book/05_batchnorm", "book/notation", "book/glossary", "book/try_it", "book/11_real"]
XHTML, MATHML = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/1998/Math/MathML}"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Five pages as an EPUB: its names, and the trees of its pages."""
    target = tmp_path_factory.mktemp("epub") / "five.epub"
    assert epub(PAGES, target) == 0
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "mimetype" and archive.read("mimetype") == b"application/epub+zip"
        names = set(archive.namelist())
        pages = {n: ElementTree.fromstring(archive.read(n)) for n in names if n.endswith(".xhtml")}
        text = {n: archive.read(n).decode() for n in names if n.endswith((".xhtml", ".opf"))}
    return names, pages, text


def test_the_pages_of_an_epub_stand_in_the_book_s_order(book):
    _, pages, text = book
    package = next(content for name, content in text.items() if name.endswith(".opf"))
    files = dict(re.findall(r'<item id="([^"]+)" href="([^"]+)"', package))
    order = [files[key] for key in re.findall(r'<itemref idref="([^"]+)"', package)]
    formulas = re.findall(r'href="([^"]+)" media-type="application/xhtml\+xml" properties="mathml"', package)
    assert set(formulas) == {name for name, page in pages.items() if page.find(f".//{MATHML}math") is not None}
    assert [name for name in order if name.startswith("book/")] == [f"{page}.xhtml" for page in PAGES]
    assert len(pages) >= 4  # and its table of contents


def test_every_picture_of_an_epub_is_a_file_in_it(book):
    """Figures and the first picture of each player, with a text alternative."""
    names, pages, _ = book
    chapter = next(n for n in pages if n.endswith("05_batchnorm.xhtml"))
    pictures = pages[chapter].findall(f".//{XHTML}img")
    assert len(pictures) >= 5
    for picture in pictures:
        assert posixpath.normpath(posixpath.join(posixpath.dirname(chapter), picture.get("src"))) in names
        assert len(picture.get("alt")) > 20
    (player,) = pages[chapter].findall(f".//{XHTML}figure[@class='tta-player']")
    assert len(player.findall(f".//{XHTML}img")) == 1 and "sliders" in "".join(player.itertext())


def test_nothing_in_an_epub_needs_to_run(book):
    """No script, no control; formulas are MathML; a quiz shows its answers; folded code is left out."""
    _, pages, text = book
    for name, page in pages.items():
        for tag in ("script", "input", "form", "button", "link[@rel='stylesheet'][@href='../_static/try.css']"):
            assert page.find(f".//{XHTML}{tag}") is None, (name, tag)
        seen = re.sub(r"<annotation.*?</annotation>", "", text[name])
        assert not re.search(r"\\[(\[]|\\frac", seen), name
    chapter = next(page for name, page in pages.items() if name.endswith("05_batchnorm.xhtml"))
    assert len(chapter.findall(f".//{MATHML}math")) > 40
    said = "".join(chapter.itertext())
    assert "That is the matched control" in said and "Show code cell" not in said and "display.Player" not in said
    assert "(1)" in said  # the number of an equation


def test_an_id_stands_once_on_a_page_and_no_page_links_to_files_of_the_web_pages(book):
    _, pages, _ = book
    for name, page in pages.items():
        ids = [part.get("id") for part in page.iter() if part.get("id")]
        assert len(ids) == len(set(ids)), name
        for link in page.iter(f"{XHTML}a"):
            target = link.get("href", "").partition("#")[0]
            assert "_static/" not in target, (name, target)
    asleep = next(page for name, page in pages.items() if name.endswith("try_it.xhtml"))
    assert "needs a browser" in "".join(asleep.itertext()) and "copyright notice" in "".join(asleep.itertext())


def test_ids_are_kept_where_they_first_stand():
    assert with_ids_once('<a id="x"/><b id="y"/><c id="x" class="z"/>') == '<a id="x"/><b id="y"/><c class="z"/>'


def test_a_formula_that_cannot_be_converted_is_named():
    assert "<mfrac>" in to_mathml([("\\frac{a}{b}", True)])[0]
    with pytest.raises(RuntimeError, match="nosuchmacro"):
        to_mathml([("\\nosuchmacro{a}", False)])
