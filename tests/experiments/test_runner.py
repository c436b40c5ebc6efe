"""The grid: resumable, independent of processes, and honest in its summaries."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

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
from tta_iqa_lib.experiments.runner import run_grid, runs_store
from tta_iqa_lib.experiments.runs import run_one
from tta_iqa_lib.experiments.seeds import Seeds
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models.saving import load_source_model
from tta_iqa_lib.store import code

ROOT = Path(__file__).resolve().parents[2]
SMALL = Grid("small", ("source", "bn-batch", "recipe"), ("target/dusk",), (0, 1), (8,), 16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, Path]:
    """The results of `SMALL` in one go, and the cache folder that came of it."""
    cache = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTA_IQA_CACHE", str(cache))
        return run_grid(SMALL, 1, progress=False), cache


@pytest.fixture
def cache(whole, tmp_path, monkeypatch):
    """A cache folder of the test's own, in which the benchmark is built."""
    shutil.copytree(whole[1] / "tinyshift", tmp_path / "tinyshift")
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    return tmp_path


def test_an_interrupted_grid_resumes_with_the_same_results(whole, cache):
    """What is done is kept and not run again, what is damaged is; and the results are those of one go."""
    shutil.copytree(whole[1] / "runs", cache / "runs")
    files = sorted(runs_store(SMALL).folder.iterdir())
    assert len(files) == len(SMALL.runs())
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:20])
    again = run_grid(SMALL, 2, progress=False)
    assert again == whole[0]
    assert [file.stat().st_mtime_ns == times[file] for file in files] == [False] * 2 + [True] * (len(files) - 2)


def test_a_grid_that_is_killed_ends_with_its_workers_and_resumes(whole, cache):
    """SIGKILL after the first run: nobody goes on in the background, nothing that was done is lost."""
    program = (
        "from tta_iqa_lib.experiments.grids import Grid; from tta_iqa_lib.experiments.runner import run_grid\n"
        f"if __name__ == '__main__': run_grid({SMALL!r}, 1, progress=False)"
    )
    script = cache / "script.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not (done := list(runs_store(SMALL).folder.glob("*.json"))):
        assert process.poll() is None
        time.sleep(0.02)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert len(done) < len(SMALL.runs())
    end = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, workers))
    times = {file: file.stat().st_mtime_ns for file in runs_store(SMALL).folder.glob("*.json")}
    assert run_grid(SMALL, 1, progress=False) == whole[0]
    assert all(file.stat().st_mtime_ns == before for file, before in times.items())


def test_a_worker_that_is_lost_ends_the_command_with_one_line_and_what_is_done_is_kept(whole, cache):
    program = f"""
import os, signal
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.experiments import runner
from tta_iqa_lib.experiments.grids import GRIDS, Grid
true, calls = runner.run_one, []
def lost(*settings):
    calls.append(settings)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return true(*settings)
GRIDS["small"] = {SMALL!r}
if __name__ == "__main__":
    runner.run_one = lost
    app()
"""
    script = cache / "script.py"
    script.write_text(program)
    command = [sys.executable, str(script), "experiment", "small", "--processes", "1", "--out", str(cache)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and "a worker was ended from outside" in done.stderr and "Traceback" not in done.stderr
    times = {file: file.stat().st_mtime_ns for file in runs_store(SMALL).folder.glob("*.json")}
    assert 0 < len(times) < len(SMALL.runs())
    assert run_grid(SMALL, 1, progress=False) == whole[0]
    assert all(file.stat().st_mtime_ns == before for file, before in times.items())


def children(process: int) -> list[int]:
    """The processes that a process has started; none where the system does not tell."""
    file = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in file.read_text().split()] if file.is_file() else []


def alive(process: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_runs_are_found_again_only_under_all_that_decides_them(monkeypatch):
    """Each alone: code, benchmark, weights, and the settings of a grid that change a run."""
    first = runs_store(SMALL).key
    assert first == runs_store(Grid(*vars(SMALL).values())).key
    assert first == runs_store(replace(SMALL, name="larger", methods=MAIN, seeds=(0, 4))).key  # they share their runs
    for other in ({"images": 17}, {"order": "by-content"}, {"online": True}):
        assert runs_store(replace(SMALL, **other)).key != first
    for module in ("experiments/runs.py", "models/training.py", "adaptation/loop.py", "imaging/distortions.py"):
        text, read = (ROOT / "tta_iqa_lib" / module).read_text(encoding="utf-8"), code._read
        with monkeypatch.context() as patch:
            patch.setattr(code, "_read", lambda t, package, f=text, r=read: r(t + "\ny = 0\n" * (t == f), package))
            assert runs_store(SMALL).key != first
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "fingerprint", lambda: "of another benchmark")
        assert runs_store(SMALL).key != first
    true = experiments.load_source_model

    def trained_anew(source):
        model = true(source)
        model.regressor.bias += float(source == 2)
        return model

    monkeypatch.setattr(experiments, "load_source_model", trained_anew)
    assert runs_store(SMALL).key != first


def test_runs_that_differ_in_a_seed_are_kept_apart(cache, monkeypatch):
    """A grid that varies the order alone; run 0 it has in common with the others, and the results tell runs by number."""
    grid = Grid("orders", ("source", "rank"), ("target/dusk",), (0, 1), (8,), 8)
    all_vary = run_grid(grid, 1, progress=False)["runs"]
    assert len(list(runs_store(grid).folder.iterdir())) == 4
    orders = run_grid(replace(grid, vary=("order",)), 1, progress=False)["runs"]
    assert len(list(runs_store(grid).folder.iterdir())) == 6
    assert [run["seed"] for run in orders] == [run["seed"] for run in all_vary] == [0, 1, 0, 1]
    (source, other_source), (rank, other_rank) = (
        [r["scores"] for r in orders if r["method"] == m] for m in ("source", "rank")
    )
    assert np.allclose(source, other_source, atol=2e-5)  # the same model, whatever the order
    assert not np.allclose(rank, other_rank, atol=1e-3)  # other batches
    assert [orders[i]["scores"] == all_vary[i]["scores"] for i in range(4)] == [True, False, True, False]


def test_a_grid_with_a_misspelt_seed_is_an_error():
    with pytest.raises(ValueError, match="no seed 'orders'"):
        replace(SMALL, vary=("orders",))


def adapter_of(name: str) -> Adapter | None:
    """The `Adapter` inside a method, if there is one."""
    scorer = METHODS[name].adapter(load_source_model(0), 0)
    adapter = getattr(scorer, "adapter", scorer)
    return adapter if isinstance(adapter, Adapter) else None


@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_losses_has_a_control_that_differs_in_the_losses_alone(name, monkeypatch):
    monkeypatch.setattr(methods, "source_head", lambda model: torch.nn.Linear(128, 4))  # a fit takes half a minute
    adapter = adapter_of(name)
    if adapter and adapter.recipe.losses:
        control = adapter_of(METHODS[name].control).recipe
        own = adapter.recipe
        assert control.losses == ()
        assert control.inference == own.inference


def test_the_rotation_head_is_fitted_once_for_each_source_model(tmp_path, monkeypatch):
    """Kept, and to the bit what was fitted; another model has another head."""
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    fits = []

    def fit(model, images):
        fits.append(len(images))
        head = torch.nn.Linear(128, 4)
        torch.nn.init.constant_(head.weight, model.regressor.bias.item() / 3)
        return head.requires_grad_(False)

    monkeypatch.setattr(methods, "rotation_head", fit)
    monkeypatch.setattr(methods, "tinyshift", lambda split: (torch.zeros(900, 3, 8, 8), None, None))
    first, again, other = (methods.source_head(load_source_model(source)) for source in (0, 0, 1))
    assert fits == [800, 800]
    assert torch.equal(first.weight, again.weight) and torch.equal(first.bias, again.bias)
    assert not first.weight.requires_grad and not torch.equal(first.weight, other.weight)
    assert first.weight[0, 0].item() == pytest.approx(load_source_model(0).regressor.bias.item() / 3)
    half = methods.source_head(load_source_model(0).bfloat16())  # fitted in single precision, used in the model's
    assert half.weight.dtype == torch.bfloat16 and fits == [800, 800, 800]


def test_a_rotation_head_takes_the_images_of_the_source():
    """Those of TinyShift are at hand; no other model's."""
    model = load_source_model(0)
    model.predicts = "human opinion (LIVE Challenge)"
    with pytest.raises(ValueError, match=r"predicts human opinion .LIVE Challenge.: it goes with source-0"):
        METHODS["ttt"].adapter(model, 0)


def test_scores_are_stored_where_the_grid_asks_for_them(cache):
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
        today = run_one(method, "target/haze", Seeds.of_run(1), 32, results["about"]["grid"]["images"])
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


def touch(folder: str, name: str) -> str:
    """A job that leaves a trace, and takes its time."""
    Path(folder, name).touch()
    time.sleep(0.2)
    return name


def test_where_the_caller_stops_what_has_not_begun_is_not_begun(tmp_path):
    """A pool that is left by an interrupt would otherwise do all the rest first, and throw it away."""
    found = experiments.side_by_side(touch, {str(i): (str(tmp_path), str(i)) for i in range(60)}, 1)
    next(found)
    with pytest.raises(KeyboardInterrupt):
        found.throw(KeyboardInterrupt())
    assert 1 <= len(list(tmp_path.iterdir())) < 20
