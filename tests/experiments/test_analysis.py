"""Differences, their intervals, and what many looks cost."""

import numpy as np
import pytest

from tta_iqa_lib.experiments.analysis import (
    Bootstrap,
    difference,
    headline_targets,
    holm,
    read_results,
    select,
    stored_difference,
    summarise,
)
from tta_iqa_lib.experiments.grids import GRIDS
from tta_iqa_lib.metrics import resamples, srcc


def results_of(noises: dict[str, float], target: str = "target/haze", seeds=(0, 1)) -> dict:
    """Methods that are the truth plus noise of a given size, on one target of twelve contents."""
    generator = np.random.default_rng(0)
    quality = generator.uniform(0, 1, 60)
    common = 0.1 * generator.normal(size=60)
    runs = [
        {
            "method": m,
            "target": target,
            "seed": s,
            "batch_size": 32,
            "scores": scores.tolist(),
            "srcc": srcc(scores, quality),
        }
        for m, noise in noises.items()
        for s in seeds
        for scores in [quality + common + noise * generator.normal(size=60)]
    ]
    truth = {target: {"quality": quality.tolist(), "content": [f"c{i // 5}" for i in range(60)]}}
    grid = {"methods": list(noises), "targets": [target], "batch_sizes": [32]}
    return {"about": {"grid": grid}, "truth": truth, "runs": runs}


def test_a_difference_is_the_mean_over_seeds_of_paired_draws():
    """Every draw takes the same images for both methods; the interval is that of the drawn differences."""
    results = results_of({"source": 0.3, "recipe": 0.0})
    quality, content = (np.array(results["truth"]["target/haze"][key]) for key in ("quality", "content"))
    rows = [np.arange(60), *resamples(60, content, 50, 3)]
    by_hand = [
        np.mean(
            [
                srcc(np.array(a["scores"])[i], quality[i]) - srcc(np.array(b["scores"])[i], quality[i])
                for a, b in zip(select(results, method="recipe"), select(results, method="source"), strict=True)
            ]
        )
        for i in rows
    ]
    found = difference(results, "recipe", "source", ["target/haze"], 32, count=50, seed=3)
    assert found.value == pytest.approx(by_hand[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand[1:], [0.025, 0.975])))


def test_a_p_value_is_small_only_where_the_loss_exceeds_the_margin():
    """Against "at most .01 worse": a method that is much worse is found out, an equal one and a better one are not."""
    bootstrap = Bootstrap(results_of({"source": 0.05, "equal": 0.05, "worse": 0.6, "better": 0.0}), 200)
    p = {m: bootstrap.worse_by(m, "source", ["target/haze"], 32, 0.01) for m in ("equal", "worse", "better")}
    assert p["worse"] == pytest.approx(1 / 201) and p["equal"] > 0.05 and p["better"] > 0.9


def test_a_two_sided_p_value_counts_the_draws_on_the_rarer_side_twice(monkeypatch):
    """Three of nineteen draws below zero: 2 · (1 + 3) / 20; the sign of the difference does not matter; equal methods: 1."""
    drawn = {"up": np.array([0.1, *[0.1] * 16, *[-0.1] * 3]), "source": np.zeros(20)}
    monkeypatch.setattr(Bootstrap, "mean", lambda self, method, targets, size: drawn[method])
    bootstrap = Bootstrap(results_of({"source": 0.3}), 19)
    assert bootstrap.p_value("up", "source", [], 32) == pytest.approx(0.4)
    assert bootstrap.p_value("source", "up", [], 32) == pytest.approx(0.4)
    assert bootstrap.p_value("source", "source", [], 32) == 1


def test_a_wider_margin_forgives_more():
    bootstrap = Bootstrap(results_of({"source": 0.05, "worse": 0.25}), 200)
    narrow, wide = (bootstrap.worse_by("worse", "source", ["target/haze"], 32, margin) for margin in (0.0, 0.5))
    assert narrow < 0.05 and wide == 1.0


def test_holm_multiplies_step_by_step_and_never_falls():
    """The smallest of m values counts m times, the next m − 1 times; a larger value never gets a smaller answer."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_summary_compares_with_the_source_and_with_the_control():
    results = results_of({"source": 0.3, "bn-blend": 0.1, "rank": 0.1})
    results["summary"] = summarise(results)
    lines = {(line["method"], line["minus"]) for line in results["summary"]}
    assert lines == {("bn-blend", "source"), ("rank", "source"), ("rank", "bn-blend")}
    stored = stored_difference(results, "rank", "bn-blend")
    fresh = difference(results, "rank", "bn-blend", ["target/haze"], 32)
    assert (stored.value, stored.low, stored.high) == pytest.approx((fresh.value, fresh.low, fresh.high), abs=1e-4)
    line = next(line for line in results["summary"] if (line["method"], line["minus"]) == ("rank", "source"))
    p_value = Bootstrap(results).worse_by("rank", "source", ["target/haze"], 32, 0.01)
    assert line["p_worse"] == pytest.approx(p_value, abs=1e-4)
    with pytest.raises(KeyError, match="no difference"):
        stored_difference(results, "rank", "recipe")


def test_headline_targets_are_those_of_the_grid_that_the_source_can_read():
    assert headline_targets(results_of({"source": 0.3})) == ["target/haze"]
    assert headline_targets(results_of({"source": 0.3}, "target/dusk")) == []  # development
    assert headline_targets(results_of({"source": 0.3}, "target/scenes")) == []  # not shifted
    assert headline_targets(results_of({"source": 30.0})) == []  # unreadable
    with pytest.raises(ValueError, match="these results do not hold it"):
        headline_targets(results_of({"rank": 0.3}))


def test_the_bootstrap_s_srcc_is_that_of_the_metrics_ties_included():
    results = results_of({"source": 0.3})
    run = results["runs"][0]
    run["scores"] = [round(score, 1) for score in run["scores"]]  # many ties
    truth = results["truth"][run["target"]]
    rows = [np.arange(len(truth["content"])), *resamples(len(truth["content"]), truth["content"], 20, 0)]
    expected = [srcc(np.array(run["scores"])[i], np.array(truth["quality"])[i]) for i in rows]
    assert Bootstrap(results, 20).values(run) == pytest.approx(expected, abs=1e-12)
    run["scores"], constant = [0.5] * len(run["scores"]), Bootstrap(results, 20)
    assert np.isnan(constant.values(run)).all()
    run["scores"], unknown = [float("nan"), *run["scores"][1:]], Bootstrap(results, 20)
    assert np.isnan(unknown.values(run)).all()


@pytest.mark.filterwarnings("error")
def test_a_draw_whose_images_all_score_alike_has_no_correlation():
    """Only the last content's scores differ: a draw without it has none, one with it has."""
    results = results_of({"source": 0.3})
    run = results["runs"][0]
    run["scores"] = [0.5] * 55 + [0.1, 0.2, 0.3, 0.4, 0.6]
    truth = results["truth"][run["target"]]
    has = [(rows >= 55).any() for rows in resamples(60, truth["content"], 20, 0)]
    assert 0 < sum(has) < 20
    assert np.isfinite(Bootstrap(results, 20).values(run)).tolist() == [True, *has]


def test_a_draw_that_is_worse_by_just_the_margin_agrees_whatever_the_rounding(monkeypatch):
    """.55 − .56 is a little below −.01 in floating-point numbers."""
    means = {"worse": np.full(11, 0.55), "source": np.full(11, 0.56)}
    monkeypatch.setattr(Bootstrap, "mean", lambda self, method, targets, size: means[method])
    bootstrap = Bootstrap(results_of({"source": 0.3}), 10)
    assert bootstrap.worse_by("worse", "source", [], 32, 0.01) == 1
    assert bootstrap.worse_by("worse", "source", [], 32, 0.009) == pytest.approx(1 / 11)


@pytest.mark.parametrize("name", [name for name, grid in GRIDS.items() if grid.keep_scores and name != "demo"])
def test_a_stored_summary_is_that_of_the_stored_runs(name):
    results = read_results(name)
    assert summarise(results, ("source", "recipe")) == results["summary"]
