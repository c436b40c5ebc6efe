"""The page that scores the reader's photographs: what it shows is what PyTorch computes, and nothing leaves it."""

import base64
import json
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Stateless
from tta_iqa_lib.adaptation.episodes import averaged
from tta_iqa_lib.imaging.crops import grid_crops
from tta_iqa_lib.store import data_folder

PAGE = "book/try_it.html"
PATIENCE = 240_000  # milliseconds: other tests may have the processor
# What the model was given: the pixels of the pictures in the table, as they stand on their canvases.
PIXELS = """() => [...document.querySelectorAll('#try-rows canvas')].map((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let text = '';
    for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
    return [canvas.height, canvas.width, btoa(text)];
})"""

DROP = """([name, text]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
    document.querySelector('h1').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
}"""


@dataclass
class Trial:
    """The page, the model awake, and what it asked for on the way."""

    page: object
    problems: list[str]
    fetched_before: list[str]
    sent: list[str] = field(default_factory=list)

    def wait(self, text: str) -> str:
        """Until the status says so → the whole status."""
        says = "t => document.getElementById('try-status').textContent.includes(t)"
        self.page.wait_for_function(says, arg=text, timeout=PATIENCE)
        return self.page.locator("#try-status").inner_text()

    def table(self) -> dict[str, list[float]]:
        """The rows by name: source, adapted, change, …, before they are rounded to what is shown."""
        rows = self.page.locator("#try-rows tr").all()
        values = "all => all.map((data) => Number(data.value))"
        return {row.locator("th").inner_text().strip(): row.locator("data").evaluate_all(values) for row in rows}

    def pixels(self) -> list[np.ndarray]:
        """(H, W, 3) bytes of each picture, in the order of the table."""
        found = self.page.evaluate(PIXELS)
        return [np.frombuffer(base64.b64decode(text), np.uint8).reshape(h, w, 4)[..., :3] for h, w, text in found]

    def expected(self, alpha: float, share: float = 0.25) -> list[float]:
        """The same pictures, cut and scored by the library."""
        model = tta.load_source_model("photographs")
        crops = torch.cat([grid_crops(as_image(picture), model.crop) for picture in self.pixels()])
        with torch.no_grad():
            scores = averaged(Stateless(model), crops, model.views, tta.First(tta.Blend(alpha), share)).scores
        return scores.view(-1, 4).mean(1).tolist()


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


@pytest.fixture(scope="module")
def trial(visits):
    visit = visits("http", PAGE)
    page = visit.page
    fetched = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    trial = Trial(page, visit.problems, fetched)
    page.on("request", lambda r: trial.sent.append(r.url) if r.method != "GET" or r.post_data else None)
    page.locator("#try-start").focus()
    page.keyboard.press("Enter")
    trial.wait("The model is ready")
    page.keyboard.press("Tab")  # from "Choose pictures", where the focus is, to the examples
    page.keyboard.press("Enter")
    trial.wait("8 pictures are scored")
    return trial


def test_the_runtime_is_fetched_only_when_it_is_asked_for(trial):
    assert any("/try.js" in url for url in trial.fetched_before)
    assert [url for url in trial.fetched_before if "/_static/ort/" in url or "/_static/try/" in url] == []


def test_only_this_page_is_heavier_for_it(site):
    heavy = {path.name for path in site.rglob("*.html") if "_static/try." in path.read_text(encoding="utf-8")}
    assert heavy == {"try_it.html"}


def test_the_examples_arrive_pixel_by_pixel(trial, site):
    folder = site / "_static" / "try"
    files = {about["name"]: about["file"] for about in json.loads((folder / "examples.json").read_text("utf-8"))}
    for name, shown in zip(trial.table(), trial.pixels(), strict=True):
        with Image.open(folder / files[name]) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), shown), name


@pytest.mark.parametrize(("alpha", "share"), [(None, 0.25), (0.8, 0.25), (0.8, 1.0), (0.0, 0.25)])
def test_scores_agree_with_pytorch(trial, alpha, share):
    """At the rule's share, at one that the reader chose, in all layers, and at none: sources and adapted scores."""
    if alpha is None:
        alpha = 8 / (8 + 16)
    else:
        trial.page.locator("#try-alpha").fill(str(alpha))
        trial.wait(f"α = {alpha:.2f}")
    if share != 0.25:
        trial.page.locator("#try-layers").select_option("1")
        trial.wait("in all layers")
    rows = list(trial.table().values())
    assert [row[0] for row in rows] == pytest.approx(trial.expected(0.0), abs=1e-2)
    assert [row[1] for row in rows] == pytest.approx(trial.expected(alpha, share), abs=1e-2)
    assert [row[2] for row in rows] == pytest.approx([row[1] - row[0] for row in rows], abs=1e-9)
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
    if share != 0.25:
        trial.page.locator("#try-layers").select_option("0.25")
        trial.wait("in the first quarter")


def test_a_score_says_how_many_photographs_people_found_worse(trial):
    quantiles = json.loads((data_folder() / "models" / "LIVE-Challenge-quantiles.json").read_text("utf-8"))["quantiles"]
    for row, values in zip(trial.page.locator("#try-rows tr").all(), trial.table().values(), strict=True):
        for cell, score in zip(row.locator("td").all_inner_texts()[:2], values, strict=False):
            shown, better = cell.split("\n")
            assert float(shown) == pytest.approx(score, abs=0.051)
            per_cent = int(re.fullmatch(r"better than (\d+) %", better)[1])
            assert per_cent == pytest.approx(np.interp(score, quantiles, range(101)), abs=0.501)


def test_the_examples_say_how_far_they_are_from_their_scores_in_the_light(trial):
    trial.page.locator("#try-shrink").click()
    said = trial.wait("α = 0.33")
    source, adapted, _, light = np.array(list(trial.table().values())).T
    before, after = (np.abs(scores - light).mean() for scores in (source, adapted))
    assert f"source {before:.1f}, adapted {after:.1f}" in said
    assert after < before  # what the examples are to show


def test_own_pictures_are_reduced_and_scored_and_others_named(trial, tmp_path):
    """A large picture with transparency, a file that is none, and one too small; then another one, dropped on the page."""
    page = trial.page
    page.locator("#try-clear").click()
    trial.wait("No pictures yet")
    generator = np.random.default_rng(0)
    large = np.kron(generator.integers(0, 256, (50, 70, 4), np.uint8), np.ones((16, 16, 1), np.uint8))
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(generator.integers(0, 256, (226, 230, 3), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.zeros((300, 223, 3), np.uint8)).save(tmp_path / "tiny.png")
    (tmp_path / "note.jpg").write_text("no picture")
    page.locator("#try-files").set_input_files([tmp_path / "large.png", tmp_path / "note.jpg", tmp_path / "tiny.png"])
    said = trial.wait("tiny.png")
    assert "One picture is scored" in said and "note.jpg" in said and "One picture" in said
    assert page.locator("#try-alpha").is_disabled()
    page.evaluate(DROP, ["small.png", base64.b64encode((tmp_path / "small.png").read_bytes()).decode()])
    trial.wait("2 pictures are scored")
    assert sorted(pixels.shape[:2] for pixels in trial.pixels()) == [(226, 230), (384, 538)]
    rows = list(trial.table().values())
    assert [row[0] for row in rows] == pytest.approx(trial.expected(0.0), abs=1e-2)
    assert [row[1] for row in rows] == pytest.approx(trial.expected(2 / 18), abs=1e-2)


def test_both_views_have_a_thread_of_their_own_under_the_policy_of_the_page(trial):
    """A text is not run as code in them."""
    runs = """() => new Promise((done) => {
        setTimeout("self.ran = true");
        setTimeout(() => done(self.ran === true), 300);
    })"""
    assert [worker.evaluate(runs) for worker in trial.page.workers] == [False, False]


@pytest.fixture(scope="module")
def five_photographs(tmp_path_factory):
    """Of 12 megapixels each, with grain, so that they take long to decode."""
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    grain = generator.normal(0, 4, (3000, 4000, 1)).astype(np.float32)
    files = []
    for i in range(5):
        scene = Image.fromarray(generator.integers(0, 256, (30, 40, 3), np.uint8)).resize((4000, 3000))
        files.append(folder / f"{i}.jpg")
        Image.fromarray((np.asarray(scene) + grain).clip(0, 255).astype(np.uint8)).save(files[-1], quality=92)
    return files


def test_five_photographs_of_a_phone_take_ten_seconds_of_two_processors(trial, browser, five_photographs):
    """In processor time, which other programs hardly change; half as much again for slower machines."""
    if browser.browser_type.name != "chromium":
        pytest.skip("only Chromium tells its processor time")
    session = browser.new_browser_cdp_session()

    def used() -> float:
        return sum(process["cpuTime"] for process in session.send("SystemInfo.getProcessInfo")["processInfo"])

    trial.page.locator("#try-clear").click()
    trial.wait("No pictures yet")
    before = used()
    trial.page.locator("#try-files").set_input_files(five_photographs)
    trial.wait("5 pictures are scored")
    assert used() - before < 30
    rows = list(trial.table().values())
    assert [row[0] for row in rows] == pytest.approx(trial.expected(0.0), abs=1e-2)
    assert [row[1] for row in rows] == pytest.approx(trial.expected(5 / 21), abs=1e-2)


def test_headings_sort_the_table(trial):
    button = trial.page.locator("#try-table th button", has_text="Source")
    for expected in ("descending", "ascending"):
        button.press("Enter")
        assert button.locator("..").get_attribute("aria-sort") == expected
        sources = [row[0] for row in trial.table().values()]
        assert sources == sorted(sources, reverse=expected == "descending")
    trial.page.locator("#try-table th button", has_text="Adapted").click()


def test_nothing_is_sent_and_nothing_fails(trial):
    """No request to another host, none that carries anything, no error in the console."""
    assert trial.problems == [] and trial.sent == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_at_work_fits_a_phone_and_axe_finds_no_violation(trial, scheme):
    page = trial.page
    page.locator("#try-examples").click()
    trial.wait("13 pictures are scored")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=scheme)
    page.evaluate("Promise.all(document.getAnimations().map(a => a.finished.catch(() => {})))")
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        faults = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [f"{v['id']}: {n['html'][:150]}" for v in faults for n in v["nodes"]] == []
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light")


def test_from_a_file_the_page_says_how_to_serve_it(visits):
    visit = visits("file", PAGE)
    assert "python -m http.server --directory _build/html" in visit.page.locator("#try-serve").inner_text()
    assert not visit.page.locator("#try-start").is_visible()
    assert visit.problems == []
