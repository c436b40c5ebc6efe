"""The gate: what it answers to a measured shift, and what it measures on images with and without one."""

import math

import pytest
import torch
from helpers import pictures, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Blend, Ema, Source, batch_moments, batchnorm_layers
from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.adaptation.gates import Drifted, ShiftGate
from tta_iqa_lib.adaptation.recipes import DEFAULT_RECIPE
from tta_iqa_lib.adaptation.state import Result


def result(variances: tuple[float, float] = (0.0, 1.0), **means: tuple[float, float]) -> Result:
    """A result in which this was measured of the means, layer by layer, and of all layers' variances."""
    return Result(*torch.zeros(3, 4), pictures=4, shift={name: (value, variances) for name, value in means.items()})


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


def test_variances_alone_open_the_gate():
    assert ShiftGate(10.0)(result(variances=(10.0, 1.0), first=(0.0, 1.0))) == "adapted"
    assert ShiftGate(10.0)(result(variances=(9.9, 1.0), first=(9.9, 1.0))) == "source"


def test_only_the_first_layer_counts():
    """What deeper layers see may be the images' quality itself."""
    far, near = (100.0, 1.0), (0.5, 1.0)
    assert ShiftGate()(result(first=near, second=far, third=far)) == "source"
    assert ShiftGate()(result(first=far, second=near)) == "adapted"


@pytest.mark.parametrize("threshold", [0.0, 1e-6, 6.0])
def test_a_shift_by_chance_that_nobody_knows_leaves_the_source(threshold):
    """A single image: infinite noise."""
    assert ShiftGate(threshold)(result(variances=(1e9, math.inf), first=(1e9, math.inf))) == "source"


def test_where_nothing_is_measured_the_model_adapts():
    assert ShiftGate()(result()) == "adapted"


def test_batches_of_the_source_stay_with_it_and_dark_ones_are_adapted_to():
    """Of 24 batches of eight pictures, and of the same at a quarter of the light."""
    model, images = at_home(), pictures(24 * 8, seed=5)
    adapter = Adapter(model, [], Blend(0.5), gate=DEFAULT_RECIPE.inference.gate)
    home, dark = ([adapter.run(batch).decision for batch in x.split(8)] for x in (images, images / 4))
    assert home.count("source") >= 22
    assert dark.count("adapted") == 24


def test_one_sided_batches_of_the_source_stay_with_it():
    """All blurred: they differ from the source's images in their quality, not in their light."""
    model, images = at_home(), tta.distort(pictures(16 * 8, seed=3), "blur", 0.3)
    decisions = [Adapter(model).run(batch).decision for batch in images.split(16)]
    assert decisions.count("source") >= 7


def test_flat_light_opens_the_gate():
    """Every image at a third of its contrast: no mean has moved."""
    model, images = at_home(), pictures(32, seed=3)
    mean = images.mean((2, 3), keepdim=True)
    found = Adapter(model).run(mean + 0.3 * (images - mean))
    (moved, by_chance), _ = found.shift["features.1"]
    assert found.decision == "adapted" and moved < 2 * by_chance


def test_a_batch_below_the_least_size_stays_with_the_source():
    far = result(first=(100.0, 1.0))
    assert (ShiftGate(min_images=4)(far), ShiftGate(min_images=5)(far)) == ("adapted", "source")


def test_crops_do_not_make_a_batch_larger():
    """Three dark pictures in four crops each are three pictures, and left alone; four of them are adapted to."""
    model, images = at_home(), 0.1 * pictures(4)
    decisions = [Adapter(model, crops_per_image=4).run(images[:n].repeat_interleave(4, 0)).decision for n in (3, 4)]
    assert decisions == ["source", "adapted"]


def test_a_single_image_gets_the_sources_score_however_dark_it_is():
    model, image = at_home(), pictures(1) / 10
    found = Adapter(model, [], Blend(0.5), gate=ShiftGate(threshold=1e-9)).run(image)
    assert found.decision == "source" and torch.equal(found.scores, found.source_scores)
    assert found.shift["features.1"][0][1] == math.inf
    assert not torch.allclose(Adapter(model, [], Blend(0.5))(image), found.scores, rtol=0, atol=1e-4)


def test_a_model_without_batchnorm_adapts_behind_the_gate():
    features = nn.Sequential(nn.Conv2d(3, 6, 3, 4), nn.GroupNorm(2, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model, images = tta.QualityModel(features, nn.Linear(6, 1)).eval(), pictures(4)
    loss = lambda context: -context.scores["clean"].mean()  # noqa: E731
    gated = Adapter(model, [loss], gate=ShiftGate()).run(images)
    assert gated.decision == "adapted" and gated.shift == {}
    assert torch.equal(gated.scores, Adapter(model, [loss])(images)) and (gated.scores > gated.source_scores).all()
    assert Adapter(model).run(images).decision == "adapted"


def forwards(model) -> list[int]:
    """A list that grows by the number of images at each forward pass of the model."""
    seen: list[int] = []
    next(iter(model.features)).register_forward_hook(lambda layer, inputs, output: seen.append(len(output)))
    return seen


def test_the_gate_costs_no_adaptation_where_it_stays_with_the_source():
    """Eight views of the source at home; the same and the eight adapted ones in the dark."""
    model, images = at_home(), pictures(16)
    seen = forwards(model)
    assert (Adapter(model, views=8).run(images).decision, len(seen)) == ("source", 8)
    seen.clear()
    assert (Adapter(model, views=8).run(images / 4).decision, len(seen)) == ("adapted", 16)


def test_folded_episodes_decide_each_for_itself():
    """One at home, one in the dark, in one pass: each as alone."""
    model = at_home()
    images = torch.cat([pictures(16), pictures(16) / 4])
    alone = torch.cat([Adapter(model)(part) for part in images.split(16)])
    together = Adapter(model, episodes_per_pass=2).predict(images, 16, shuffle=False)
    assert torch.allclose(together, alone, rtol=0, atol=1e-5)
    assert torch.allclose(together[:16], Adapter(model, [], Source())(images[:16]), rtol=0, atol=1e-6)


def test_an_episode_that_is_adapted_is_not_asked_again_because_another_stays_with_the_source():
    """One source pass over both, and one more over the dark one."""
    model = at_home()
    seen = forwards(model)
    images = torch.cat([pictures(16), pictures(16) / 4])
    Adapter(model, views=1, episodes_per_pass=2).predict(images, 16, shuffle=False)
    assert seen == [32, 16]


def test_a_stream_is_not_moved_by_batches_that_stay_with_the_source():
    model, home = at_home(), pictures(16)
    adapter = Adapter(model, [], Ema(0.5), gate=ShiftGate())
    with adapter.online():
        dark = adapter(home / 4)
        assert adapter.run(home).decision == "source"
        again = adapter(home / 4)
    with adapter.online():
        twice = [adapter(home / 4), adapter(home / 4)]
    assert torch.equal(dark, twice[0]) and torch.equal(again, twice[1]) and not torch.equal(dark, again)


def test_a_gate_that_is_not_early_sees_the_adapted_scores():
    model, images, moved = at_home(), pictures(16), []
    gate = lambda result: moved.append((result.scores - result.source_scores).abs().max()) or "source"  # noqa: E731
    Adapter(model, [], Blend(0.5), gate=gate)(images)
    assert len(moved) == 1 and moved[0] > 1e-3


def compared(new: list[float], old: list[float]) -> Result:
    """A result with these scores, adapted and of the source."""
    return Result(torch.tensor(new), torch.tensor(old), torch.tensor(new), pictures=len(new))


def test_a_stream_has_drifted_where_its_order_is_no_longer_the_source_s():
    """By rank correlation, whatever the level and the spread; at the limit it has not."""
    old = [float(i) for i in range(10)]
    swapped = [1.0, 0.0, *old[2:]]  # ρ = 1 − 6·2 / (10·99)
    limit = 1 - 12 / 990
    assert not Drifted()(compared([3 * x + 1 for x in old], old))
    assert Drifted()(compared(old[::-1], old))
    assert Drifted(limit + 1e-6)(compared(swapped, old)) and not Drifted(limit - 1e-6)(compared(swapped, old))


@pytest.mark.filterwarnings("error")
def test_constant_scores_have_drifted_and_few_images_never_do():
    assert Drifted()(compared([0.5] * 8, [float(i) for i in range(8)]))
    assert not Drifted()(compared([0.5] * 7, [float(i) for i in range(7)]))
    assert Drifted(min_images=7)(compared([0.5] * 7, [float(i) for i in range(7)]))
