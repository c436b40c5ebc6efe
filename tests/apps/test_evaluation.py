"""A model on a database: what is kept, what is compared, and what the command prints."""

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_mixed
from PIL import Image
from typer.testing import CliRunner

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.evaluation import compare, score_database
from tta_iqa_lib.apps.scorers import Scorer
from tta_iqa_lib.datasets.databases import from_csv
from tta_iqa_lib.imaging.distortions import distort
from tta_iqa_lib.imaging.files import read_image
from tta_iqa_lib.imaging.scenes import photograph
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models.saving import load_source_model

ROOT = Path(__file__).resolve().parents[2]
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
    """With the small model, which takes no time."""
    return CliRunner().invoke(app, [str(a) for a in arguments] + ["--model", "source-0"])


def test_an_interrupted_evaluation_goes_on_where_it_stopped(table, monkeypatch):
    """Two of four batches, then one that is cut short; the rest is computed, and all is as in one go."""
    database, model = from_csv(table, "picture", "mos"), load_source_model()
    options = {"batch_size": 4, "crops": 1}
    whole = list(score_database(model, database, **options))
    assert [len(batch) for batch in whole] == [4] * 4 and {row.path for b in whole for row in b} == set(database.paths)
    kept = sorted((table.parent / "cache" / "evaluate").glob("*/*.json"))
    assert len(kept) == 4
    kept[2].write_bytes(kept[2].read_bytes()[:30])
    kept[3].unlink()
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


def own_scores(model, database, **options) -> list[float]:
    return [row.source_score for batch in score_database(model, database, **options) for row in batch]


def test_two_wraps_of_one_module_are_not_given_each_other_s_scores(table):
    """They differ in what no weight shows: the normalisation, the reading of the score, the size of the crops."""
    database, net = from_csv(table, "picture", "mos"), tiny_mixed()
    larger = tta.wrap_model(net, "6")
    larger.crop = 48
    models = {
        "plain": tta.wrap_model(net, "6"),
        "normalised": tta.wrap_model(net, "6", normalise=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        "hundredfold": tta.wrap_model(net, "6", score=lambda output: output * 100),
        "tenfold": tta.wrap_model(net, "6", score=lambda output: output * 10),
        "smaller crops": larger,
    }
    found = {name: own_scores(model, database, crops=1) for name, model in models.items()}
    assert len({tuple(scores) for scores in found.values()}) == len(models)
    assert np.allclose(np.array(found["hundredfold"]), 10 * np.array(found["tenfold"]), rtol=1e-4)
    assert found == {name: own_scores(model, database, crops=1) for name, model in models.items()}
    assert len(list((table.parent / "cache" / "evaluate").iterdir())) == len(models)


def test_a_score_that_nothing_tells_from_another_is_computed_each_time(table, caplog):
    endless = (i for i in range(10**9))
    model = tta.wrap_model(tiny_mixed(), "6", score=lambda output: output if endless else None)
    database = from_csv(table, "picture", "mos")
    assert own_scores(model, database, crops=1) == own_scores(model, database, crops=1)
    assert not (table.parent / "cache" / "evaluate").exists() and "'evaluate' are not kept" in caplog.text


def test_a_database_is_the_same_by_another_spelling_of_its_path(table, monkeypatch):
    """Absolute, from its own folder, through a link: found again, and each row has the spelling that was asked for."""
    model, runs, true = load_source_model(), [], Adapter.run
    monkeypatch.setattr(Adapter, "run", lambda self, images: runs.append(len(images)) or true(self, images))
    (table.parent / "link").symlink_to(table.parent)
    first = list(score_database(model, from_csv(table, "picture", "mos"), crops=1))
    monkeypatch.chdir(table.parent)
    for spelling in ("table.csv", "link/table.csv"):
        database = from_csv(Path(spelling), "picture", "mos")
        again = list(score_database(model, database, crops=1))
        assert {row.path for row in again[0]} == set(database.paths) != {row.path for row in first[0]}
        assert [row.score for row in again[0]] == [row.score for row in first[0]]
        assert (
            run("evaluate", spelling, "--path-column", "picture", "--score-column", "mos", "--crops", 1).exit_code == 0
        )
    assert runs == [16]


def test_evaluations_side_by_side_that_stop_half_way_lose_nothing(table):
    """Two take turns, both are stopped; a third one ends with every image, and with the scores of one alone."""
    database, model = from_csv(table, "picture", "mos"), load_source_model()
    options = {"batch_size": 4, "crops": 1}
    together = [score_database(model, database, **options) for _ in range(2)]
    begun = [next(batches) for _ in range(2) for batches in together]
    for batches in together:
        batches.close()
    third = list(score_database(model, database, **options))
    assert begun[0] == begun[1] == third[0] and begun[2] == begun[3] == third[1]
    assert sorted(row.path for batch in third for row in batch) == sorted(database.paths)
    folder = table.parent / "cache" / "evaluate"
    shutil.rmtree(folder)
    assert list(score_database(model, database, **options)) == third


def test_evaluations_in_two_processes_and_one_that_is_killed(table):
    """SIGKILL in the middle; then two at once from there on: both end well, and print the same."""
    command = [
        sys.executable,
        "-c",
        "from tta_iqa_lib.apps.cli import app; app()",
        "evaluate",
        str(table),
        "--path-column",
        "picture",
    ]
    command += ["--score-column", "mos", "--crops", "1", "--batch-size", "1", "--model", "source-0"]
    cache = table.parent / "cache" / "evaluate"

    def begin():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    killed = begin()
    while not len(list(cache.glob("*/batch-*.json"))) >= 2:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    done = {file: file.stat().st_mtime_ns for file in cache.glob("*/batch-*.json")}
    assert 2 <= len(done) < 16
    both = [begin(), begin()]
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed[0][0] == printed[1][0] and "16 images" in printed[0][0]
    assert "damaged" not in printed[0][1] + printed[1][1]
    assert len(list(cache.glob("*/batch-*.json"))) == 16 and all(f.stat().st_mtime_ns == t for f, t in done.items())


def test_a_batch_with_an_image_that_cannot_be_read_is_tried_anew(table):
    database, model = from_csv(table, "picture", "mos"), load_source_model()
    good = database.paths[3].read_bytes()
    about = database.paths[3].stat()
    database.paths[3].write_bytes(bytes(len(good)))
    os.utime(database.paths[3], ns=(about.st_atime_ns, about.st_mtime_ns))
    (rows,) = score_database(model, database, crops=1)
    assert [row.path for row in rows if row.error] == [database.paths[3]]
    database.paths[3].write_bytes(good)  # as where a share was away for a moment: the file has not changed
    os.utime(database.paths[3], ns=(about.st_atime_ns, about.st_mtime_ns))
    (rows,) = score_database(model, database, crops=1)
    assert not any(row.error for row in rows) and np.isfinite([row.score for row in rows]).all()


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


def printed(stdout: str, database: str, other: str, method: str) -> list[float]:
    """SRCC of the other and of the method, and their difference, as they stand under a database's name."""
    block = stdout[stdout.index(f"{database}: ") :]
    line = re.search(rf"^ +{re.escape(other)} +{re.escape(method)} +difference\nSRCC (.*)$", block, re.MULTILINE)[1]
    return [float(number) for number in re.findall(r"([+-]?\d\.\d+) \[", line)]


def test_several_methods_on_several_databases_each_beside_its_control(table):
    fewer = table.with_name("fewer.csv")
    fewer.write_text("\n".join(table.read_text().split("\n")[:13]))
    out, options = table.parent / "out.csv", ("--path-column", "picture", "--score-column", "mos", "--crops", 1)
    methods = ("--method", "rank+gc", "--method", "bn-blend", "--method", "ema")
    result = run("evaluate", table, fewer, *options, *methods, "--batch-size", 8, "--csv", out)
    assert result.exit_code == 0, result.output
    found = {}
    for row in csv.DictReader(out.open()):
        found.setdefault((row["database"], row["method"]), []).append(row)
    assert {key: len(rows) for key, rows in found.items()} == {
        (name, method): count for name, count in (("table", 16), ("fewer", 12)) for method in methods[1::2]
    }
    srccs = {k: srcc(*([float(r[name]) for r in rows] for name in ("score", "opinion"))) for k, rows in found.items()}
    for name in ("table", "fewer"):
        new, old = (srccs[name, method] for method in ("rank+gc", "bn-blend"))
        assert printed(result.stdout, name, "bn-blend", "rank+gc") == pytest.approx([old, new, new - old], abs=6e-3)
        assert printed(result.stdout, name, "source model", "ema")[1] == pytest.approx(srccs[name, "ema"], abs=6e-3)
    assert "table: 16 images" in result.stdout and result.stdout.count("rank+gc: adapted to 2 of 2 batches") == 2
    assert result.stdout.count("bn-blend                rank+gc") == 2


def test_a_stream_is_scored_whole_and_not_kept(table):
    database, model = from_csv(table, "picture", "mos"), load_source_model()
    options = {"batch_size": 4, "crops": 1, "method": "ema"}
    whole = list(score_database(model, database, **options))
    assert not (table.parent / "cache" / "evaluate").exists()
    stream = Scorer(model, "ema")
    for rows in whole:
        images = torch.stack([read_image(row.path) for row in rows])
        assert [row.score for row in rows] == pytest.approx(stream(images).scores, abs=1e-6)
    assert list(score_database(model, database, **options, workers=2)) == whole


def test_a_score_that_is_lower_for_the_better_is_turned(table, monkeypatch):
    (table.parent / "turned.py").write_text(
        "import helpers, tta_iqa_lib as tta\n"
        "def up(): return tta.wrap_model(helpers.tiny_mixed(), '6')\n"
        "def down(): return tta.wrap_model(helpers.tiny_mixed(), '6', higher_is_better=False)\n"
    )
    monkeypatch.chdir(table.parent)
    arguments = ["evaluate", "table.csv", "--path-column", "picture", "--score-column", "mos", "--crops", "1"]
    up, down = (
        printed(
            CliRunner().invoke(app, [*arguments, "--method", "bn-batch", "--model", f"turned:{way}"]).stdout, *between
        )
        for between in [("table", "source model", "bn-batch")]
        for way in ("up", "down")
    )
    assert up[0] != 0 and down == [-number for number in up]


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
