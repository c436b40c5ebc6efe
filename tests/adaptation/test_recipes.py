"""Recipes by name, and what the second one is made of: scores under several rules, on the source's scale, averaged."""

import re

import pytest
import torch
from helpers import pictures, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import (
    DEFAULT_RECIPE,
    RECIPES,
    Adapter,
    Batch,
    Blend,
    GroupContrastive,
    Recipe,
    ShiftGate,
    Source,
    Stateless,
    recipe_of,
)
from tta_iqa_lib.adaptation.episodes import EpisodeBatch


def on_scale_of(scores, source):
    return (scores - scores.mean()) / scores.std() * source.std() + source.mean()


def test_a_matched_batch_keeps_its_order_and_has_the_source_scores_mean_and_spread():
    model, images = tiny_model(), pictures(9) ** 2
    plain = Adapter(model, (), Batch()).run(images)
    matched = Adapter(model, (), Batch(), match_source=True).run(images)
    assert matched.scores.argsort().equal(plain.scores.argsort())
    assert torch.allclose(matched.scores.mean(), matched.source_scores.mean(), atol=1e-6)
    assert torch.allclose(matched.scores.std(), matched.source_scores.std(), rtol=1e-4)
    assert not torch.allclose(matched.scores, plain.scores, atol=1e-4)


@pytest.mark.parametrize("losses", [(), (GroupContrastive(),)])
def test_an_ensemble_is_the_mean_of_its_members_on_the_source_scale(losses):
    """The main rule with the adapted parameters, the others with the source's."""
    model, images = tiny_model(), pictures(9) ** 2
    learning = {"lr": 0.05, "params": "norm-affine"} if losses else {}
    found = Adapter(model, losses, Blend(0.5), ensemble=(Source(), Batch()), **learning).run(images)
    adapted = Adapter(model, losses, Blend(0.5), **learning).run(images)
    batch, source = Adapter(model, (), Batch())(images), model(images)
    members = [on_scale_of(scores, source) for scores in (adapted.scores, source, batch)]
    assert torch.allclose(found.scores, torch.stack(members).mean(0), atol=1e-5)
    members[0] = on_scale_of(adapted.initial_scores, source)
    assert torch.allclose(found.initial_scores, torch.stack(members).mean(0), atol=1e-5)
    assert torch.equal(found.scores, found.initial_scores) == (not losses)


def test_folded_episodes_are_brought_to_their_own_source_scale():
    model, images = tiny_model(), torch.cat([pictures(6) ** 2, pictures(6, seed=1)])
    for losses in ((), (GroupContrastive(),)):
        together, apart = (
            Adapter(model, losses, Batch(), ensemble=(Blend(0.5),), episodes_per_pass=n).predict(
                images, 6, shuffle=False
            )
            for n in (2, 1)
        )
        assert torch.allclose(together, apart, atol=1e-5)


def test_one_image_or_images_of_one_score_get_the_sources():
    model = tiny_model()
    one = pictures(1)
    assert torch.allclose(Adapter(model, (), Batch(), match_source=True)(one), model(one), atol=1e-6)
    same = one.expand(4, -1, -1, -1)
    assert torch.allclose(Adapter(model, (), Batch(), match_source=True)(same), model(same), atol=1e-5)


def test_scores_that_have_collapsed_are_not_blown_up_into_an_order():
    """Equal but for rounding: what is left on the source's scale is its mean, not noise of the source's spread."""
    network, images = Stateless(tiny_model()), pictures(6)
    source = network(images)
    batch = EpisodeBatch(network, Recipe(), images, {}, source, 1, {})
    noise = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = batch.matched(source.scores.mean() + 1e-9 * source.scores.std() * noise).float()
    assert torch.allclose(found, source.scores.mean().expand(6), atol=0.05 * float(source.scores.std()))


def test_the_source_is_not_computed_twice(monkeypatch):
    passes = []
    original = Stateless.__call__

    def counted(self, *arguments, **options):
        passes.append(arguments)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Stateless, "__call__", counted)
    Adapter(tiny_model(), (), Blend(0.5), ensemble=(Source(), Batch()))(pictures(4))
    assert len(passes) == 3


def test_a_model_names_its_recipe():
    model = tiny_model(recipe="three-normalisations")
    assert Adapter(model).recipe == RECIPES["three-normalisations"] == recipe_of(model)
    assert Adapter(model).recipe.inference.gate is None
    assert Adapter(model, (), Batch()).recipe.inference.ensemble == ()  # statistics of your own: nothing else
    assert recipe_of(tiny_model()) is DEFAULT_RECIPE and isinstance(DEFAULT_RECIPE.inference.gate.function, ShiftGate)
    with pytest.raises(ValueError, match="no recipe 'four'; there are first-layers, three-normalisations"):
        Adapter(tiny_model(recipe="four"))
    with pytest.raises(TypeError, match="ensemble must be a rule"):
        Adapter(model, (), Batch(), ensemble=("batch",))


def test_what_a_stream_knew_before_is_its_own_scale():
    """`predict="before"`: the batch's other members would look at the batch itself."""
    model, images = tiny_model(), pictures(8) ** 2
    adapter = Adapter(model, (), Blend(0.5), ensemble=(Batch(),))
    with adapter.online("before"):
        first = adapter(images)
    assert torch.allclose(first, model(images), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_default_recipe_says_what_to_do_without_batchnorm(layers):
    blocks = [nn.Sequential(nn.GroupNorm(2, 6), nn.ReLU()) for _ in range(layers)]
    features = nn.Sequential(nn.Conv2d(3, 6, 3, 4), *blocks, nn.AdaptiveAvgPool2d(1))
    model = tta.QualityModel(features, nn.Linear(6, 1)).eval()
    told = (
        "the model has no BatchNorm layer, whose statistics the default recipe adapts: it scores as the source does; "
    )
    told += (
        f"pass losses=[…], and they adapt γ and β of its {layers} normalisation layers"
        if layers
        else "it has no other normalisation layer; pass losses=[…] and params="
    )
    with pytest.warns(UserWarning, match="^" + re.escape(told) + "$"):
        Adapter(model)
