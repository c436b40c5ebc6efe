"""The grid: resumable, independent of processes, and honest in its summaries."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.datasets.tinyshift import TARGETS
from tta_iqa_lib.experiments import analysis, methods
from tta_iqa_lib.experiments import runner as experiments
from tta_iqa_lib.experiments.analysis import difference, headline_targets, mean_srcc, read_results, table, write_results
from tta_iqa_lib.experiments.grids import Grid
from tta_iqa_lib.experiments.methods import MAIN, METHODS
from tta_iqa_lib.experiments.runner import load_target, results_key, run_grid, run_one
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models.quality import load_source_model

SMALL = Grid("small", ("source", "bn-batch", "recipe"), ("target/dusk",), (0, 1), (8,), 16)


def test_an_interrupted_grid_resumes_with_the_same_results(tmp_path, monkeypatch):
    """Kill it after some runs: what is done is kept and not run again, and the results are those of one go."""
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    whole = run_grid(SMALL, 1, progress=False)
    folder = tmp_path / "small" / results_key(SMALL)
    files = sorted(folder.glob("*.json"))
    assert len(files) == len(SMALL.runs())
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    (folder / f"1-{files[0].name}").write_text("[0.1, 0.")  # as a kill leaves it
    again = run_grid(SMALL, 2, progress=False)
    assert again == whole
    assert all(file.stat().st_mtime_ns == times[file] for file in files[1:])


def test_a_run_keeps_the_target_s_order():
    """The images are shuffled before they are batched; the scores come back in place."""
    scores = run_one("source", "target/dusk", 0, 8, 24)
    images, _, _ = load_target("target/dusk", 24)
    with torch.no_grad():
        expected = experiments.load_source_model(0)(images)
    assert np.allclose(scores, expected, atol=1e-4)


def test_the_key_changes_with_the_grid_the_code_the_benchmark_and_the_weights(monkeypatch, tmp_path):
    """Each alone: a result may be kept only where nothing that decides it has changed."""
    first = results_key(SMALL)
    assert first == results_key(Grid(*vars(SMALL).values()))
    assert first != results_key(replace(SMALL, seeds=(0, 4)))  # the same two source models, another order
    for name in ("code_hash", "fingerprint"):
        with monkeypatch.context() as patch:
            patch.setattr(experiments, name, lambda *modules: "changed")
            assert results_key(SMALL) != first
    shutil.copytree(experiments.data_folder() / "models", tmp_path / "models")
    monkeypatch.setattr(experiments, "data_folder", lambda: tmp_path)
    assert results_key(SMALL) == first
    weights = tmp_path / "models" / "source-1.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert results_key(SMALL) != first


def adapter_of(name: str) -> Adapter | None:
    """The `Adapter` inside a method, if there is one."""
    scorer = METHODS[name].adapter(load_source_model(0), 0)
    adapter = getattr(scorer, "adapter", scorer)
    return adapter if isinstance(adapter, Adapter) else None


@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_losses_has_a_control_that_differs_in_the_losses_alone(name, monkeypatch):
    monkeypatch.setattr(methods, "source_head", lambda source: torch.nn.Linear(128, 4))  # a fit takes half a minute
    adapter = adapter_of(name)
    if adapter and adapter.recipe.losses:
        control = adapter_of(METHODS[name].control).recipe
        own = adapter.recipe
        assert control.losses == ()
        assert (control.statistics, control.views, control.gate) == (own.statistics, own.views, own.gate)


def test_scores_are_stored_where_the_grid_asks_for_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    kept = Grid("kept", ("source",), ("target/dusk",), (0,), (8,), 8)
    with_scores, without = (
        run_grid(grid, 1, progress=False)["runs"] for grid in (kept, replace(kept, keep_scores=False))
    )
    assert len(with_scores[0].pop("scores")) == 8 and with_scores == without


def test_a_grid_for_intervals_needs_the_source_model():
    """Told before the runs, which take hours, and not after them."""
    with pytest.raises(ValueError, match="grid 'lost' keeps scores for intervals against the source: add it"):
        Grid("lost", ("bn-batch", "recipe"))
    assert Grid("lost", ("bn-batch", "recipe"), keep_scores=False).runs()


def fake_results(noise: float) -> dict:
    """Two methods on one target; the second is the first plus noise."""
    generator = np.random.default_rng(0)
    quality = generator.uniform(0, 1, 60)
    good = quality + 0.1 * generator.normal(size=60)
    worse = good + noise * generator.normal(size=60)
    content = [f"c{i // 6}" for i in range(60)]
    runs = [
        {"method": m, "target": "target/haze", "seed": 0, "batch_size": 32, "srcc": srcc(s, quality), "scores": list(s)}
        for m, s in (("good", good), ("worse", worse))
    ]
    return {"truth": {"target/haze": {"quality": list(quality), "content": content}}, "runs": runs}


def test_the_difference_of_a_method_with_itself_is_exactly_zero():
    interval = difference(fake_results(0.0), "good", "worse", ["target/haze"], 32, count=20)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_a_clear_difference_has_an_interval_away_from_zero():
    results = fake_results(0.5)
    interval = difference(results, "good", "worse", ["target/haze"], 32, count=200)
    expected = results["runs"][0]["srcc"] - results["runs"][1]["srcc"]
    assert interval.value == pytest.approx(expected) and 0 < interval.low < interval.value < interval.high


def test_results_survive_the_file(tmp_path):
    results = fake_results(0.1) | {"about": {"x": 1}}
    write_results(results, tmp_path / "a" / "r.json")
    assert json.loads((tmp_path / "a" / "r.json").read_text()) == results
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["r.json"]


def test_missing_results_say_how_to_compute_them():
    with pytest.raises(FileNotFoundError, match="tta-iqa experiment nothing"):
        read_results("nothing")


def test_the_stored_headline_is_complete_and_consistent():
    """Every cell of the grid is there, and each stored SRCC is that of its stored scores."""
    results = read_results("headline")
    grid = results["about"]["grid"]
    wanted = {
        (m, t, s, b)
        for m in MAIN
        for t in ("source/test", *TARGETS)
        for s in grid["seeds"]
        for b in grid["batch_sizes"]
    }
    found = {(r["method"], r["target"], r["seed"], r["batch_size"]) for r in results["runs"]}
    assert not wanted ^ found and len(results["runs"]) == len(wanted)
    assert len(grid["seeds"]) >= 3 and {8, 32} <= set(grid["batch_sizes"])
    for run in results["runs"][::7]:
        assert srcc(run["scores"], results["truth"][run["target"]]["quality"]) == pytest.approx(run["srcc"], abs=1e-4)


def test_the_stored_headline_is_what_the_code_computes_today():
    """One run is repeated: the stored scores come from this code and these weights."""
    results = read_results("headline")
    for method in ("source", "bn-blend", "order"):
        (run,) = analysis.select(results, method=method, target="target/haze", seed=1, batch_size=32)
        today = run_one(method, "target/haze", 1, 32, results["about"]["grid"]["images"])
        assert srcc(today, results["truth"]["target/haze"]["quality"]) == pytest.approx(run["srcc"], abs=0.003)


def test_the_headline_mean_leaves_out_the_development_target_and_what_the_source_cannot_read():
    results = read_results("headline")
    chosen = headline_targets(results)
    assert "target/dusk" not in chosen and "target/scenes" not in chosen
    assert all(mean_srcc(results, "source", t, 32) >= 0.2 for t in chosen)
    assert all(f"{mean_srcc(results, 'source', t, 32):.2f}" in table(results, 32) for t in chosen)


def test_the_stored_summary_is_that_of_the_stored_scores():
    """One interval is computed again from the scores of every image."""
    results = read_results("headline")
    stored = analysis.stored_difference(results, "order", "source", "target/haze", 8)
    again = difference(results, "order", "source", ["target/haze"], 8)
    assert (stored.value, stored.low, stored.high) == pytest.approx((again.value, again.low, again.high), abs=1e-3)
    with pytest.raises(KeyError, match="no difference"):
        analysis.stored_difference(results, "order", "gc")
