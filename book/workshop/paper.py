"""The whole book as one PDF."""

import io
import shutil
from pathlib import Path

import yaml

from . import ROOT, SITE

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MARGINS = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOTER = '<div style="width:100%;text-align:center;font:8px sans-serif;color:#555"><span class="title"></span></div>'


def pdf(
    names: list[str] | None = None, target: Path = ROOT / "_build" / "book.pdf"
) -> int:
    """One PDF of the whole book: every page printed by Chromium once its formulas are set, bound in the book's order.

    The pages must have been built. `names`: only these, such as "book/05_batchnorm".
    """
    from playwright.sync_api import sync_playwright
    from pypdf import PdfWriter

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = names or [
        toc["root"],
        *(entry["file"] for part in toc["parts"] for entry in part["chapters"]),
    ]
    book = PdfWriter()
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(color_scheme="light")
        for name in names:
            page.goto((SITE / f"{name}.html").as_uri())
            page.evaluate(
                "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }"
            )
            # Paper cannot be clicked. Code that the page hides stays hidden: the style sheet sees to that.
            page.evaluate(
                "document.querySelectorAll('details').forEach((d) => (d.open = true))"
            )
            printed = page.pdf(
                format="A4", scale=0.8, print_background=True, margin=MARGINS, tagged=True, outline=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOTER,
            )  # fmt: skip
            book.append(
                io.BytesIO(printed),
                outline_item=page.locator("h1").first.inner_text().strip(" #\n"),
            )
            print(f"{name}: {len(printed) / 1e6:.1f} MB", flush=True)
        browser.close()
    book.compress_identical_objects()
    book.write(target)
    print(f"{target}: {len(book.pages)} pages, {target.stat().st_size / 1e6:.1f} MB")
    return 0
