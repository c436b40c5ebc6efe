"""A model on a database: what is kept, what is compared, and what the command prints."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.evaluation import compare, score_database
from tta_iqa_lib.datasets.databases import from_csv
from tta_iqa_lib.imaging.distortions import distort
from tta_iqa_lib.imaging.files import photograph, read_image
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models.quality import load_source_model

NAMES = ("cat", "coffee", "hopper", "rocket")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Four photographs, in the dark, at four levels of blur each; the opinion is the sharpness."""
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    lines = ["picture,mos"]
    for name in NAMES:
        for level in range(4):
            image = distort(photograph(name)[None, :, 60:156, 60:156], "blur", level / 4)[0] * 0.25
            Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(tmp_path / f"{name}{level}.png")
            lines.append(f"{name}{level}.png,{4 - level}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_an_interrupted_evaluation_goes_on_where_it_stopped(table, monkeypatch):
    """Two of four batches, then a line cut short; the rest is computed, and all is as in one go."""
    database, model = from_csv(table, "picture", "mos"), load_source_model()
    options = {"batch_size": 4, "crops": 1}
    whole = list(score_database(model, database, **options))
    assert [len(batch) for batch in whole] == [4] * 4 and {row.path for b in whole for row in b} == set(database.paths)
    (kept,) = (table.parent / "cache" / "evaluate").glob("*.jsonl")
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:2]) + lines[2][:30])
    runs, true = [], Adapter.run
    monkeypatch.setattr(Adapter, "run", lambda self, images: runs.append(len(images)) or true(self, images))
    assert list(score_database(model, database, **options)) == whole
    assert runs == [4, 4]
    assert list(score_database(model, database, **options)) == whole and len(runs) == 2
    list(score_database(model, database, **options | {"seed": 1}))
    assert len(runs) == 6


@pytest.mark.parametrize("what", ["model", "file"])
def test_what_is_kept_is_of_this_model_and_these_files(table, what):
    database = from_csv(table, "picture", "mos")
    first = list(score_database(load_source_model(), database, crops=1))
    if what == "file":
        Image.new("RGB", (96, 96)).save(database.paths[0])
    second = list(score_database(load_source_model(int(what == "model")), database, crops=1))
    assert first != second


def test_three_metrics_are_compared_and_contents_are_resampled():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=60)
    good, bad = truth + 0.3 * generator.normal(size=60), truth + 2 * generator.normal(size=60)
    one_each, six = np.arange(60), np.arange(60) // 10
    found = compare(good, bad, truth, one_each, count=200)
    assert found.keys() == {"SRCC", "PLCC", "KRCC"}
    before, after, change = found["SRCC"]
    assert before.value == pytest.approx(srcc(bad, truth)) and after.value == pytest.approx(srcc(good, truth))
    assert change.value == pytest.approx(after.value - before.value) and change.low > 0
    assert compare(good, bad, truth, six, count=200)["SRCC"][2] != change


def test_the_command_compares_and_writes_what_it_compared(table):
    out = table.parent / "out.csv"
    options = ("--path-column", "picture", "--score-column", "mos", "--crops", 1)
    result = run("evaluate", table, *options, "--csv", out)
    assert result.exit_code == 0, result.output
    assert "table: 16 images, 4 contents" in result.stdout and "1 of 1 batches" in result.stdout
    rows = list(csv.DictReader(out.open()))
    truth, new, old = ([float(row[key]) for row in rows] for key in ("opinion", "score", "source_score"))
    printed = re.search(r"^SRCC +(-?[\d.]+) .*?\] +(-?[\d.]+) .*?\] +([+-][\d.]+)", result.stdout, re.MULTILINE)
    expected = srcc(old, truth), srcc(new, truth), srcc(new, truth) - srcc(old, truth)
    assert [float(number) for number in printed.groups()] == pytest.approx(expected, abs=6e-3)
    images = torch.stack([read_image(row["path"]) for row in rows])
    model = load_source_model()
    assert old == pytest.approx(Adapter(model).run(images).source_scores.tolist(), abs=1e-4)
    turned = run("evaluate", table, *options, "--lower-is-better")
    assert re.search(r"^SRCC +-", turned.stdout, re.MULTILINE) != re.search(r"^SRCC +-", result.stdout, re.MULTILINE)


def test_an_image_that_cannot_be_read_is_left_out_and_named(table):
    (table.parent / "cat2.png").write_bytes(b"no image")
    result = run("evaluate", table, "--path-column", "picture", "--score-column", "mos", "--crops", 1)
    assert result.exit_code == 1 and "cat2.png" in result.stderr and "15 images" in result.stdout


def test_a_limit_draws_evenly(table):
    result = run("evaluate", table, "--path-column", "picture", "--score-column", "mos", "--crops", 1, "--limit", 8)
    assert result.exit_code == 0 and "8 images, 4 contents" in result.stdout


@pytest.mark.parametrize("arguments", [["{}"], ["{}/none"], ["{}/table.csv"], ["{}/table.csv", "--crops", "2"]])
def test_bad_usage_is_one_line_that_says_what_is_wrong(table, arguments):
    result = run("evaluate", *(a.format(table.parent) for a in arguments))
    assert result.exit_code == 2 and result.stdout == "" and len(result.stderr.strip().splitlines()) == 1
