"""The slides of one chapter, opened from their folder with the network cut."""

import pytest
from workshop.slides import slides

# What does not fit into the window: nothing may, or a slide as small as it gets scrolls. Nor may a line of code be cut off.
TOO_LARGE = """() => {
    const slide = Reveal.getCurrentSlide(), zoom = parseFloat(slide.style.zoom);
    const wide = [...slide.children].some((e) => e.getBoundingClientRect().right > innerWidth + 1);
    const cut = [...slide.querySelectorAll("pre")].some((e) => e.scrollWidth > e.clientWidth + 1);
    const high = zoom > 60 && slide.getBoundingClientRect().bottom > innerHeight + 1;
    return (wide || cut || high || slide.scrollHeight > slide.clientHeight + 1 && zoom > 60) && slide.textContent.slice(0, 80);
}"""


@pytest.fixture(scope="module")
def lecture(site, browser, watched, tmp_path_factory):
    """Chapter 5 as slides, and all that went wrong on them."""
    folder = tmp_path_factory.mktemp("slides")
    assert slides(["05_batchnorm"], folder) == 0
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    visit = watched(context.new_page(), folder.as_uri()).open("05_batchnorm.html")
    visit.page.wait_for_function("window.Reveal?.isReady()")
    yield visit
    context.close()


def test_every_slide_fits_and_is_quiet(lecture):
    page, too_large = lecture.page, []
    page.evaluate("Reveal.slide(0)")
    total = page.evaluate("Reveal.getTotalSlides()")
    assert total > 20
    for _ in range(total):
        too_large.append(page.evaluate(TOO_LARGE))
        page.keyboard.press("Space")  # the next one, below or beside
    assert not any(too_large), [found for found in too_large if found]
    assert page.evaluate("Reveal.isLastSlide()")
    assert page.locator(".math:not(:has(mjx-container))").count() == 0
    assert not page.locator("aside.notes").first.is_visible()
    assert lecture.problems == []


def test_a_player_is_alive_and_lets_go_of_the_keys(lecture):
    page = lecture.page
    page.evaluate("Reveal.slide(0)")
    page.evaluate("location.hash = '/move-it-yourself'")
    player = page.locator("section.present .tta-player").last
    player.wait_for()
    slider = player.locator("input").last
    slider.focus()
    before, where = player.locator("img").get_attribute("src"), page.evaluate("Reveal.getIndices()")
    page.keyboard.press("ArrowRight")
    assert player.locator("img").get_attribute("src") != before
    assert page.evaluate("Reveal.getIndices()") == where  # the arrow moved the slider alone
    page.keyboard.press("PageDown")  # a presenter's key turns the slide all the same
    assert page.evaluate("Reveal.getIndices()") != where
    assert lecture.problems == []


def test_the_contents_lead_to_the_slides(lecture, watched):
    visit = watched(lecture.page.context.new_page(), lecture.root).open("index.html")
    visit.page.get_by_role("link", name="Batch normalisation").click()
    visit.page.wait_for_function("window.Reveal?.isReady()")
    assert "Batch normalisation" in visit.page.locator("h1").inner_text() and visit.problems == []
