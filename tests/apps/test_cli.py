"""The command line, as a user meets it."""

import csv
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model
from PIL import Image
from typer.cli import app as typer_cli
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.scoring import score_files
from tta_iqa_lib.experiments import grids, haze
from tta_iqa_lib.experiments import runner as experiments
from tta_iqa_lib.experiments.analysis import mean_srcc
from tta_iqa_lib.imaging.crops import grid_crops, resize_to, symmetries
from tta_iqa_lib.imaging.files import read_image
from tta_iqa_lib.imaging.scenes import PHOTOGRAPHS, photograph
from tta_iqa_lib.models.saving import load_source_model

SMALL = ("--model", "source-0")  # the default model takes longer


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def write(path, image: torch.Tensor):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """A sharp photograph, the same one blurred, a landscape, a portrait, a tiny image, in nested folders."""
    cat = photograph("cat")
    blurred = torch.nn.functional.avg_pool2d(cat[None], 9, 1, 4)[0]
    write(tmp_path / "a" / "sharp.png", cat)
    write(tmp_path / "a" / "deep" / "blurred.png", blurred)
    write(tmp_path / "b" / "portrait.jpg", photograph("hopper")[:, :300, :140])
    write(tmp_path / "b" / "tiny.bmp", cat[:, 150:190, 200:250])
    return tmp_path


def scores_of(result) -> dict[str, float]:
    pairs = (line.split("\t") for line in result.stdout.splitlines())
    return {path.rsplit("/", 1)[-1]: float(score) for score, path in pairs}


def test_a_folder_is_scored_recursively_and_sharp_beats_blurred(folder):
    result = run("score", folder, *SMALL)
    scores = scores_of(result)
    assert result.exit_code == 0 and len(scores) == 4
    assert scores["sharp.png"] > scores["blurred.png"]
    assert "not human opinion" in result.stderr and "not human" not in result.stdout


def test_adapting_changes_scores_and_is_repeatable(tmp_path):
    """In the dark, by more than symmetric views do; in batches that the seed draws. The files keep their order all the same."""
    for i, name in enumerate(PHOTOGRAPHS):
        write(tmp_path / f"{i}.png", 0.25 * photograph(name)[:, :200, :200])
    small = ("--adapt", "--batch-size", "4", "--csv", tmp_path / "out.csv")
    plain, first, other, second = (
        run("score", tmp_path, *SMALL, *more) for more in ((), small, (*small, "--seed", "1"), small)
    )
    assert first.exit_code == 0 and first.stdout == second.stdout
    assert len({plain.stdout, first.stdout, other.stdout}) == 3
    assert list(scores_of(plain)) == list(scores_of(first)) == list(scores_of(other))
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert max(abs(float(r["score"]) - float(r["source_score"])) for r in rows) > 0.01


def test_the_csv_holds_both_scores(folder, tmp_path):
    result = run("score", folder, *SMALL, "--adapt", "--csv", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [f"{float(r['score']):.4f}\t{r['path']}" for r in rows] == result.stdout.splitlines()
    plain = scores_of(run("score", folder, *SMALL))
    assert all(abs(float(r["source_score"]) - plain[r["path"].rsplit("/", 1)[-1]]) < 1e-3 for r in rows)


def test_an_unreadable_file_is_reported_and_the_rest_is_scored(folder):
    (folder / "a" / "broken.jpg").write_bytes(b"no image")
    result = run("score", folder, *SMALL)
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 4
    assert "broken.jpg" in result.stderr and "1 of 5" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "missing"],
        ["score", "{}", "--crops", "3"],
        ["score", "{}", "--crops", "0"],
        ["score", "{}/empty"],
        ["score", "{}/none.png"],
        ["score", "{}", "--csv", "{}/none/out.csv"],
        ["score", "{}", "--model", "{}/none.safetensors"],
        ["score", "{}", "--model", "{}/a/sharp.png"],
        ["evaluate", "{}", "--model", "{}/a/sharp.png"],
        ["experiment", "none"],
        ["opinions", "{}/empty"],
        ["order-study", "{}/a"],
        ["order-study", "a={}/a"],
    ],
)
def test_bad_usage_gives_one_line_and_exit_two(folder, arguments):
    """Before anything is scored or run: nothing is lost by a slip in a long command."""
    (folder / "empty").mkdir()
    result = run(*(a.format(folder) for a in arguments))
    assert result.exit_code == 2 and not result.stdout
    assert len(result.stderr.strip().splitlines()) == 1


def test_nothing_readable_is_exit_two(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    assert run("score", tmp_path, *SMALL).exit_code == 2


def test_a_file_s_score_is_the_mean_over_its_crops_at_native_resolution(tmp_path):
    """Two images of 2 × 2 crops exactly: the score of each is the mean of its own four, in their eight symmetric views."""
    images = [photograph(name)[:, :192, :192] for name in ("coffee", "cat")]
    files = [write(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
    (rows,) = score_files(load_source_model(), files, crops=4)
    for row, file, image in zip(rows, files, images, strict=True):
        crops = torch.stack([image[:, y : y + 96, x : x + 96] for y in (24, 72) for x in (24, 72)])
        with torch.no_grad():
            views = symmetries((crops * 255).round() / 255, 8)
            expected = torch.stack([load_source_model()(view) for view in views]).mean()
        assert row.path == file and row.score == pytest.approx(float(expected), abs=1e-4)


def test_the_demo_prints_every_target(monkeypatch):
    """One row a target, one number a method: those of a stand-in grid, as the real one takes minutes (`make book`).

    And it ends with the model of people's opinions, here asked about one haze.
    """
    found = haze.in_haze(load_source_model("photographs"), (0.6,))
    monkeypatch.setattr(haze, "in_haze", lambda model: found if model.predicts.startswith("human") else [])
    grid = grids.Grid("demo", ("source", "bn-blend"), ("target/dusk", "target/haze"), (0,), (8,), 16)
    monkeypatch.setitem(grids.GRIDS, "demo", grid)
    result = run("demo", "--processes", "1")
    assert result.exit_code == 0
    results = experiments.run_grid(grid, 1, progress=False)
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line.startswith("target/"))
    expected = {t: [mean_srcc(results, m, t, 8) for m in grid.methods] for t in grid.targets}
    assert {t: row.split() for t, row in rows.items()} == {t: [f"{v:.2f}" for v in e] for t, e in expected.items()}
    assert np.isfinite(list(expected.values())).all()
    assert result.stdout.splitlines()[-1].split() == ["0.6", f"{found[0].source:.2f}", f"{found[0].adapted:.2f}"]


def test_a_pack_and_the_experiment_on_it(tmp_path, folder, monkeypatch):
    """The pack is made by one command; the other hands it on, and writes what comes back."""
    from tta_iqa_lib.experiments.opinions import study, summary

    packed, table = tmp_path / "pack", folder / "opinions.csv"
    table.write_text("path,mos\na/sharp.png,4\na/deep/blurred.png,2\nb/portrait.jpg,3\n")
    made = run("pack", packed, "--part", f"live={table}")
    assert made.exit_code == 0 and "3 pictures, 2 contents" in made.stdout  # one cat is the other, blurred
    twice = run("pack", packed, "--part", f"a={table}", "--part", f"a={table}")
    assert twice.exit_code == 2 and "NAME=PATH, each name once" in twice.stderr
    seen = []

    def fake(place, processes, role, grid):
        seen.append((place.pack, place.scale, processes, role, grid))
        return {"about": {}, "truth": {}, "runs": [{"batch_size": 8}, {"batch_size": 8}, {"batch_size": 32}]}

    monkeypatch.setattr(study, "run_study", fake)
    monkeypatch.setattr(summary, "summarise", lambda _results: [])
    monkeypatch.setattr(summary, "text_table", lambda _results, size: f"the table of {size}")
    out = tmp_path / "o.json"
    found = run(
        "opinions", packed, "--scale", "reduced", "--role", "test", "--grid", "others", "--processes", "3", "--out", out
    )
    assert found.exit_code == 0 and out.is_file()
    assert [line for line in found.stdout.splitlines() if line.startswith("the ")] == [
        "the table of 8",
        "the table of 32",
    ]
    assert seen == [(str(packed), "reduced", 3, "test", "others")]
    assert (
        run("opinions", packed, "--scale", "tiny").exit_code == run("opinions", packed, "--grid", "tiny").exit_code == 2
    )


def test_a_picture_is_reduced_to_the_side_that_the_model_knows(tmp_path):
    """And never enlarged."""
    large = write(tmp_path / "large.png", photograph("cat")[:, :120, :200])
    small = write(tmp_path / "small.png", photograph("cat")[:, :38, :60])
    model = tiny_model(crop=32, side=40)
    (rows,) = score_files(model, [large, small], crops=4)
    for row, image in zip(rows, (resize_to(read_image(large), 40), read_image(small)), strict=True):
        assert row.score == pytest.approx(model(grid_crops(image, 32, 4)).mean().item(), abs=1e-5)


def test_help_names_every_command():
    """In a line of its own: a word of another command's description is not enough."""
    text = run("--help").stdout
    for command in ("score", "demo", "experiment", "pack", "opinions", "order-study", "train", "manifest"):
        assert re.search(rf"^\W*{command}  ", text, re.MULTILINE), command


def test_the_books_page_of_commands_is_what_the_program_says():
    """Written by `typer tta_iqa_lib.apps.cli utils docs --name tta-iqa --title "Command line" --output book/command_line.md`."""
    documented = CliRunner().invoke(
        typer_cli, ["tta_iqa_lib.apps.cli", "utils", "docs", "--name", "tta-iqa", "--title", "Command line"]
    )
    page = (Path(__file__).parents[2] / "book" / "command_line.md").read_text(encoding="utf-8")
    assert documented.exit_code == 0 and documented.stdout.strip() == page.strip()


def test_printing_takes_time_that_grows_with_the_number_of_pictures_not_with_its_square(monkeypatch, tmp_path):
    from tta_iqa_lib.apps import resuming
    from tta_iqa_lib.apps.cli import scoring as command
    from tta_iqa_lib.apps.results import Row

    def at_once(_scorer, batches, _journal, _workers):
        return ((i, [Row(path, 0.5, 0.5) for path in batch]) for i, batch in enumerate(batches))

    monkeypatch.setattr(resuming, "score_open", at_once)
    took = {}
    for count in (2_000, 16_000):
        files = [tmp_path / f"{i:06d}.jpg" for i in range(count)]
        monkeypatch.setattr(command, "images_of", lambda _paths, _column, files=files: files)
        start = time.process_time()
        found = run("score", tmp_path, "--model", "source-0")
        took[count] = time.process_time() - start
        assert found.exit_code == 0 and len(found.stdout.splitlines()) == count
    assert took[16_000] < 16 * took[2_000] + 0.5
