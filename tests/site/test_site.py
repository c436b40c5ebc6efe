"""The built pages, in a real browser with the network cut."""

import gzip
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from pybtex.database import parse_file

# Elements of the article that reach beyond the window, with no box of their own that scrolls.
OVERFLOWING = """() => [...document.querySelectorAll('main *')].filter(e => {
    if (e.getBoundingClientRect().right <= innerWidth + 1 || !e.checkVisibility()) return false;
    if (e.closest('mjx-assistive-mml, .visually-hidden, .sr-only')) return false;
    for (let p = e; p && p.tagName != 'MAIN'; p = p.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) return false;
    return true;
}).map(e => `${e.tagName.toLowerCase()}.${e.className}`).slice(0, 5)"""


# What one must push sideways to read; formulas cannot break.
SIDEWAYS = """() => [...document.querySelectorAll('.bd-article *')]
    .filter(box => ['auto', 'scroll'].includes(getComputedStyle(box).overflowX) && !box.matches('mjx-container, div.math'))
    .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth + 1)
    .map(box => `${box.tagName.toLowerCase()}.${box.className}: ${box.textContent.trim().slice(0, 40)}`)"""

# Charts whose letters shrink to less than half, by their widths in pixels.
SHRUNK = """() => [...document.querySelectorAll('.bd-article figure:not(#fig-cover) img')]
    .filter(picture => picture.width && picture.width < picture.naturalWidth / 2).map(picture => picture.alt)"""

# Words of headings that go on in the next line.
BROKEN_WORDS = r"""() => [...document.querySelectorAll('main :is(h1, h2, h3, h4)')].flatMap(heading => {
    const walker = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT), broken = [], range = document.createRange();
    while (walker.nextNode())
        for (const word of walker.currentNode.data.matchAll(/\p{L}+/gu)) {
            range.setStart(walker.currentNode, word.index);
            range.setEnd(walker.currentNode, word.index + word[0].length);
            const lines = [...range.getClientRects()].filter(line => line.width > 1).map(line => Math.round(line.top));
            if (new Set(lines).size > 1) broken.push(word[0]);
        }
    return broken;
})"""

# What a player shows: its pictures with their text alternatives, and how much of the one on top is uncovered.
SHOWN = "p => [...p.querySelectorAll('img')].map(i => [i.src, i.alt, i.style.clipPath].join()).join()"


def test_page_stays_on_the_site_and_is_quiet(visits, path, origin):
    """A page makes no request to another host, and none of its requests or scripts fails."""
    assert visits(origin, path).problems == []


def test_formulas_are_rendered(visits, path, origin):
    page = visits(origin, path).page
    raw = page.locator(".math:not(:has(mjx-container))")
    assert raw.count() == 0, raw.first.inner_text()
    wrong = page.locator("mjx-merror, mjx-mtext[style*='color: red']")  # an unknown macro is set in red
    assert wrong.count() == 0, wrong.first.inner_text()


def test_players_move_and_quizzes_answer(visits, path, origin):
    """By keyboard alone: a slider changes its picture, a chosen option shows its feedback and no other."""
    page = visits(origin, path).page
    for player in page.locator(".tta-player").all():
        sliders = player.locator("input[type=range]").all()
        assert sliders
        for slider in sliders:
            before = player.evaluate(SHOWN), slider.get_attribute("aria-valuetext")
            slider.focus()
            at_end = slider.input_value() == slider.get_attribute("max")
            page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
            after = player.evaluate(SHOWN), slider.get_attribute("aria-valuetext")
            assert after[0] != before[0], "the slider moved, its picture did not"
            assert after[1] != before[1], "the slider moved, its spoken value did not"
    for quiz in page.locator(".tta-quiz").all():
        options = quiz.locator(".option").all()
        assert len(options) >= 2
        for number, option in enumerate(options):
            assert not option.locator(".feedback").is_visible()
            if number == 0:
                option.locator("input").focus()
            page.keyboard.press("ArrowDown" if number else "Space")
            assert option.locator(".feedback").is_visible()
            assert quiz.locator(".feedback:visible").count() == 1


def test_pictures_have_alt_text(visits, path):
    """A picture's alt text is written for a person; a file path is what Sphinx puts where none was given."""
    for picture in visits("http", path).page.locator("main img").all():
        alt = picture.get_attribute("alt") or ""
        assert alt.strip(), f"no alt text: {picture.get_attribute('src')[:100]}"
        assert "/" not in alt or " " in alt, f"a path as alt text: {alt}"


def test_page_fits_a_phone(visits, path):
    """At 360 px nothing reaches beyond the window, nothing but a formula scrolls sideways, and charts stay legible."""
    page = visits("http", path).page
    page.set_viewport_size({"width": 360, "height": 740})
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(SIDEWAYS) == []
        assert page.evaluate(SHRUNK) == []
        assert page.evaluate(BROKEN_WORDS) == []
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_a_table_that_is_too_wide_for_a_phone_is_a_list_there_and_a_table_again_elsewhere(visits):
    """What stands in the list is what stands in the table; a screen reader still hears rows and columns."""
    page = visits("http", "book/10_when_not.html").page
    lists, table = page.locator(".tta-table.as-list"), page.locator(".tta-table:has(td)").first
    columns, cells = (table.locator(part).all_inner_texts() for part in ("thead th", "tbody tr:first-child td"))
    assert lists.count() == 0
    page.set_viewport_size({"width": 360, "height": 740})
    try:
        assert lists.count() >= 2
        row = lists.first.get_by_role("row").nth(1)
        assert row.get_by_role("rowheader").count() == 1
        assert row.get_by_role("cell").all_inner_texts() == cells
        # Chromium keeps the roles of what is laid out otherwise; not every browser does.
        said = "row => [row, ...row.cells].map(element => element.getAttribute('role'))"
        assert row.evaluate(said) == ["row", "rowheader", *["cell"] * len(cells)]
        named = "cell => getComputedStyle(cell, '::before').content"
        shown = [cell.evaluate(named).strip('"').strip() for cell in row.get_by_role("cell").all()]
        assert shown == columns[1:]
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})
    assert lists.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visits, path, scheme):
    page = visits("http", path).page
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=scheme)
    # Colours change in transitions: let them end.
    page.evaluate("Promise.all(document.getAnimations().map(a => a.finished.catch(() => {})))")
    result = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]})
    page.emulate_media(color_scheme="light")
    faults = [f"{v['id']}: {n['html'][:150]}" for v in result.response["violations"] for n in v["nodes"]]
    # Text in the very colour of its ground is only "incomplete" to axe.
    for doubt in result.response["incomplete"]:
        for node in doubt["nodes"]:
            if any((check.get("data") or {}).get("messageKey") == "equalRatio" for check in node["any"]):
                faults.append(f"invisible text: {node['html'][:150]}")
    assert faults == []


def test_search_finds_a_page(visits, origin):
    """Search works from the site's own index, also from file:// where no page can be fetched."""
    visit = visits(origin, "search.html?q=statistics")
    visit.page.locator("#search-results li a").first.wait_for()
    visit.page.wait_for_load_state("networkidle")
    assert visit.problems == []


class Anchors(HTMLParser):
    """The ids and the links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])


def test_internal_links_resolve(site):
    """Every link to a page of the site leads to a file, and to an id where it names one."""
    pages = {path: Anchors(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    broken = []
    for path, anchors in pages.items():
        for link in anchors.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = pages.get(target)
            if not target.exists() or (known and parts.fragment and unquote(parts.fragment) not in known.ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_the_page_remembers_what_was_read(browser, roots):
    """A section marked as read and the answer to a quiz outlive a reload; one button forgets both."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{roots['http']}/book/05_batchnorm.html")
    button, option = page.locator(".tta-done").first, page.locator(".tta-quiz input").nth(1)
    assert button.get_attribute("aria-pressed") == "false" and not page.locator(".tta-forget").is_visible()
    button.click()
    option.check()
    page.reload()
    button, option = page.locator(".tta-done").first, page.locator(".tta-quiz input").nth(1)
    assert button.get_attribute("aria-pressed") == "true" and option.is_checked()
    total = page.locator(".tta-done").count()
    page.goto(f"{roots['http']}/book/08_loop.html")  # another page knows, too, and has a memory of its own
    assert page.locator(".tta-progress").inner_text().strip() == f"1/{total}"
    assert page.locator(".tta-done[aria-pressed=true]").count() == 0
    page.locator(".tta-forget").click()
    page.wait_for_load_state()
    assert page.locator(".tta-progress").count() == 0
    context.close()


def test_pages_are_light_on_the_wire(browser, roots, path):
    """A first visit, with an empty cache and a server that compresses text: the welcome page 1 MB, any other page 3 MB."""
    context = browser.new_context()
    page, bodies = context.new_page(), []
    page.on("requestfinished", lambda request: bodies.append((request.url, request.response().body())))
    page.goto(f"{roots['http']}/{path}", wait_until="networkidle")
    packed = {url: min(len(body), len(gzip.compress(body))) for url, body in bodies}
    context.close()
    largest = sorted(packed.items(), key=lambda item: -item[1])[:3]
    assert sum(packed.values()) <= (1e6 if path == "index.html" else 3e6), largest


def test_icons_in_use_are_drawn(visits, path):
    """The icon script holds only what pages use; one that it lacks would be drawn as a question mark."""
    page = visits("http", path).page
    page.locator("svg.svg-inline--fa").first.wait_for(state="attached")
    missing = page.evaluate(
        """[...document.querySelectorAll('svg.svg-inline--fa')].filter(
            s => !s.querySelector('path')?.getAttribute('d') || s.querySelector('.missing')
        ).map(s => s.outerHTML.slice(0, 150))"""
    )
    left = page.locator("i.fa-solid").count()
    assert missing == [] and left == 0


def test_docstrings_cite_as_the_chapters_do(site):
    """[wang2021tent] in a docstring is a citation with a link, not a key in brackets; what is cited is listed."""
    page = (site / "book" / "api.html").read_text(encoding="utf-8")
    key = r"[a-z]+\d{4}\w+"
    assert re.findall(rf"\[{key}[\],]", page) == []
    root = Path(__file__).parents[2]
    sources = "".join(file.read_text(encoding="utf-8") for file in (root / "tta_iqa_lib").rglob("*.py"))
    cited = {k for group in re.findall(rf"\[({key}(?:, {key})*)\]", sources) for k in group.split(", ")}
    text = unescape(re.sub("<[^>]+>", "", page)).casefold()
    works = parse_file(root / "book" / "references.bib").entries
    titles = {k: re.sub(r"[{}]", "", works[k].fields["title"]).casefold() for k in cited}
    unlisted = {k for k, title in titles.items() if title not in text}
    assert unlisted == {"xue2014gmsd"}  # cited by a private function alone
    assert page.count('role="doc-biblioentry"') == len(cited) - 1


OUTSIDE = """() => new Promise((tell) => {
    document.addEventListener('securitypolicyviolation', (event) => tell(event.effectiveDirective));
    new Image().src = 'http://example.org/pixel.png';
    setTimeout(() => tell('nothing refused it'), 5000);
})"""


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_page_may_load_nothing_from_elsewhere(browser, roots, path, scheme):
    """The browser itself refuses it, and a text is not run as code."""
    page = browser.new_page()
    page.goto(f"{roots[scheme]}/{path}", wait_until="load")
    assert page.evaluate(OUTSIDE) == "img-src"
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "'wasm-unsafe-eval'" in policy and "'unsafe-eval'" not in policy
    first = "document.querySelector('script, meta[http-equiv=Content-Security-Policy]').tagName"
    assert page.evaluate(first) == "META"
    page.close()
