"""The four commands of chapter 13 that repeat the paper's protocol, word for word: networks with random weights, databases
of eight pictures each in the official layouts."""

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import pictures
from PIL import Image
from trees import cells, mat, text, workbook
from typer.testing import CliRunner

pyiqa = pytest.importorskip("pyiqa")

from tta_iqa_lib.apps.cli import app  # noqa: E402
from tta_iqa_lib.apps.loading import load_model  # noqa: E402
from tta_iqa_lib.experiments.methods import METHODS  # noqa: E402
from tta_iqa_lib.experiments.published import Published  # noqa: E402

CHAPTER = json.loads((Path(__file__).parents[2] / "book" / "13_scale.ipynb").read_text(encoding="utf-8"))
PROSE = "\n".join("".join(cell["source"]) for cell in CHAPTER["cells"] if cell["cell_type"] == "markdown")
COMMANDS = re.findall(r"^tta-iqa (evaluate .*--model pyiqa:\S+.*)$", PROSE.replace("\\\n", " "), re.MULTILINE)
NAMES = [re.search(r"pyiqa:(\S+)", command)[1] for command in COMMANDS]
# What makes the networks small enough for a test.
SMALL = {"tres-flive": {"network": "resnet18"}, "musiq-paq2piq": {"num_layers": 1, "longer_side_lengths": [64]}}


def koniq10k(root: Path) -> list[Path]:
    names = [f"{i}.jpg" for i in range(8)]
    text(root / "koniq10k_scores_and_distributions.csv", '"image_name","MOS"', *(f'"{n}",{n[0]}.5' for n in names))
    text(root / "koniq10k_distributions_sets.csv", "image_name,MOS,set", *(f"{n},{n[0]}.5,test" for n in names))
    return [root / "1024x768" / name for name in names]


def pipal(root: Path) -> list[Path]:
    names = [f"A0001_0{i}_00.bmp" for i in range(8)]
    text(root / "Train_Label" / "A0001.txt", *(f"{name},{1400 + 7 * i}" for i, name in enumerate(names)))
    return [root / "Train_Dist" / "Distortion_1" / name for name in names]


def cid2013(root: Path) -> list[Path]:
    names = [f"IS_I_C0{i % 2 + 1}_D0{i + 1}" for i in range(8)]
    header = ["Source_ID", "Realigned MOS"]
    rows = [header, *([name, 3.5 * i] for i, name in enumerate(names))]
    workbook(root / "CID2013 data - version 12112014.xlsx", {"CID2013 MOS": rows})
    return [root / "IS1" / f"co{name[7]}" / f"{name}.jpg" for name in names]


def live(root: Path) -> list[Path]:
    originals, scores = np.ones(982, np.uint8), np.zeros(982)
    originals[:8], scores[:8] = 0, np.arange(8) + 20.5
    references = [f"r{i % 4}.bmp" for i in range(982)]
    mat(root / "dmos_realigned.mat", dmos_new=scores[None], dmos_std=scores[None], orgs=originals[None])
    mat(root / "refnames_all.mat", refnames_all=cells(references, row=True))
    return [root / "jp2k" / f"img{i + 1}.bmp" for i in range(8)]


def dslr(table: Path) -> list[Path]:
    names = [f"dslr/{i}.png" for i in range(8)]
    text(table, "path,score", *(f"{name},{name[5]}" for name in names))
    return [table.parent / name for name in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The five databases, side by side."""
    home = tmp_path_factory.mktemp("home")
    places = [make(home / make.__name__) for make in (koniq10k, pipal, cid2013, live)] + [dslr(home / "dslr.csv")]
    for seed, files in enumerate(places):
        for file, image in zip(files, pictures(8, 240, seed), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(file)
    return home


@pytest.fixture
def narrow(offline, monkeypatch, folder, tmp_path):
    """Whatever pyiqa makes has random weights; residual networks have a block a stage, and narrow ones."""
    import timm

    create, build = pyiqa.create_metric, timm.create_model

    def metric(name, **options):
        torch.manual_seed(0)
        return create(name, device=torch.device("cpu"), pretrained=False, **SMALL.get(name, {}) | options)

    def backbone(name, **options):
        return build(name, **options, layers=(1, 1, 1, 1), base_width=8)

    monkeypatch.setattr(pyiqa, "create_metric", metric)
    monkeypatch.setattr(timm, "create_model", backbone)
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    for name in ("published", "published-control"):  # one step, not three
        gradients = name == "published"
        quick = lambda model, seed, g=gradients: Published(model, gradients=g, steps=1, seed=seed)  # noqa: E731
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], adapter=quick))
    return metric


def test_the_chapter_has_a_command_for_each_of_the_paper_s_models():
    assert NAMES == ["tres-flive", "musiq-paq2piq", "hyperiqa", "metaiqa"]


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_a_command_of_the_protocol_runs_to_its_end(command, narrow, tmp_path):
    words = shlex.split(command)
    if "--weights" in words:
        file = Path(words[words.index("--weights") + 1])
        torch.save({"params": narrow(words[words.index("--model") + 1].removeprefix("pyiqa:")).net.state_dict()}, file)
    done = CliRunner().invoke(app, [*words, "--csv", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    names = {"KonIQ-10k", "PIPAL", "CID2013", "LIVE release 2", "dslr"}
    assert {(row["database"], row["method"]) for row in rows} == {
        (name, method) for name in names for method in ("published", "published-control")
    }
    assert len(rows) == 2 * 5 * 8
    scores = np.array([[float(row[key]) for key in ("score", "source_score")] for row in rows])
    adapted = np.array([row["method"] == "published" for row in rows])
    assert np.isfinite(scores).all() and (scores[adapted, 0] != scores[adapted, 1]).any()
    assert done.stdout.count("published-control       published") == 5


def test_weights_go_by_pyiqa_s_names_and_a_metric_s_own_crops_are_left_out(narrow, tmp_path):
    net = narrow("hyperiqa").net
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    images = pictures(2, 224)
    with torch.no_grad():  # of pictures of 224 pixels its crops are all alike, and so many times the work
        assert net.num_crop > 1
        found = load_model("pyiqa:hyperiqa", tmp_path / "w.pth")(images)
        assert torch.allclose(found, net.eval()(images).flatten(), atol=1e-5)
        assert not torch.allclose(found, load_model("pyiqa:hyperiqa")(images), atol=1e-3)
    with pytest.raises(ValueError, match="does not fit 'pyiqa:metaiqa'"):
        load_model("pyiqa:metaiqa", tmp_path / "w.pth")
