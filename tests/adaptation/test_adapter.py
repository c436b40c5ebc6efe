"""The adapter: settings, defaults, whole data sets."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import FAST, METHOD, LayerNormModel, pictures, plain_scores, tiny_mixed, tiny_model
from torch import nn

from tta_iqa_lib.adaptation import (
    DEFAULT_RECIPE,
    Adapter,
    Batch,
    Pair,
    RelativeRank,
    Shrink,
    Source,
    adapt_batch,
    balanced_batches,
)

DEFAULT_STATISTICS, DEFAULT_GATE = DEFAULT_RECIPE.inference.statistics, DEFAULT_RECIPE.inference.gate


# Settings


def test_an_unwrapped_module_is_an_error_that_says_to_wrap_it():
    with pytest.raises(TypeError, match=r"Sequential is not a quality model.*wrap_model\(module"):
        Adapter(tiny_mixed())


IMPOSSIBLE = [
    *({"steps": value} for value in (-1, 2.5, math.nan, "3", True)),
    *({"lr": value} for value in (-1, math.nan, math.inf, "x")),
    *({"sam_rho": value} for value in (-1.0, math.nan)),
    *({"seed": value} for value in ("x", 0.5, -1)),
    *({"views": value} for value in (0, 3, 2.5)),
    *({"episodes_per_pass": value} for value in (0, math.nan, 1.5)),
    *({"crops_per_image": value} for value in (0, 1.5)),
    *({"statistics": value} for value in ("batch", Batch, 0.7)),
    *({"optimizer": 5}, {"params": 5}, {"gate": 5}, {"losses": [5]}),
]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_impossible_settings_are_errors_that_name_the_setting(options):
    (name,) = options
    with pytest.raises((ValueError, TypeError), match="loss" if name == "losses" else name):
        Adapter(tiny_model(), **{"losses": FAST, **options})


@pytest.mark.parametrize("option", ["steps", "lr", "optimizer", "params", "sam_rho", "grad_through_statistics"])
def test_settings_of_the_optimiser_without_a_loss_are_an_error(option):
    """They used to be ignored in silence."""
    value = {"optimizer": torch.optim.SGD, "params": "norm-affine"}.get(option, 1)
    for losses in (None, ()):
        with pytest.raises(ValueError, match=f"{option}= is for losses, and there are none"):
            Adapter(tiny_model(), losses, **{option: value})


def test_a_model_with_nothing_to_adapt_is_an_error_that_says_so():
    model = LayerNormModel(nn.Identity())
    told = "nothing to adapt: the model has no normalisation layer with γ and β; pass params=a function that picks parameters"
    with pytest.raises(ValueError, match=f"^{told}$"):
        Adapter(model, FAST)
    assert torch.equal(Adapter(model, [])(pictures(3)), plain_scores(model, pictures(3)))


def test_a_gate_by_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="gate must be a function, None or 'default'"):
        Adapter(tiny_model(), gate="shift")


# Defaults


def test_the_default_recipe_has_its_gate_and_the_models_views():
    inference = Adapter(tiny_model(views=8)).recipe.inference
    assert inference == replace(DEFAULT_RECIPE.inference, views=8) and inference.gate == DEFAULT_GATE
    assert Adapter(tiny_model(views=2)).recipe.inference.views == 2
    assert Adapter(tiny_model()).recipe == DEFAULT_RECIPE and Adapter(tiny_model()).recipe.optimisation is None


def test_no_losses_are_the_default_recipe_however_it_is_said():
    """`Adapter(model)` and `Adapter(model, losses=())` used to differ in gate and views."""
    model = tiny_model(views=8)
    assert Adapter(model).recipe == Adapter(model, losses=()).recipe == Adapter(model, losses=[]).recipe


@pytest.mark.parametrize("own", [{"losses": FAST}, {"statistics": Batch()}], ids=str)
def test_with_losses_or_statistics_of_ones_own_neither_gate_nor_views_come_unasked(own):
    model = tiny_model(views=8)
    inference = Adapter(model, **own).recipe.inference
    assert inference.gate is None and inference.views == 1
    asked = Adapter(model, **own, gate=DEFAULT_GATE, views=2).recipe.inference
    assert asked.gate == DEFAULT_GATE and asked.views == 2
    assert Adapter(model, gate=None, views=1).recipe.inference.gate is None
    assert Adapter(model, gate=None, views=1).recipe.inference.views == 1


def test_the_default_recipe_is_its_parts_spelt_out():
    model, images = tiny_model(views=2), pictures(6)
    spelt = Adapter(model, [], DEFAULT_STATISTICS, gate=DEFAULT_GATE, views=2).run(images)
    default = Adapter(model).run(images)
    assert torch.equal(default.scores, spelt.scores) and default.decision == spelt.decision


# Whole data sets


def test_predict_gives_scores_in_the_order_of_the_images():
    """Each batch of the seeded shuffle is an episode of its own."""
    model, images = tiny_model(), pictures(11)
    adapter = Adapter(model, FAST, seed=3)
    expected = torch.empty(11)
    for rows in balanced_batches(11, 4, seed=3):
        expected[rows] = adapter(images[rows])
    assert torch.equal(adapter.predict(images, batch_size=4), expected)
    in_order = torch.cat([adapter(images[rows]) for rows in balanced_batches(11, 4)])
    assert torch.equal(adapter.predict(images, batch_size=4, shuffle=False), in_order)
    assert not torch.equal(in_order, expected)


def test_predict_takes_loaders_of_batches_and_of_tuples():
    adapter, images = Adapter(tiny_model(), FAST), pictures(9)
    expected = torch.cat([adapter(images[:5]), adapter(images[5:])])
    assert torch.equal(adapter.predict([images[:5], images[5:]]), expected)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.arange(9)), batch_size=5)
    assert torch.equal(adapter.predict(loader), expected)
    assert torch.equal(adapter.predict(batch for batch in loader), expected)


@pytest.mark.parametrize("statistics", [Source(), Batch(), Shrink(4)], ids=str)
@pytest.mark.parametrize("fold", [2, 8])
@pytest.mark.parametrize("losses", [METHOD, (RelativeRank(copies=Pair(("noise",))),)], ids=["method", "noise"])
def test_folding_does_not_change_the_scores(fold, statistics, losses, monkeypatch):
    """To rounding, three Adam steps apart; and the passes are indeed fewer: 2 + 1 or 3 episodes in one."""
    model, images, passes = tiny_model(), pictures(12), []

    def counting(model, state, images, recipe, episodes=1, run=None):
        passes.append(episodes)
        return adapt_batch(model, state, images, recipe, episodes, run)

    monkeypatch.setattr("tta_iqa_lib.adaptation.adapter.adapt_batch", counting)
    one, many = (
        Adapter(model, losses, statistics, episodes_per_pass=n).predict(images, batch_size=4) for n in (1, fold)
    )
    assert passes == [1, 1, 1, *([2, 1] if fold == 2 else [3])]
    assert torch.allclose(one, many, rtol=0, atol=1e-5)


def test_folded_episodes_report_alike():
    model, images = tiny_model(), pictures(12)
    labels = [0, 1, 2] * 4
    one, many = (Adapter(model, METHOD, Batch(), episodes_per_pass=n).run(images, groups=labels) for n in (1, 3))
    assert torch.allclose(one.initial_scores, many.initial_scores, rtol=0, atol=1e-5)
    for alone, folded in zip(one.trace, many.trace, strict=True):
        assert alone["group"] == folded["group"]
        for a, b in zip(alone["steps"], folded["steps"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
            assert torch.allclose(a["scores"], b["scores"], rtol=0, atol=1e-5)
