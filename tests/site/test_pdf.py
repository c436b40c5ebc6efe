"""The printed book: pages in order, with an outline, formulas set, nothing folded away."""

import os
import shutil

import pytest
from pypdf import PdfReader
from workshop.paper import BROWSERS, pdf


def test_the_printed_pages_are_bound_in_order(site, tmp_path):
    """Two pages: both in the outline, the formula without its raw TeX, the folded answer open, hidden code left out."""
    if not any(map(shutil.which, BROWSERS)) and not os.environ.get("CI"):
        pytest.skip("no Chromium found, so nothing is printed")
    target = tmp_path / "two.pdf"
    assert pdf(["book/05_batchnorm", "book/notation"], target) == 0
    reader = PdfReader(target)
    outline = [item.title for item in reader.outline if not isinstance(item, list)]
    assert len(outline) == 2 and "Batch normalisation" in outline[0] and "Notation" in outline[1]
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert "\\frac" not in text and "Show code cell" not in text
    assert "Those numbers are now simply false" in text  # the answer to "Predict first"
    assert 5 < len(reader.pages) < 40
