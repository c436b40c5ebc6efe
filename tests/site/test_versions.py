"""Several versions of the book on one site: the switch leads from one to the other."""

import shutil

import pytest
from workshop.versions import versions

import tta_iqa_lib


@pytest.fixture(scope="module")
def several(site, serve, tmp_path_factory):
    """A site with an older version, which lacks a page; where it is served."""
    folder = tmp_path_factory.mktemp("several")
    skipped = shutil.ignore_patterns("*.onnx", "*.wasm", "*.ipynb", "_sources", "api.html", "*.pdf")
    shutil.copytree(site, folder / "new", ignore=skipped)
    shutil.copytree(site, folder / "new" / "0.1.0", ignore=skipped)
    (folder / "new" / "0.1.0" / "book" / "02_distortions.html").unlink()
    assert versions(folder / "new") == 0
    return serve(folder / "new")


def test_the_switch_leads_to_the_same_page_of_another_version_and_back(context, several):
    page = context.new_page()
    page.goto(f"{several}/book/01_quality.html")
    switch = page.get_by_label("Version of the book")
    assert switch.locator("option").all_inner_texts() == [tta_iqa_lib.__version__, "0.1.0"]
    switch.select_option(label="0.1.0")
    page.wait_for_url(f"{several}/0.1.0/book/01_quality.html")
    assert page.evaluate("document.querySelector('.tta-versions').selectedOptions[0].text") == "0.1.0"
    page.get_by_label("Version of the book").select_option(label=tta_iqa_lib.__version__)
    page.wait_for_url(f"{several}/book/01_quality.html")
    page.close()


def test_a_page_that_the_other_version_lacks_leads_to_its_first(context, several):
    page = context.new_page()
    page.goto(f"{several}/book/02_distortions.html")
    page.get_by_label("Version of the book").select_option(label="0.1.0")
    page.wait_for_url(f"{several}/0.1.0/index.html")
    page.close()


def test_one_version_has_no_switch(visits):
    assert visits("http", "index.html").page.locator(".tta-versions").count() == 0


def test_pages_that_have_been_told_are_refused(tmp_path, capsys):
    assert versions(tmp_path) == 1
    assert "build the pages again" in capsys.readouterr().err
