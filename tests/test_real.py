"""The main job on real photographs with human scores: BIQ2021, where it lies beside the project. Never committed."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app

FOLDER = Path(__file__).parents[2] / "shared" / "biq2021"  # ../shared from the project's root

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs ../shared/biq2021 (BIQ2021 in its official layout)")


def test_a_folder_of_real_photographs_is_scored_and_adapted(tmp_path):
    """Every photograph gets a finite score, in its own direction, and adapting changes the scores."""
    chosen = sorted((FOLDER / "Images").glob("*.jpg"))[::150]
    out = tmp_path / "out.csv"
    options = ["--adapt", "--out", str(out), "--batch-size", "12", "--model", "source-0"]
    result = CliRunner().invoke(app, ["score", *map(str, chosen), *options])
    rows = list(csv.DictReader(out.open()))
    new, old = (np.array([float(row[key]) for row in rows]) for key in ("score", "source_score"))
    assert result.exit_code == 0 and [row["path"] for row in rows] == list(map(str, chosen))
    assert np.isfinite(new).all() and new.std() > 0 and np.abs(new - old).max() > 1e-3
