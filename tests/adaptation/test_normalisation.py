"""Normalisation layers are found by name; one layer by the formula."""

import pytest
import torch
from helpers import moments_of, one_pass, tiny_mixed, tiny_model
from torch import nn

from tta_iqa_lib.adaptation import (
    Adaptive,
    Batch,
    Blend,
    Ema,
    LateNormAffine,
    Moments,
    Shrink,
    Source,
    batchnorm_layers,
    blend,
    norm_affine,
)


def test_batchnorm_layers_and_affine_parameters_are_found_by_name():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4)), nn.LayerNorm(4),
        nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4, affine=False), nn.BatchNorm1d(4),
    )  # fmt: skip
    assert list(batchnorm_layers(model)) == ["1", "5", "6"]
    found = norm_affine(model)
    assert list(found) == [f"{layer}.{p}" for layer in ("1", "2.0", "3", "4", "6") for p in ("weight", "bias")]
    assert all(parameter is model.get_parameter(name) for name, parameter in found.items())


@pytest.mark.parametrize(("share", "count"), [(1.0, 6), (0.9, 5), (0.5, 3), (0.35, 2), (0.1, 1)])
def test_the_late_layers_are_the_last_share_of_those_with_gamma_and_beta(share, count):
    """Of six layers, to the nearest whole layer: both parameters of each, the model's own."""
    model = tiny_model()
    late, every = LateNormAffine(share)(model), norm_affine(model)
    assert list(late) == list(every)[-2 * count :]
    assert all(parameter is every[name] for name, parameter in late.items())


@pytest.mark.parametrize("share", [0, -0.5, 1.1, float("nan")])
def test_an_impossible_share_of_the_layers_is_an_error(share):
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
        LateNormAffine(share)


def test_a_blend_normalises_with_the_blended_moments():
    """One layer by the formula γ (x − μ) / √(v + ε) + β."""
    layer = batchnorm_layers(tiny_mixed().double())["1"]
    x = torch.randn(6, 5, 4, 4, dtype=torch.float64)
    mean, var = (m.view(-1, 1, 1) for m in blend(Moments(layer.running_mean, layer.running_var), moments_of(x), 0.6))
    expected = (x - mean) / torch.sqrt(var + layer.eps) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
    assert torch.allclose(one_pass(layer, Blend(0.6), x).scores, expected, rtol=0, atol=1e-12)


def test_layers_without_affine_parameters_are_normalised_too():
    layer, x = nn.BatchNorm2d(3, affine=False), torch.randn(6, 3, 4, 4)
    expected = layer(x)
    assert torch.allclose(one_pass(layer, Batch(), x).scores, expected, rtol=0, atol=1e-5)
    parts = torch.cat([nn.BatchNorm2d(3, affine=False)(part) for part in x.chunk(2)])
    assert torch.allclose(one_pass(layer, Batch(), x, episodes=2).scores, parts, rtol=0, atol=1e-5)


def test_layers_without_running_statistics_can_only_use_the_batchs():
    """That is their plain inference, too; what would need the source's moments is refused."""
    layer, x = nn.BatchNorm2d(3, track_running_stats=False).eval(), torch.randn(6, 3, 4, 4)
    for rule in (Blend(0.5), Shrink(4), Ema(0.1), Adaptive()):
        with pytest.raises(ValueError, match=r"track_running_stats=False\): use statistics=Batch\(\)"):
            one_pass(layer, rule, x)
    for rule in (Batch(), Source()):
        assert torch.allclose(one_pass(layer, rule, x).scores, layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", [Source(), Batch()], ids=str)
def test_a_layers_own_epsilon_counts(rule):
    layer = nn.BatchNorm2d(3, eps=0.5)
    layer.running_mean, layer.running_var = torch.tensor([0.2, -0.1, 0.0]), torch.tensor([0.1, 0.4, 1.0])
    x, training = torch.randn(6, 3, 4, 4), rule == Batch()
    with torch.no_grad():
        expected = layer.train(training)(x)
        layer.running_mean, layer.running_var = torch.tensor([0.2, -0.1, 0.0]), torch.tensor([0.1, 0.4, 1.0])
    assert torch.allclose(one_pass(layer.eval(), rule, x).scores, expected, rtol=0, atol=1e-5)
