"""The algebra of moments; how far those of a batch lie from the source's, and by how much chance alone would be."""

import math

import pytest
import torch
from helpers import close, moments_of, series

from tta_iqa_lib.adaptation import (
    Measured,
    Moments,
    batch_moments,
    blend,
    mean_shift,
    measure,
    moments,
    sampling_error,
    variance_shift,
)

# The algebra


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 7), (12, 5, 3, 4), (12, 5, 2, 3, 4)])
@pytest.mark.parametrize("episodes", [1, 3, 12])
def test_batch_moments_are_mean_and_biased_variance_of_each_episode(shape, episodes):
    x = torch.randn(shape, dtype=torch.float64)
    found = batch_moments(x, episodes)
    expected = [moments_of(part) for part in x.chunk(episodes)]
    assert found.mean.shape == found.var.shape == (episodes, 5)
    assert close(found, [torch.stack(m) for m in zip(*expected, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_taken_some_images_at_a_time_are_those_of_all_and_write_into_nothing(monkeypatch, dtype):
    x = torch.randn(7, 3, 5, 5).to(dtype)
    before, whole = x.clone(), measure(x)
    monkeypatch.setattr(moments, "CACHED", 2 * x[0].numel())
    assert all(map(torch.equal, measure(x), whole)) and torch.equal(x, before)
    tracked = x.clone().requires_grad_()
    assert all(map(torch.equal, measure(tracked), whole)) and batch_moments(tracked).var.requires_grad


def test_half_precision_moments_are_taken_in_single_precision():
    """300 is 30 % off in a float16 sum of 10,000 terms; the variance would overflow."""
    x = torch.full((4, 2, 50, 50), 300.0).half() + torch.arange(4).view(4, 1, 1, 1).half()
    found = batch_moments(x)
    assert found.mean.dtype == torch.float32
    assert close(found, (torch.full((1, 2), 301.5), torch.full((1, 2), 1.25)), 1e-3)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_exact_blend_is_the_moments_of_the_mixed_samples(share):
    """α·N samples of one kind and (1 − α)·N of another, concatenated."""
    new = torch.randn(int(200 * share), 4, 3, dtype=torch.float64) * 2 + 3
    old = torch.randn(200 - len(new), 4, 3, dtype=torch.float64) - 1
    mixed = blend(moments_of(old), moments_of(new), share, exact=True)
    assert close(mixed, moments_of(torch.cat([old, new])))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_linear_blend_lacks_the_distance_of_the_means(alpha):
    """v_exact − v_linear = α (1 − α) (μ_new − μ_old)²; the means agree."""
    old, new = (Moments(torch.randn(6).double(), torch.rand(6).double()) for _ in range(2))
    exact, linear = blend(old, new, alpha), blend(old, new, alpha, exact=False)
    assert torch.equal(exact.mean, linear.mean)
    assert torch.allclose(exact.var - linear.var, alpha * (1 - alpha) * (new.mean - old.mean) ** 2, rtol=0, atol=1e-12)
    assert torch.allclose(linear.var, (1 - alpha) * old.var + alpha * new.var, rtol=0, atol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_a_blend_of_weight_zero_is_the_old_bit_for_bit(exact):
    old, new = (Moments(torch.randn(50), torch.rand(50)) for _ in range(2))
    assert all(map(torch.equal, blend(old, new, 0.0, exact), old))
    assert all(map(torch.equal, blend(old, new, 1.0, exact), new))


# What is measured


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 7), (12, 5, 3, 4)])
@pytest.mark.parametrize("episodes", [1, 3, 6])
def test_the_sampling_error_is_the_variance_of_the_images_means_over_their_number(shape, episodes):
    """Per episode and channel: Σ (m_b − m)² / (B − 1) / B, and no gradient is kept."""
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found = sampling_error(x, episodes)
    assert found.shape == (episodes, 5) and not found.requires_grad
    for own, part in zip(found, x.detach().chunk(episodes), strict=True):
        means = part.flatten(2).mean(2) if part.ndim > 2 else part
        expected = (means - means.mean(0)).square().sum(0) / (len(part) - 1) / len(part)
        assert torch.allclose(own, expected, rtol=0, atol=1e-12)


def test_the_sampling_error_foretells_how_batch_means_scatter():
    """The estimate from one batch, averaged over 3,000 batches, is the variance of the 3,000 batch means."""
    x = series(3000 * 4)
    means = batch_moments(x, 3000).mean
    assert torch.allclose(sampling_error(x, 3000).mean(0), means.var(0), rtol=0.1)


@pytest.mark.parametrize("episodes", [1, 4])
def test_of_a_single_image_the_sampling_error_is_infinite(episodes):
    assert torch.equal(sampling_error(torch.randn(episodes, 3, 5, 5), episodes), torch.full((episodes, 3), math.inf))


def test_half_precision_sampling_errors_are_taken_in_single_precision():
    """The sum of 100 values of 1,000 is infinite in float16."""
    x = (torch.arange(4.0).view(4, 1, 1, 1) + 1000).expand(4, 2, 10, 10).half()
    found = sampling_error(x)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full((1, 2), 5 / 3 / 4), rtol=0, atol=1e-4)


def test_the_error_of_a_variance_is_that_of_the_images_spreads_with_the_margin_squared():
    """By hand: each image's mean square distance from the batch's mean, relative to their mean."""
    x = series(5)
    spreads = (x - x.mean((0, 2, 3), keepdim=True)).square().mean((2, 3))  # (5, C)
    relative = spreads.var(0) / 5 / spreads.mean(0) ** 2
    assert torch.allclose(measure(x).log_error[0], (1 + 6 / 4) ** 2 * relative, rtol=1e-9)


@pytest.mark.parametrize("count", [16, 64])
def test_what_is_measured_foretells_how_moments_scatter_with_a_margin_for_small_batches(count):
    """Of 500 batches: the scatter of means and of log-variances, with m = 1 + 6 / (B − 1): m times, and m² times."""
    episodes, x = 500, series(500 * count)
    found, margin = measure(x, episodes), 1 + 6 / (count - 1)
    moments = batch_moments(x, episodes)
    assert torch.equal(found.mean, moments.mean) and torch.equal(found.var, moments.var)
    assert torch.allclose(found.error, margin * sampling_error(x, episodes), rtol=1e-9)
    scatter = moments.var.log().var(0).mean()
    assert (found.log_error.mean() / margin**2 / scatter).item() == pytest.approx(1, abs=0.25)


def test_crops_of_one_picture_are_one_witness():
    """Four equal crops of each picture tell no more than the picture alone; an incomplete picture is refused."""
    x = series(6)
    single, crops = measure(x), measure(x.repeat_interleave(4, 0), crops=4)
    for a, b in zip(single, crops, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)
    assert (measure(x.repeat_interleave(4, 0)).error < 0.5 * single.error).all()
    with pytest.raises(ValueError, match="6 rows are no whole number of pictures of 4 crops"):
        measure(x, crops=4)


def test_of_a_single_picture_both_errors_are_infinite():
    found = measure(series(4), crops=4)
    assert torch.isinf(found.error).all() and torch.isinf(found.log_error).all()


# Shifts


def test_the_mean_shift_by_hand():
    """Channels displaced by 2 and 3 at variances 4 and 9: (1 + 1) / 2; errors .4 and 1.8: (.1 + .2) / 2."""
    source = Moments(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 9.0]))
    means = torch.tensor([[3.0, -3.0], [1.0, 0.0]], requires_grad=True)
    batch = Measured(means, torch.ones(2, 2), torch.tensor([[0.4, 1.8], [4.0, 0.0]]), torch.ones(2, 2))
    distance, noise = mean_shift(source, batch)
    assert distance.tolist() == pytest.approx([1.0, 0.0]) and noise.tolist() == pytest.approx([0.15, 0.5])
    assert not distance.requires_grad and not noise.requires_grad


@pytest.mark.parametrize("count", [2, 4, 16])
def test_batches_of_the_source_are_displaced_by_chance_alone(count):
    """Distance over noise is 1 on average, whatever the size of the batch; a shift of δ adds δ² / variance."""
    episodes, variance = 1500, 2.0  # spread² + 1
    source = Moments(torch.zeros(6).double(), torch.full((6,), variance).double())
    x = series(episodes * count)
    chance, shifted = (
        mean_shift(source, Measured(*batch_moments(y, episodes), sampling_error(y, episodes), None))
        for y in (x, x + 0.8)
    )
    assert (chance[0].mean() / chance[1].mean()).item() == pytest.approx(1, abs=0.1)
    assert torch.allclose(shifted[1], chance[1], rtol=1e-9)
    assert (shifted[0].mean() - chance[0].mean()).item() == pytest.approx(0.8**2 / variance, abs=0.05)


def test_the_variance_shift_by_hand():
    """Variances four and e times the source's: (ln² 4 + 1) / 2; where they are equal nothing is left; no gradient."""
    source = Moments(torch.zeros(2), torch.tensor([2.0, 1.0]))
    var = torch.tensor([[8.0, math.e], [2.0, 1.0]], requires_grad=True)
    distance, noise = variance_shift(
        source, Measured(torch.zeros(2, 2), var, torch.ones(2, 2), torch.tensor([[0.1, 0.3], [1, 0]]))
    )
    assert distance.tolist() == pytest.approx([(math.log(4) ** 2 + 1) / 2, 0.0])
    assert noise.tolist() == pytest.approx([0.2, 0.5]) and not distance.requires_grad


# Several layers at once


@pytest.mark.parametrize("episodes", [1, 3])
def test_layers_that_are_measured_together_are_measured_as_if_alone(episodes):
    """Of different width, type, number of images and crops, one with a graph and the others without."""
    inputs = [torch.randn(12, channels, 4, 4, dtype=torch.float64) for channels in (2, 5, 3, 4)]
    inputs += [torch.randn(12, 3, 4, 4), torch.randn(24, 2, 4, 4, dtype=torch.float64)]
    inputs[3].requires_grad_()
    crops = [1, 1, 2, 1, 1, 2]
    seen = [(*moments.image_moments(x, episodes), k) for x, k in zip(inputs, crops, strict=True)]
    found = moments.measured_together(seen)
    for x, k, layer in zip(inputs, crops, found, strict=True):
        alone = measure(x, episodes, k)
        assert close(layer, alone, 1e-6) and [part.shape for part in layer] == [part.shape for part in alone]
        assert layer.mean.requires_grad is layer.var.requires_grad is x.requires_grad
        assert layer.mean.dtype == x.dtype and not layer.error.requires_grad and not layer.log_error.requires_grad
    assert moments.measured_together([]) == []
    with pytest.raises(ValueError, match="4 rows are no whole number of pictures of 3 crops"):
        moments.measured_together([(torch.zeros(1, 4, 2), torch.ones(1, 4, 2), 3)])


@pytest.mark.parametrize("episodes", [1, 3])
def test_the_shifts_of_several_layers_are_those_of_each(episodes):
    widths = 2, 5, 3
    source = [Moments(torch.randn(c).double(), torch.rand(c).double() + 0.5) for c in widths]
    batch = [measure(torch.randn(12, c, 4, 4, dtype=torch.float64) * 2 + 1, episodes) for c in widths]
    found = moments.layer_shifts([*zip(source, batch, strict=True)])
    expected = [
        torch.stack([*mean_shift(*layer), *variance_shift(*layer)]) for layer in zip(source, batch, strict=True)
    ]
    assert found.shape == (3, 4, episodes) and torch.allclose(found, torch.stack(expected), rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_a_shift_is_the_same_in_any_unit(unit):
    """A layer of small activations is no quieter than one of large ones."""
    x, y = series(40, 5), series(12, 5, seed=1) + 0.3
    source, scaled = moments_of(x), moments_of(unit * x)
    for shift in (mean_shift, variance_shift):
        found, expected = shift(scaled, measure(unit * y)), shift(source, measure(y))
        assert close(found, expected, 1e-4)
