"""The gate: what it answers to a measured shift, and what it measures on images with and without one."""

import math

import pytest
import torch
from helpers import pictures, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adapt import DEFAULT_GATE, Adapter
from tta_iqa_lib.batchnorm import Blend, batch_moments, batchnorm_layers
from tta_iqa_lib.gate import ShiftGate
from tta_iqa_lib.loop import Result


def result(**shift: tuple[float, float]) -> Result:
    """A result in which this was measured, layer by layer."""
    return Result(*torch.zeros(3, 4), shift=shift)


def at_home() -> tta.QualityModel:
    """A model whose first layer keeps the moments of 400 pictures, as training would have left it."""
    model = tiny_model()
    with torch.no_grad():
        inputs = model.features[0]((pictures(400, seed=99) - model.mean) / model.std)
    layer = next(iter(batchnorm_layers(model).values()))
    mean, var = batch_moments(inputs)
    layer.running_mean.copy_(mean[0])
    layer.running_var.copy_(var[0])
    return model


@pytest.mark.parametrize("threshold", [1.0, 6.0, 20.0])
def test_the_gate_opens_at_the_threshold(threshold):
    gate, noise = ShiftGate(threshold), 0.25
    assert gate(result(first=(threshold * noise, noise))) == "adapted"
    assert gate(result(first=(math.nextafter(threshold * noise, 0), noise))) == "source"


def test_only_the_first_layer_counts():
    """What deeper layers see may be the images' quality itself."""
    far, near = (100.0, 1.0), (0.5, 1.0)
    assert ShiftGate()(result(first=near, second=far, third=far)) == "source"
    assert ShiftGate()(result(first=far, second=near)) == "adapted"


@pytest.mark.parametrize("threshold", [0.0, 1e-6, 6.0])
def test_a_displacement_by_chance_that_nobody_knows_leaves_the_source(threshold):
    """A single image: infinite noise."""
    assert ShiftGate(threshold)(result(first=(1e9, math.inf))) == "source"


def test_where_nothing_is_measured_the_model_adapts():
    assert ShiftGate()(result()) == "adapted"


def test_batches_of_the_source_stay_with_it_and_dark_ones_are_adapted_to():
    """Of 24 batches of eight pictures, and of the same at a quarter of the light."""
    model, images = at_home(), pictures(24 * 8, seed=5)
    adapter = Adapter(model, [], Blend(0.5), gate=DEFAULT_GATE)
    home, dark = ([adapter.run(batch).decision for batch in x.split(8)] for x in (images, images / 4))
    assert home.count("source") >= 22
    assert dark.count("adapted") == 24


def test_a_one_sided_batch_of_the_source_stays_with_it():
    """All of low contrast: its images differ from the source's in their quality, not in their light."""
    model, images = at_home(), pictures(16, seed=3)
    mean = images.mean((2, 3), keepdim=True)
    assert Adapter(model).run(mean + 0.4 * (images - mean)).decision == "source"


def test_a_single_image_gets_the_sources_score_however_dark_it_is():
    model, image = at_home(), pictures(1) / 10
    found = Adapter(model, [], Blend(0.5), gate=ShiftGate(threshold=1e-9)).run(image)
    assert found.decision == "source" and torch.equal(found.scores, found.source_scores)
    assert found.shift["features.1"][1] == math.inf
    assert not torch.allclose(Adapter(model, [], Blend(0.5))(image), found.scores, rtol=0, atol=1e-4)


def test_a_model_without_batchnorm_adapts_behind_the_gate():
    features = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.GroupNorm(2, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model, images = tta.QualityModel(features, nn.Linear(6, 1)).eval(), pictures(4)
    loss = lambda context: -context.scores["clean"].mean()  # noqa: E731
    gated = Adapter(model, [loss], gate=ShiftGate()).run(images)
    assert gated.decision == "adapted" and gated.shift == {}
    assert torch.equal(gated.scores, Adapter(model, [loss])(images)) and (gated.scores > gated.source_scores).all()
    assert Adapter(model).run(images).decision == "adapted"
