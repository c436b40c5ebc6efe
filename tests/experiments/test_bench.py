"""The bench: what it holds the loop against, and how it measures."""

import time
from dataclasses import replace

import pytest
import torch
from helpers import tiny_model

from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.experiments import bench, contestants
from tta_iqa_lib.experiments.bench import run_bench, settings_of
from tta_iqa_lib.experiments.contestants import RECIPES, Setting, floor_of
from tta_iqa_lib.models.quality import QualityModel


class Counting(QualityModel):
    """Counts the rows that pass through it and through its copies."""

    rows = 0

    def forward(self, images, with_features=False):
        Counting.rows += len(images)
        return super().forward(images, with_features)


def rows_of(run) -> int:
    Counting.rows = 0
    run()
    return Counting.rows


@pytest.fixture
def model():
    model = tiny_model()
    model.__class__ = Counting
    model.views = 2
    return model


# In batches: source; the candidates; three steps on the images and their two copies; the final scores.
FLOORS = {
    "no adaptation": 1,
    "statistics only": 2,
    "rank": 1 + 6 + 3 * 3 + 1,
    "gc": 1 + 3 + 1,
    "rank + gc": 1 + 6 + 3 * 3 + 1,
}


@pytest.mark.parametrize("recipe", FLOORS)
def test_the_floor_has_the_passes_that_a_recipe_needs(model, recipe):
    assert rows_of(floor_of(Setting("", recipe, 4), model, torch.rand(4, 3, 32, 32))) == 4 * FLOORS[recipe]


@pytest.mark.parametrize(("recipe", "normalisations"), [("first-layers", 2), ("three-normalisations", 3)])
def test_the_floor_of_the_default_recipe_has_a_pass_for_each_normalisation_and_view(model, recipe, normalisations):
    model.recipe = recipe
    assert rows_of(floor_of(Setting("", "default", 4), model, torch.rand(4, 3, 32, 32))) == 4 * 2 * normalisations


@pytest.mark.parametrize("recipe", [*FLOORS, "default"])
def test_the_loop_passes_no_more_rows_than_its_floor(model, recipe):
    model.recipe = "three-normalisations"  # no gate, which might leave the batch to the source
    images = torch.rand(4, 3, 32, 32)
    floor = rows_of(floor_of(Setting("", recipe, 4), model, images))
    assert rows_of(lambda: Adapter(model, **RECIPES[recipe])(images)) <= floor


def test_one_thread_is_timed_by_its_processor_and_more_by_the_clock():
    setting = Setting("small", "default", 1)
    assert bench._time(lambda: time.sleep(0.1), setting) < 0.05
    assert bench._time(lambda: time.sleep(0.1), replace(setting, threads=2)) >= 0.1


def test_what_an_interrupted_bench_measured_is_not_measured_again(monkeypatch, tmp_path):
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    measured = []

    def measure(setting, repeats):
        if len(measured) == 1 and not again:
            raise KeyboardInterrupt
        measured.append(setting)
        return {"batch": setting.batch, "ours": 1.5}

    monkeypatch.setattr(bench, "measure", measure)
    settings, again = settings_of(["small"], [1, 2], recipes=["default"], precisions=["float32"]), False
    with pytest.raises(KeyboardInterrupt):
        run_bench(settings, progress=False)
    again = True
    assert [run["batch"] for run in run_bench(settings, progress=False)["runs"]] == [1, 2]
    assert [setting.batch for setting in measured] == [1, 2]
    run_bench(settings, fresh=True, progress=False)
    assert len(measured) == 4


def test_episodes_that_are_folded_pass_no_more_rows_than_the_floor_of_them_all(model, monkeypatch):
    images = torch.rand(8, 3, 32, 32)
    monkeypatch.setattr(contestants, "network_of", lambda name: model)
    monkeypatch.setattr(contestants, "images_of", lambda side, count: images[:count])
    runs = contestants.contestants(Setting("small", "rank + gc", 4, episodes=2))
    assert "published" not in runs
    assert rows_of(runs["forward"]) == 8
    assert rows_of(runs["ours"]) <= rows_of(runs["floor"]) == 8 * FLOORS["rank + gc"]


def test_a_gpu_is_measured_eager_captured_and_folded():
    found = settings_of(["small"], [8, 32], "cuda", recipes=["default", "rank + gc"])
    assert {setting.mode for setting in found} == {"eager", "captured"}
    assert {(s.batch, s.recipe) for s in found if s.episodes > 1} == {(8, "rank + gc")}
    line = {
        "network": "small",
        "recipe": "rank + gc",
        "batch": 8,
        "threads": 1,
        "precision": "bfloat16",
        "mode": "captured",
    }
    told = bench.table(
        {"runs": [line | {"episodes": 8, "ours": 3.0, "floor": 6.0, "captured floor": 2.0, "memory": 1.0}]}
    )
    assert "8×8" in told and "1.50" in told, "captured is held against captured"


def test_a_measured_line_tells_ratios_to_the_forward_pass():
    line = bench.measure(Setting("small", "statistics only", 2), repeats=1)
    assert line["recipe"] == "statistics only" and line["precision"] == "float32"
    assert 1 < line["floor"] < 6 and 1 < line["ours"] < 8 and line["memory"] > 0.9
    assert "statistics only" in bench.table({"runs": [line]})
