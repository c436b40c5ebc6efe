"""The check without opinions, and the study that holds it against opinions."""

import json

import numpy as np
import pytest
import torch
from helpers import pictures, tiny_model
from torch import nn
from typer.testing import CliRunner

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation.recipes import RECIPES
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.experiments import order_check as module
from tta_iqa_lib.experiments.order_study import WAYS, Batches, parts, run_study, summarise, text_table
from tta_iqa_lib.models import saving


class Edges(nn.Module):
    """How much neighbours differ: (B, 3, H, W) → (B, 1). Blur lowers it, noise raises it."""

    def forward(self, x):
        return (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))[:, None]


def edges(**about) -> tta.QualityModel:
    return tta.QualityModel(Edges(), nn.Identity(), **about)


SOURCE = {"losses": (), "statistics": tta.Source()}


@pytest.mark.parametrize(("kind", "expected"), [("blur", 1.0), ("noise", 0.0)])
@pytest.mark.parametrize("together", [False, True])
def test_a_share_counts_the_pairs_in_the_right_order(kind, expected, together):
    """Blurred copies have fewer edges, noisy ones more; a model that points the other way sees the opposite."""
    images = pictures(6, 32)
    for higher in (True, False):
        found = tta.order_check(
            tta.Adapter(edges(higher_is_better=higher), **SOURCE), images, [kind], together=together
        )
        assert found.source.value == found.adapted.value == (expected if higher else 1 - expected)
        assert (
            found.pairs == 18 and found.difference == tta.metrics.Interval(0, 0, 0) and found.verdict == "cannot tell"
        )


def test_a_tie_counts_half_and_kinds_are_given_in_turn():
    """Half of the pictures are blurred, which is seen, and half get a haze that a model without edges cannot see."""
    found = tta.order_check(tta.Adapter(edges(), **SOURCE), torch.zeros(4, 3, 32, 32), ("dark",), (0.5,))
    assert found.source.value == 0.5 and found.pairs == 4
    found = tta.order_check(tta.Adapter(edges(), **SOURCE), pictures(6, 32), ("blur", "noise"))
    assert found.source.value == 0.5 and found.source.low < 0.5 < found.source.high


RECIPE_CASES = {
    "first layers": {"recipe": RECIPES["first-layers"], "gate": None},
    "three normalisations": {"recipe": RECIPES["three-normalisations"]},
    "matched": {"losses": (), "statistics": tta.Batch(), "match_source": True},
    "with a loss": {"losses": [tta.ScoreOrder()], "statistics": tta.Blend(0.5), "lr": 0.1},
}


@pytest.mark.parametrize("name", RECIPE_CASES)
def test_the_pictures_themselves_get_the_adapter_s_own_scores(name):
    """And the copies do not move them: they are scored with what the pictures left."""
    how = dict(RECIPE_CASES[name])
    if "gate" in how:
        how = {"statistics": how["recipe"].inference.statistics, "losses": ()}
    adapter, images = tta.Adapter(tiny_model(), **how), pictures(6, 32)
    copies = torch.cat([images, tta.distort(images, "blur", 0.7)])
    source, adapted, decision = module._held(adapter, copies, 6)
    result = adapter.run(images)
    assert decision == "adapted" and not torch.allclose(adapted[:6], source[:6], atol=1e-4)
    assert torch.allclose(adapted[:6], result.scores, atol=1e-6)
    assert torch.allclose(source[:6], result.source_scores, atol=1e-6)
    together = module._together(adapter, copies, 6)[1]
    assert torch.allclose(together, adapter(copies)) and not torch.allclose(together, adapted, atol=1e-4)


def test_what_the_gate_leaves_to_the_source_has_no_difference():
    adapter = tta.Adapter(tiny_model(), gate=lambda result: "source", losses=(), statistics=tta.Batch())
    found = tta.order_check(adapter, pictures(6, 32))
    assert found.decision == "source" and found.difference == tta.metrics.Interval(0, 0, 0)
    assert "source 0." in str(found) and str(found).endswith("cannot tell")


def test_a_stream_that_is_open_has_no_part_in_it():
    adapter, images = (
        tta.Adapter(tiny_model(), losses=[tta.ScoreOrder()], statistics=tta.Batch(), lr=0.1),
        pictures(6, 32),
    )
    alone = tta.order_check(adapter, images)
    with adapter.online():
        adapter(images)
        assert tta.order_check(adapter, images) == alone


def test_intervals_draw_groups_where_there_are_any():
    adapter, images = tta.Adapter(edges(), **SOURCE), pictures(6, 32)
    kinds = ("blur", "noise")
    pairs_of_both = tta.order_check(adapter, images, kinds, groups=["a", "a", "b", "b", "c", "c"])
    assert pairs_of_both.source == tta.metrics.Interval(0.5, 0.5, 0.5)


def test_crops_of_one_picture_count_once_and_get_one_kind():
    images = pictures(4, 32)
    adapter = tta.Adapter(edges(), **SOURCE, crops_per_image=2)
    found = tta.order_check(adapter, images, ("blur", "noise"), (0.5,))
    assert found.pairs == 2 and found.source.value == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": torch.rand(1, 3, 32, 32)}, "at least two whole pictures"),
        ({"kinds": ()}, "kinds must name"),
        ({"kinds": ("rust",)}, "unknown distortion 'rust'"),
        ({"severities": (0.7, 0.3)}, "severities must rise"),
        ({"severities": (0.0, 0.3)}, "severities must rise"),
        ({"severities": (0.5, 1.5)}, "severities"),
        ({"groups": ["a"]}, "groups: 1 labels for 6 pictures"),
    ],
)
def test_bad_input_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        tta.order_check(tta.Adapter(edges(), **SOURCE), **({"images": pictures(6, 32)} | wrong))


def test_the_verdict_follows_the_interval():
    def verdict(low, high):
        zero = tta.metrics.Interval(0, 0, 0)
        return module.OrderCheck(zero, zero, tta.metrics.Interval(0, low, high), 3, "adapted").verdict

    assert [verdict(0.1, 0.2), verdict(-0.2, -0.1), verdict(-0.1, 0.1)] == ["better", "worse", "cannot tell"]


RUNS = [
    {"part": "a", "batch": 0, "source": 0.5, "adapted": 0.7, "held": [0.3, 0.1, 0.5], "together": [-0.3, -0.5, -0.1]},
    {"part": "a", "batch": 1, "source": 0.5, "adapted": 0.6, "held": [0.1, -0.1, 0.2], "together": [-0.2, -0.3, 0.1]},
    {"part": "b", "batch": 0, "source": 0.5, "adapted": 0.4, "held": [-0.1, -0.2, -0.05], "together": [0.1, 0.05, 0.2]},
]


def test_the_summary_says_what_following_the_check_would_bring():
    found = {(line["what"], line["way"]): line["value"] for line in summarise(RUNS)}
    assert all(np.isfinite([line["low"], line["high"]]).all() for line in summarise(RUNS))
    assert found["always", ""] == pytest.approx(0.2 / 3, abs=1e-4)
    assert found["correlation", "held"] == 1 and found["correlation", "together"] == -1
    assert found["where better", "held"] == pytest.approx(0.2 / 3, abs=1e-4)
    assert found["unless worse", "held"] == pytest.approx(0.3 / 3, abs=1e-4)
    assert found["where better", "together"] == pytest.approx(-0.1 / 3, abs=1e-4)
    assert found["unless worse", "together"] == pytest.approx(0, abs=1e-4)


def test_a_study_of_a_database_by_subset_and_light(folder, tmp_path, monkeypatch):
    """Twelve pictures in three subsets; the second time nothing is computed."""
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    model = tiny_model(crop=32)
    database = tta.datasets.databases.read(folder)
    assert {name: len(part) for name, part in parts({"biq": database}).items()} == {"ss01": 4, "ss02": 4, "ss03": 4}
    results = run_study(model, {"biq": database}, Batches(4, 2, 32), progress=False)
    assert len(results["runs"]) == 3 * 4 and {run["batch"] for run in results["runs"]} == {0}
    clear = next(run for run in results["runs"] if run["part"] == "ss02" and run["light"] == "as it is")
    rows = parts({"biq": database})["ss02"]
    images = torch.cat([tta.imaging.grid_crops(tta.read_image(path), 32, 1) for path in rows.paths])
    own = tta.Adapter(model, losses=(), statistics=tta.Source())(images)
    assert clear["source"] == pytest.approx(tta.srcc(own, rows.scores), abs=1e-4)
    hazy = next(run for run in results["runs"] if run["part"] == "ss02" and run["light"] == "haze")
    assert hazy["source"] != clear["source"] or hazy["held"] != clear["held"]
    assert set(WAYS) <= set(clear) and len(text_table(results).splitlines()) == 8
    monkeypatch.setattr("tta_iqa_lib.experiments.order_study._run", None)
    assert run_study(model, {"biq": database}, Batches(4, 2, 32), progress=False) == results
    with pytest.raises(ValueError, match="no part has 32 pictures"):
        run_study(model, {"biq": database}, progress=False)


def test_the_command_writes_the_study(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(saving, "load_source_model", lambda name: tiny_model(crop=32))
    out = tmp_path / "check.json"
    found = CliRunner().invoke(app, ["order-study", f"b={folder}", "--size", "4", "--batches", "1", "--out", str(out)])
    assert found.exit_code == 0 and "always" in found.stdout, found.output
    assert json.loads(out.read_text())["about"]["plan"] == {"size": 4, "batches": 1, "crop": 160, "views": 1}
