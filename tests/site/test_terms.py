"""A term of the glossary explains itself where it is used."""

import re

import pytest
from bs4 import BeautifulSoup

PAGE = "book/05_batchnorm.html"
TIP = "#tta-tip"


def test_every_link_to_a_term_carries_its_definition(site):
    """The first words of the entry that it leads to, on every page; the glossary has them from the same source."""
    glossary = BeautifulSoup((site / "book" / "glossary.html").read_text(encoding="utf-8"), "html.parser")
    entries = {dt["id"]: dt.find_next("dd") for dt in glossary.select("dl.glossary dt[id]")}
    links = 0
    for path in site.rglob("*.html"):
        if "_static" in path.parts:
            continue
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for link in page.select("a:has(> .std-term)"):
            anchor = link["href"].partition("#")[2]
            assert link["title"] == " ".join(entries[anchor].get_text().split()), f"{path.name}: {link}"
            links += 1
    assert links > 60


@pytest.fixture
def term(browser, roots, scheme):
    page = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True)
    page.goto(f"{roots[scheme]}/{PAGE}", wait_until="load")
    link = page.locator("a[data-tip]", has_text="statistics").first
    link.scroll_into_view_if_needed()
    yield link
    page.close()


def read(page) -> str:
    """What the tip says, all of it inside the window of a phone."""
    tip = page.locator(TIP)
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] >= 0 and box["y"] + box["height"] <= 740
    return tip.inner_text()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_term_explains_itself_under_the_pointer(term, scheme):
    """It stays while the pointer is on the tip itself, and goes when it leaves or at Escape."""
    page, tip = term.page, term.page.locator(TIP)
    assert tip.is_hidden() and term.get_attribute("title") is None
    term.hover()
    assert "mean and the variance of each channel" in read(page)
    tip.hover()
    page.wait_for_timeout(400)
    assert tip.is_visible()
    page.mouse.move(2, 2)
    tip.wait_for(state="hidden")
    term.hover()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_term_explains_itself_to_the_keyboard(term, scheme):
    """With the focus, to a screen reader, too; Escape closes it and the focus stays."""
    page, tip = term.page, term.page.locator(TIP)
    term.evaluate("link => link.parentElement.insertBefore(document.createElement('button'), link).focus()")
    assert tip.is_hidden()
    page.keyboard.press("Tab")
    assert "mean and the variance of each channel" in read(page)
    assert term.get_attribute("aria-describedby") == tip.get_attribute("id")
    assert tip.get_attribute("role") == "tooltip"
    page.keyboard.press("Escape")
    assert tip.is_hidden() and term.get_attribute("aria-describedby") is None
    assert term.evaluate("link => link === document.activeElement")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert "mean and the variance of each channel" in read(page)
    page.keyboard.press("Tab")  # the next term has the tip
    assert term.get_attribute("aria-describedby") is None and "stream" in read(page)


@pytest.mark.parametrize("scheme", ["http"])
def test_a_first_tap_explains_and_a_second_one_follows(term, scheme):
    page = term.page
    term.tap()
    assert "mean and the variance of each channel" in read(page) and PAGE in page.url
    term.tap()
    page.wait_for_url(re.compile(r"glossary\.html#term-statistics"))


@pytest.mark.parametrize("scheme", ["http"])
def test_a_tip_can_be_read_in_both_modes(term, scheme):
    """Its letters differ from its ground: at least 7 : 1."""
    page, tip = term.page, term.page.locator(TIP)
    for mode in ("light", "dark"):
        page.emulate_media(color_scheme=mode)
        page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=mode)
        term.hover()
        colours = tip.evaluate("t => [getComputedStyle(t).color, getComputedStyle(t).backgroundColor]")
        light = sorted(luminance(colour) for colour in colours)
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 7, (mode, colours)
        page.keyboard.press("Escape")


def luminance(colour: str) -> float:
    """WCAG's relative luminance of "rgb(r, g, b)"."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
