"""Small pictures on disk, a plan of them, and the table that must come of it."""

import os

import pytest
import torch
from helpers import pictures
from PIL import Image
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.parts import merge
from tta_iqa_lib.apps.plans import Plan, write_plan
from tta_iqa_lib.apps.results import HEADER, cells
from tta_iqa_lib.apps.settings import Settings
from tta_iqa_lib.apps.tables import write_table


@pytest.fixture
def twelve(tmp_path):
    """Twelve pictures of 40 × 48 pixels, in the dark, with a file among them that is none."""
    place = tmp_path / "twelve"
    place.mkdir()
    for i, image in enumerate(pictures(12, 48)):
        pixels = (0.3 * image[:, :40] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / f"{i:02d}.png")
    (place / "05b.png").write_bytes(b"no image")
    return place


@pytest.fixture
def plan(twelve, tmp_path) -> Plan:
    """Seven batches of two pictures or less."""
    how = Settings(model="helpers:tiny_scorer", method="rank+gc", batch_size=2, crops=1)
    return write_plan(tmp_path / "plan.jsonl", sorted(twelve.iterdir()), how)


@pytest.fixture
def whole(twelve, plan, tmp_path) -> bytes:
    """What `score` gives, in one process and without a plan; on one thread, as a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    how = ["--method", "rank+gc", "--batch-size", "2", "--crops", "1", "--model", "helpers:tiny_scorer"]
    CliRunner().invoke(app, ["score", str(twelve), *how, "--out", str(tmp_path / "whole.csv")])
    torch.set_num_threads(before)
    content = (tmp_path / "whole.csv").read_bytes()
    names = [line.split(b",")[0].rsplit(b"/", 1)[-1] for line in content.splitlines()[1:]]
    assert names == sorted(os.fsencode(path.name) for path in twelve.iterdir())
    return content


@pytest.fixture
def merged(plan):
    """Merges what has been done of the plan, and gives the table's bytes."""

    def merged() -> bytes:
        out = plan.path.with_name("merged.csv")
        write_table(out, HEADER, map(cells, merge(plan).rows))
        return out.read_bytes()

    return merged
