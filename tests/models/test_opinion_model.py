"""A source model of a database's opinions: how its data are cut, what its file and its command say, the one that is shipped."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from helpers import pictures, seeded
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.datasets.databases import read
from tta_iqa_lib.datasets.near_duplicates import load_images
from tta_iqa_lib.imaging.crops import grid_crops, resize_to
from tta_iqa_lib.imaging.scenes import PHOTOGRAPHS, photograph
from tta_iqa_lib.metrics import plcc, srcc
from tta_iqa_lib.models import opinion_model
from tta_iqa_lib.models.backbones import backbone_model
from tta_iqa_lib.models.fine_tuning import (
    Epoch,
    Settings,
    score_pictures,
)
from tta_iqa_lib.models.opinion_model import draw_curve, train_on_opinions
from tta_iqa_lib.models.quality import MOMENTS
from tta_iqa_lib.models.saving import load_source_model, read_about, save_model
from tta_iqa_lib.store import data_folder

TINY = "test_efficientnet"  # timm's smallest: 360,000 weights


@pytest.fixture
def table(tmp_path):
    """Sixty pictures of 48 × 60 pixels, the last two of which show the same, and their opinions; and a backbone's weights."""
    images = pictures(60, 60, seed=4)[:, :, :48]
    images[59] = 0.9 * images[58]
    lines = ["picture,mos"]
    for i, image in enumerate(images):
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{100 * image.std():.3f}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    save_file(seeded(lambda: timm.create_model(TINY)).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "scores.csv"


def tiny_settings(table, **changes) -> Settings:
    weights = str(table.parent / "weights.safetensors")
    return Settings(TINY, weights=weights, side=40, crop=32, epochs=2, batch_size=16, **changes)


def test_a_trained_model_says_what_it_is_and_its_file_gives_it_back(table, monkeypatch):
    seen = []
    split = opinion_model.split_contents
    monkeypatch.setattr(
        opinion_model, "split_contents", lambda c, seed: seen.append((c, split(c, seed=seed))) or seen[0][1]
    )
    database = read(table, path_column="picture", score_column="mos")
    model, about, curve = train_on_opinions(database, tiny_settings(table, hidden=8), progress=False)
    content, parts = seen[0]
    assert content[58] == content[59]
    names = [set(content[rows]) for rows in parts]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    assert sorted(np.concatenate(parts)) == list(range(60))

    images, opinions = load_images(database, 40, progress=False), database.scores
    scores = score_pictures(model, images[parts[2]], 4)
    assert about["test"]["srcc"][0] == pytest.approx(srcc(scores, opinions[parts[2]]), abs=1e-4)
    assert about["test"]["plcc"][0] == pytest.approx(plcc(scores, opinions[parts[2]]), abs=1e-4)
    assert about["test"]["srcc"][1] <= about["test"]["srcc"][0] <= about["test"]["srcc"][2]
    assert about["images"] == {"train": len(parts[0]), "validation": len(parts[1]), "test": len(parts[2])}
    assert about["predicts"] == "human opinion (scores)" and about["settings"]["weights"] == "weights.safetensors"
    assert (about["crop"], about["side"], about["views"], about["epochs"]) == (32, 40, 2, len(curve))
    with torch.no_grad():
        squares = torch.stack([grid_crops(image, 32, 1)[0] for image in images[parts[0]]]).float() / 255
        train_scores, features = model(squares, with_features=True)
    assert torch.allclose(model.feature_mean, features.mean(0), atol=1e-4)
    assert torch.allclose(model.score_std, train_scores.std(), atol=1e-4)

    assert about["photographs"].keys() == PHOTOGRAPHS.keys()
    cat = resize_to(photograph("cat"), 40)
    assert about["photographs"]["cat"] == pytest.approx(score_pictures(model, cat[None], 4).item(), abs=1e-3)

    file = table.parent / "out" / "m.safetensors"
    save_model(model, file, about, half=True)
    loaded = load_source_model(file)
    assert torch.equal(score_pictures(loaded, images), score_pictures(model, images))
    assert read_about(file) == json.loads(json.dumps(about))
    assert (loaded.crop, loaded.side, loaded.views, loaded.predicts) == (32, 40, 2, about["predicts"])
    for name in MOMENTS:
        before, after = getattr(model, name), getattr(loaded, name)
        assert after.dtype == torch.float32 and torch.allclose(after, before, rtol=1e-3, atol=1e-6), name
    assert torch.equal(loaded.feature_cov, loaded.feature_cov.T)
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    whole = table.parent / "whole.safetensors"
    save_model(model, whole, about)
    assert torch.equal(load_source_model(whole).feature_cov, model.feature_cov)
    assert file.stat().st_size < 0.6 * whole.stat().st_size


def test_what_half_precision_cannot_hold_is_kept_whole(tmp_path):
    model = seeded(lambda: backbone_model(TINY, pretrained=False))
    with torch.no_grad():
        model.features.conv_stem.weight[0, 0, 0, 0] = 1e6
    about = {"backbone": TINY, "hidden": 0}
    save_model(model, tmp_path / "m.safetensors", about, half=True)
    found = load_source_model(tmp_path / "m.safetensors").features.conv_stem.weight
    assert torch.equal(found, model.features.conv_stem.weight)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def options(table, *more):
    columns = ("--path-column", "picture", "--score-column", "mos", "--side", 40, "--crop", 32)
    weights = ("--weights", table.parent / "weights.safetensors", "--backbone", TINY)
    return ("train", table, *columns, *weights, "--batch-size", 16, "--device", "cpu", "--epochs", 1, *more)


def test_the_command_writes_a_model_and_its_learning_curve(table):
    out = table.parent / "out"
    result = run(*options(table, "--name", "Sixty Pictures", "--seed", 3, "--out", out))
    assert result.exit_code == 0, result.output
    assert {file.name for file in out.iterdir()} == {f"sixty-pictures-{TINY}-3.{end}" for end in ("safetensors", "png")}
    about = read_about(out / f"sixty-pictures-{TINY}-3.safetensors")
    assert about["predicts"] == "human opinion (Sixty Pictures)" and about["settings"]["seed"] == 3
    assert f"SRCC {about['test']['srcc'][0]:.3f}" in result.stdout
    scored = run("score", table.parent / "1.png", "--model", out / f"sixty-pictures-{TINY}-3.safetensors")
    assert scored.exit_code == 0 and "human opinion (Sixty Pictures)" in scored.stderr


# Dies as it writes its second checkpoint, that of the second epoch of three.
DYING = """
import os, signal, sys, torch
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.models import fine_tuning

save, written = torch.save, []

def die(state, path):
    written.append(path)
    save(state, path)
    if len(written) == 2:
        os.truncate(path, 1000)
        os.kill(os.getpid(), signal.SIGKILL)

fine_tuning.torch.save = die
app()
"""


def test_a_training_that_is_killed_goes_on_to_the_same_file(table):
    """SIGKILL, in a process of its own, in the middle of writing: the epoch before is still there."""
    whole, file = (table.parent / folder / "m.safetensors" for folder in ("whole", "killed"))
    assert run(*options(table, "--epochs", 3, "--out", whole)).exit_code == 0
    command = [sys.executable, "-c", DYING, *map(str, options(table, "--epochs", 3, "--out", file))]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert file.with_suffix(".checkpoint").is_file() and not file.is_file()
    half = [f for f in file.parent.iterdir() if f.suffix == ".checkpoint" and f != file.with_suffix(".checkpoint")]
    os.utime(half[0], (0, 0))  # of long ago
    result = run(*options(table, "--epochs", 3, "--out", file))
    assert result.exit_code == 0 and "going on from" in result.stderr
    assert file.read_bytes() == whole.read_bytes()
    assert sorted(f.name for f in file.parent.iterdir()) == ["m.png", "m.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--score-column", "none"), "has no column 'none'"),
        (("--backbone", "nonsense"), "no network 'nonsense'"),
        (("--weights", "none.pth"), "no file of weights 'none.pth'"),
        (("--side", 32, "--crop", 40), "crops of 40 pixels cannot be cut from pictures of 32"),
        (("--batch-size", 64), "cannot train on"),
        (("--seed", 1, "--seed", 2, "--out", "m.safetensors"), "one file, 'm.safetensors', for 2 seeds"),
    ],
)
def test_bad_usage_is_one_clear_line(table, arguments, message):
    result = run(*options(table, "--out", table.parent, *arguments))
    assert result.exit_code == 2 and message in result.stderr and not result.stdout


def test_the_learning_curve_is_a_picture(tmp_path):
    draw_curve([Epoch(1.0, 0.3), Epoch(0.5, 0.6)], tmp_path / "deep" / "curve.png", "title")
    with Image.open(tmp_path / "deep" / "curve.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5


# The model in the box

PHOTOGRAPHS_FILE = data_folder() / "models" / "photographs.safetensors"


def test_the_shipped_model_scores_what_its_file_records():
    """Of people's opinions, from 0 to 100; small enough to fetch; the bundled photographs score as recorded."""
    about = read_about(PHOTOGRAPHS_FILE)
    model = load_source_model("photographs")
    assert PHOTOGRAPHS_FILE.stat().st_size <= 10_000_000
    assert (
        about["backbone"] == "tf_efficientnet_lite0"
        and model.predicts == about["predicts"] == "human opinion (LIVE Challenge)"
    )
    assert (model.crop, model.side, model.views) == (224, 384, 2)
    width = model.regressor.in_features
    assert [tuple(getattr(model, name).shape) for name in MOMENTS] == [(width,), (width, width), (), ()]
    recorded = about["photographs"]
    assert recorded.keys() == PHOTOGRAPHS.keys()
    for name, score in recorded.items():
        image = resize_to(photograph(name), model.side)
        assert score_pictures(model, image[None], 4).item() == pytest.approx(score, abs=0.05), name
    assert about["test"]["srcc"][0] >= 0.82


def test_the_card_says_what_the_file_says():
    about = read_about(PHOTOGRAPHS_FILE)
    card = PHOTOGRAPHS_FILE.with_suffix(".md").read_text(encoding="utf-8")
    for metric in ("srcc", "plcc"):
        value, low, high = about["test"][metric]
        assert f"{value:.2f} [{low:.2f}, {high:.2f}]" in card, metric
    for name, found in about["elsewhere"].items():
        line = next(line for line in card.splitlines() if line.startswith(f"| {name} "))
        for metric in ("srcc", "plcc"):
            value, low, high = found[metric]
            assert f" {value:.2f} [{low:.2f}, {high:.2f}] " in line, name
    for part, count in about["images"].items():
        assert f"{count} for {part}" in card, part
    notice = (PHOTOGRAPHS_FILE.parent / "LIVE-Challenge-NOTICE.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2015 The University of Texas at Austin" in notice and "Ghadiyaram" in notice
