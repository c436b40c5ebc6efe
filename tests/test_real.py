"""Real photographs with human scores, where they lie beside the project. Never committed."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.datasets.checking import check
from tta_iqa_lib.store import data_folder

SHARED = Path(__file__).parents[2] / "shared"  # ../shared from the project's root


def needs(database: str):
    return pytest.mark.skipif(not (SHARED / database).is_dir(), reason=f"needs ../shared/{database}")


@needs("biq2021")
def test_a_folder_of_real_photographs_is_scored_and_adapted(tmp_path):
    """Every photograph gets a finite score, in its own direction, and adapting changes the scores."""
    chosen = sorted((SHARED / "biq2021" / "Images").glob("*.jpg"))[::150]
    out = tmp_path / "out.csv"
    options = ["--adapt", "--out", str(out), "--batch-size", "12", "--model", "source-0"]
    result = CliRunner().invoke(app, ["score", *map(str, chosen), *options])
    rows = list(csv.DictReader(out.open()))
    new, old = (np.array([float(row[key]) for row in rows]) for key in ("score", "source_score"))
    assert result.exit_code == 0 and [row["path"] for row in rows] == list(map(str, chosen))
    assert np.isfinite(new).all() and new.std() > 0 and np.abs(new - old).max() > 1e-3


@needs("biq2021")
@needs("agiqa-3k")
@needs("live-challenge")
def test_the_real_databases_that_lie_beside_the_project():
    """BIQ2021 in its official layout, and the others by their tables."""
    biq = check(SHARED / "biq2021", sample=6)
    assert biq.faults == ("3,600 images; the authors published 12,000",)
    assert biq.facts[0] == "3,600 images" and biq.facts[-1] == "6 opened of 3,600"
    options = {"score_column": "mos_quality", "content_column": "prompt"}
    agiqa = check(SHARED / "agiqa-3k" / "scores.csv", sample=4, **options)
    assert agiqa.faults == () and agiqa.facts[:2] == ("896 images", "90 contents")
    clive = check(SHARED / "live-challenge" / "scores.csv", sample=4, score_column="mos")
    assert clive.faults == () and clive.facts[0] == "1,162 images"


@needs("live-challenge")
def test_the_shipped_quantiles_are_those_of_people_s_opinions():
    with (SHARED / "live-challenge" / "scores.csv").open() as file:
        opinions = [float(row["mos"]) for row in csv.DictReader(file)]
    shipped = json.loads((data_folder() / "models" / "LIVE-Challenge-quantiles.json").read_text("utf-8"))
    assert shipped["photographs"] == len(opinions) == 1162
    np.testing.assert_allclose(shipped["quantiles"], np.quantile(opinions, np.linspace(0, 1, 101)), atol=0.0051)
