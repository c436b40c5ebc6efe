"""Which moments a rule chooses, by itself and in the layers of a model."""

import pytest
import torch
from helpers import MODELS, RULES, close, moments_of, moments_used, one_pass, pictures, seeded, series, tiny_model
from torch import nn

from tta_iqa_lib.adaptation import (
    Adaptive,
    Batch,
    Blend,
    Ema,
    First,
    Moments,
    Shrink,
    Source,
    batch_moments,
    batchnorm_layers,
    blend,
    mean_shift,
    measure,
    variance_shift,
)


def test_rules_choose_what_they_say():
    source, batch, previous = (Moments(torch.randn(3), torch.rand(3)) for _ in range(3))
    arguments = source, batch, previous, 12
    assert Source()(*arguments) is source and Batch()(*arguments) is batch
    assert close(Blend(0.7)(*arguments), blend(source, batch, 0.7), 0)
    assert close(Shrink(4)(*arguments), blend(source, batch, 12 / 16), 0)
    assert close(Shrink(4, exact=False)(*arguments), blend(source, batch, 12 / 16, exact=False), 0)
    assert close(Ema(0.2)(*arguments), blend(previous, batch, 0.2), 0)
    assert close(Ema(0.2, exact=False)(*arguments), blend(previous, batch, 0.2, exact=False), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Blend(1.1),
        lambda: Blend(-0.1),
        lambda: Ema(2),
        lambda: Shrink(-1),
        lambda: Adaptive(-1),
        lambda: First(Batch(), 1.5),
    ],
)
def test_impossible_rules_are_errors(make):
    with pytest.raises(ValueError, match=r"must (lie in \[0, 1\]|be a finite number of at least 0); got"):
        make()


def test_a_running_average_over_single_images_ends_at_the_moments_of_all_of_them():
    """With the share 1/k for the k-th image the exact mixture is the pooled moments; the linear one misses the spread."""
    x = torch.randn(12, 4, 5, 5, generator=torch.Generator().manual_seed(3))
    x = x + torch.arange(12.0).view(12, 1, 1, 1)  # images that differ
    whole = batch_moments(x)
    for exact in (True, False):
        carried = Moments(torch.zeros(1, 4), torch.ones(1, 4))
        for k, image in enumerate(x.split(1), start=1):
            carried = Ema(1 / k, exact)(carried, batch_moments(image), carried, 1)
        assert torch.allclose(carried.mean, whole.mean, atol=1e-5)
        assert torch.allclose(carried.var, whole.var, rtol=1e-4) == exact


# As much of the batch as the measured shift warrants


@pytest.mark.parametrize("caution", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("exact", [True, False])
def test_adaptive_blends_by_one_minus_noise_over_distance(caution, exact):
    """α = 1 − caution · noise / distance of each episode, of means or of variances, not below 0."""
    x = series(48) + 3.0
    x[16:32] -= x[16:32].mean((0, 2, 3), keepdim=True) - 1e-3  # the second episode is hardly displaced at all
    source = Moments(torch.zeros(6).double(), moments_of(x[16:32]).var)
    found = Adaptive(caution, exact)(source, measure(x, 3), source, 16)
    alphas = []
    for e, part in enumerate(x.chunk(3)):
        both = mean_shift(source, measure(part)), variance_shift(source, measure(part))
        alphas.append(max(0.0, *(1 - caution * noise.item() / distance.item() for distance, noise in both)))
        own = blend(source, moments_of(part), alphas[-1], exact)
        assert close((found.mean[e], found.var[e]), own)
    assert alphas[1] < 0.01 and all(0.1 < alphas[e] < 1 for e in (0, 2))


def test_without_a_mean_shift_adaptive_is_plain_inference_bit_for_bit():
    """The layer's moments are set to the batch's own: nothing has shifted."""
    layer, x = nn.BatchNorm2d(6).eval(), series(8).float()
    layer.running_mean.copy_(batch_moments(x).mean[0])
    layer.running_var.copy_(batch_moments(x).var[0])
    plain = layer(x)
    assert torch.equal(one_pass(layer, Adaptive(), x).scores, plain)


def test_low_contrast_alone_is_enough_for_adaptive():
    """The means stay, the variances fall to a quarter: most of the batch is believed."""
    layer, x = nn.BatchNorm2d(6).eval(), series(32).float()
    layer.running_mean.copy_(batch_moments(x).mean[0])
    layer.running_var.copy_(4 * batch_moments(x).var[0])
    assert (moments_used(layer, Adaptive(1.5), x)[""].var < 1.6 * batch_moments(x).var).all()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", [Adaptive(), Adaptive(1.5, exact=False), First(Adaptive(), 0.5)], ids=str)
def test_a_single_image_is_left_to_the_source_by_adaptive_bit_for_bit(make, rule):
    model, image = make(), pictures(1)
    plain = model(image)
    found = one_pass(model, rule, image)
    assert torch.equal(found.scores, plain)
    for name, layer in batchnorm_layers(model).items():
        assert torch.equal(found.used[name].mean.flatten(), layer.running_mean)
        assert torch.equal(found.used[name].var.flatten(), layer.running_var)


def test_a_single_image_has_a_finite_score_without_any_caution():
    model = tiny_model()
    assert one_pass(model, Adaptive(caution=0), pictures(1)).scores.isfinite().all()


def test_under_a_large_shift_adaptive_is_the_batch():
    """The share of the source's moments falls as 1 / shift²."""
    source, x = Moments(torch.zeros(6).double(), torch.ones(6).double()), series(4)
    shares = []
    for shift in (3.0, 30.0, 300.0):
        batch = measure(x + shift)
        mean = Adaptive()(source, batch, source, 4).mean
        shares.append((1 - mean / batch.mean).mean().item())
    assert 1e-3 < shares[0] < 0.5
    assert shares[1] == pytest.approx(shares[0] / 100, rel=0.5) and shares[2] == pytest.approx(shares[1] / 100, rel=0.1)


def test_more_images_of_a_shift_move_adaptive_further():
    """Noise falls as 1 / B, and with it the share of the source."""
    source, x = Moments(torch.zeros(6).double(), torch.ones(6).double()), series(1024) + 1.0
    shares = []
    for count in (2, 8, 32):
        batch = measure(x, 1024 // count)
        used = Adaptive()(source, batch, source, count)
        shares.append((1 - used.mean[:, 0] / batch.mean[:, 0]).nanmedian().item())
    assert shares[0] > 2 * shares[1] > 4 * shares[2] > 0


# First layers only


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.15, 1), (0.25, 2), (0.5, 3), (0.51, 4), (1.0, 6)])
def test_first_leaves_the_deep_layers_at_the_sources_moments(share, count):
    """Layer i of 6 lies at depth i / 6; only depths below the share follow the rule."""
    model, images = tiny_model(), pictures(4)
    found = moments_used(model, First(Batch(), share), images)
    changed = [
        name
        for name, layer in batchnorm_layers(model).items()
        if not (
            torch.equal(found[name].mean.flatten(), layer.running_mean)
            and torch.equal(found[name].var.flatten(), layer.running_var)
        )
    ]
    assert len(batchnorm_layers(model)) == 6
    assert changed == list(batchnorm_layers(model))[:count]
    if count:
        first = changed[0]  # the first layer's input is the same under every rule
        assert close(found[first], moments_used(model, Batch(), images)[first], 0)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_first_of_all_layers_is_the_rule_itself(rule):
    model, images = tiny_model(), pictures(4)
    rule = rule.rule if isinstance(rule, First) else rule
    assert torch.equal(one_pass(model, First(rule, 1.0), images).scores, one_pass(model, rule, images).scores)


@pytest.mark.parametrize("rule", RULES[:-1], ids=str)
def test_a_plain_rule_is_the_same_at_every_depth(rule):
    assert all(rule.at(depth) is rule for depth in (0.0, 0.5, 0.99))


def test_first_of_first_is_the_smaller_share():
    model, images = tiny_model(), pictures(4)
    expected = one_pass(model, First(Batch(), 0.25), images).scores
    assert torch.equal(one_pass(model, First(First(Batch(), 0.25), 0.5), images).scores, expected)


class Reordered(nn.Module):
    """Two stages that are registered in the order in which they run, or in the other."""

    def __init__(self, reverse: bool):
        super().__init__()
        stages = {
            f"stage{i}": nn.Sequential(nn.Conv2d(c, 6, 3), nn.BatchNorm2d(6), nn.ReLU()) for i, c in ((0, 3), (1, 6))
        }
        for name in reversed(stages) if reverse else stages:
            setattr(self, name, stages[name])

    def forward(self, x):
        return self.stage1(self.stage0(x)).mean((2, 3))


def test_first_means_first_in_the_pass_not_in_the_list_of_layers():
    ordered, reverse = (seeded(lambda r=r: Reordered(r)).eval() for r in (False, True))
    reverse.load_state_dict(ordered.state_dict())
    images = pictures(6)
    found = [one_pass(model, First(Batch(), 0.5), images) for model in (ordered, reverse)]
    assert torch.equal(found[0].scores, found[1].scores)
    assert list(found[1].used) == ["stage0.1", "stage1.1"]
