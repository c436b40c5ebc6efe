"""The book's workshop: what it does to stored pictures."""

import base64
import io
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from workshop import ROOT
from workshop.notebooks import shrink

import tta_iqa_lib as tta


def png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def test_a_chart_is_stored_small_and_looks_the_same():
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.plot(np.sin(np.linspace(0, 9, 200)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    chart = Image.open(buffer).convert("RGBA")
    before = png(chart)
    after = shrink(before)
    assert len(after) < 0.7 * len(before)
    small = np.array(Image.open(io.BytesIO(base64.b64decode(after))).convert("RGB"), dtype=int)
    assert np.abs(small - np.array(chart.convert("RGB"), dtype=int)).mean() < 0.3


def test_a_photograph_is_left_as_it_is():
    pixels = (tta.photograph("coffee")[:, :160, :160] * 255).byte().permute(1, 2, 0).numpy()
    photograph = png(Image.fromarray(pixels))
    assert shrink(photograph) == photograph


@pytest.mark.parametrize("fault", [False, True])
def test_lint_runs_the_checks_of_the_chapters_and_tells_whether_one_failed(fault, tmp_path):
    """With the project's configuration, wherever it is called from."""
    shutil.copytree(ROOT / "book" / "workshop", tmp_path / "book" / "workshop")
    shutil.copy(ROOT / "book" / "tools.py", tmp_path / "book")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npython_functions = ['law_*']\n")
    (tmp_path / "book" / "lint").mkdir()
    (tmp_path / "book" / "lint" / "test_chapters.py").write_text(f"def law_of_the_house():\n    assert not {fault}\n")
    command = [sys.executable, tmp_path / "book" / "tools.py", "lint"]
    found = subprocess.run(command, cwd=tmp_path.parent, capture_output=True, text=True)
    assert found.returncode == fault, found.stdout + found.stderr
    assert ("1 failed" if fault else "1 passed") in found.stdout
