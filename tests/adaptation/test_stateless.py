import copy
import math

import pytest
import torch
from helpers import pictures, seeded, snapshot, tiny_mixed, tiny_model
from torch import nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap

from tta_iqa_lib.adaptation import (
    Adaptive,
    Batch,
    Blend,
    Ema,
    First,
    Layout,
    Measured,
    Moments,
    Pass,
    Shrink,
    Source,
    Stateless,
    Statistics,
    batch_moments,
    batchnorm_layers,
    blend,
    mean_shift,
    measure,
    norm_affine,
    sampling_error,
    variance_shift,
)
from tta_iqa_lib.adaptation.stateless import Memory

RULES = [
    Source(),
    Batch(),
    Blend(0.7),
    Blend(0.7, exact=False),
    Shrink(4),
    Ema(0.3),
    Adaptive(),
    First(Blend(0.7), 0.5),
]
MODELS = {"images": tiny_model, "images and vectors": tiny_mixed}


def moments_of(x: torch.Tensor) -> Moments:
    """Mean and variance per channel of (N, C, …), by their definitions."""
    flat = x.transpose(0, 1).flatten(1)
    mean = flat.mean(1)
    return Moments(mean, (flat - mean[:, None]).square().mean(1))


def close(a, b, tolerance=1e-12) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in zip(a, b, strict=True))


def run(model, rule, rows, params=None, grad=False, episodes=1, images=None, **options) -> Pass:
    """One pass; `episodes` and `images` are its layout."""
    with torch.set_grad_enabled(grad):
        return Stateless(model)(rows, rule, params, layout=Layout(episodes, images), **options)


def used(model, rule, rows, **options) -> dict[str, Moments]:
    return run(model, rule, rows, **options).used


# The algebra of moments


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 7), (12, 5, 3, 4), (12, 5, 2, 3, 4)])
@pytest.mark.parametrize("episodes", [1, 3, 12])
def test_batch_moments_are_mean_and_biased_variance_of_each_episode(shape, episodes):
    x = torch.randn(shape, dtype=torch.float64)
    found = batch_moments(x, episodes)
    expected = [moments_of(part) for part in x.chunk(episodes)]
    assert found.mean.shape == found.var.shape == (episodes, 5)
    assert close(found, [torch.stack(m) for m in zip(*expected, strict=True)])


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
    with pytest.raises(ValueError, match=r"must (lie in \[0, 1\]|not be negative)"):
        make()


# What a model computes under a rule


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", [Source(), Blend(0), Blend(0, exact=False), Ema(0), First(Batch(), 0)], ids=str)
def test_no_weight_on_the_batch_is_plain_inference_bit_for_bit(make, rule):
    model, images = make(), pictures(4)
    plain = model(images)
    assert torch.equal(run(model, rule, images).scores, plain)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    "rule", [Batch(), Blend(1), Shrink(0), Ema(1), Adaptive(caution=0), First(Batch(), 1)], ids=str
)
def test_all_weight_on_the_batch_is_training_mode(make, rule):
    """In double precision, to rounding."""
    model, images = make().double(), pictures(4).double()
    training = copy.deepcopy(model).train()(images)
    found = run(model, rule, images).scores
    assert torch.allclose(found, training, rtol=0, atol=1e-10)
    assert not torch.allclose(found, model(images), rtol=0, atol=1e-3)


def test_a_blend_normalises_with_the_blended_moments():
    """One layer by the formula γ (x − μ) / √(v + ε) + β."""
    layer = batchnorm_layers(tiny_mixed().double())["1"]
    x = torch.randn(6, 5, 4, 4, dtype=torch.float64)
    mean, var = (m.view(-1, 1, 1) for m in blend(Moments(layer.running_mean, layer.running_var), moments_of(x), 0.6))
    expected = (x - mean) / torch.sqrt(var + layer.eps) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
    assert torch.allclose(run(layer, Blend(0.6), x).scores, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_copies_never_enter_the_statistics(make, rule):
    """Whatever the copies are, the moments and the clean images' scores stay the same bit for bit."""
    model, clean = make(), pictures(4)
    found = []
    for copies in (clean * 0.1, torch.rand(4, 3, 32, 32), clean.flip(0)):
        one = run(model, rule, torch.cat([clean, copies]), images=4)
        found.append((one.scores[:4], one.used))
    for scores, moments in found[1:]:
        assert torch.equal(scores, found[0][0])
        assert all(map(torch.equal, sum(moments.values(), ()), sum(found[0][1].values(), ())))


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_copies_are_normalised_with_the_clean_images_moments(rule):
    """A copy that equals its image gets its score, whatever the other copies are."""
    model, clean = tiny_mixed().double(), pictures(4).double()
    scores = run(model, rule, torch.cat([clean, clean[:2], pictures(2, seed=5).double()]), images=4).scores
    assert torch.allclose(scores[4:6], scores[:2], rtol=0, atol=1e-12)


def test_the_count_of_images_excludes_copies_and_other_episodes():
    seen = []

    class Counting(Statistics):
        def __call__(self, source, batch, previous, count):
            seen.append(count)
            return source

    used(tiny_model(), Counting(), pictures(12), episodes=2, images=2)
    assert set(seen) == {2}


@pytest.mark.parametrize("rule", [Ema(0.3), Ema(0.3, exact=False)])
def test_a_stream_carries_moments_on(rule):
    """μ₂ = (1 − m) μ₁ + m μ_batch, layer by layer; without a past it starts from the source."""
    layer = batchnorm_layers(tiny_mixed().double())["1"]
    first, second = (torch.randn(6, 5, 4, 4, dtype=torch.float64) for _ in range(2))
    source = Moments(layer.running_mean, layer.running_var)
    after_first = used(layer, rule, first)
    after_second = used(layer, rule, second, carried=after_first)
    expected = blend(source, moments_of(first), 0.3, rule.exact)
    assert close((m.flatten() for m in after_first[""]), expected)
    assert close((m.flatten() for m in after_second[""]), blend(expected, moments_of(second), 0.3, rule.exact))


# Folded episodes


def folded(model, rule, params, images, episodes, through):
    """Scores (E, rows) of one pass, and the gradients of Σ scores³ with respect to stacked γ and β."""
    params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    found = run(model, rule, images, params, through=through, grad=True, episodes=episodes, images=4)
    scores = found.scores.view(episodes, -1)
    gradients = torch.autograd.grad((scores**3).sum(), list(params.values()))
    return scores.detach(), dict(zip(params, gradients, strict=True))


@pytest.mark.parametrize("through", [False, True], ids=["cut", "through"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_folded_episodes_equal_a_loop_over_episodes(make, rule, through):
    """Three episodes of four clean images and two copies, each with γ and β of its own: scores and gradients."""
    model = make()
    images = pictures(18).unflatten(0, (3, 6))
    stacked = {name: p.detach() * (1 + 0.3 * torch.rand(3, *p.shape)) for name, p in norm_affine(model).items()}
    scores, gradients = folded(model, rule, stacked, images.flatten(0, 1), 3, through)
    for e in range(3):
        alone, slopes = folded(model, rule, {n: p[e] for n, p in stacked.items()}, images[e], 1, through)
        assert torch.allclose(scores[e], alone[0], rtol=1e-5, atol=1e-5)
        for name, slope in slopes.items():
            assert torch.allclose(gradients[name][e], slope, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_folded_episodes_equal_vmap_over_training_mode(make):
    """`torch.func.vmap` over PyTorch's own BatchNorm in training mode: scores and gradients, through the statistics."""
    model, images = make(), pictures(12).unflatten(0, (3, 4))
    stacked = {name: p.detach() * (1 + 0.3 * torch.rand(3, *p.shape)) for name, p in norm_affine(model).items()}
    plain = replace_all_batch_norm_modules_(copy.deepcopy(model)).train()

    def scores(params, batch):
        return functional_call(plain, params, (batch,)).flatten()

    expected = vmap(scores)(stacked, images)
    slopes = vmap(grad(lambda params, batch: (scores(params, batch) ** 3).sum()))(stacked, images)
    found, gradients = folded(model, Batch(), stacked, images.flatten(0, 1), 3, through=True)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    for name, slope in slopes.items():
        assert torch.allclose(gradients[name], slope, rtol=1e-3, atol=1e-5), name


def test_gradients_flow_through_the_batch_moments_only_if_asked():
    """Under `Batch`, adding a constant before a layer changes nothing behind it: the gradient sees that or does not."""
    layer = nn.BatchNorm1d(3).eval()
    x = torch.randn(8, 3)
    weights = torch.randn(8, 3)

    def slope(through):
        shift = torch.zeros(3, requires_grad=True)
        scores = Stateless(layer)(x + shift, Batch(), through=through).scores
        return torch.autograd.grad((weights * scores).sum(), shift)[0]

    assert slope(True).abs().max() < 1e-5
    assert slope(False).abs().min() > 1e-3


# The user's model is only borrowed


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_users_mode_makes_no_difference(make, rule):
    """Neither when the stateless model is made nor when it runs."""
    model, images = make(), pictures(4)
    found = []
    for before in (True, False):
        for inside in (before, not before):
            network = Stateless(model.train(before))
            model.train(inside)
            with torch.no_grad():
                found.append(network(images, rule).scores)
            assert model.training is inside
    assert all(torch.equal(scores, found[0]) for scores in found[1:])


def test_dropout_is_off():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    x = torch.randn(6, 4)
    assert torch.equal(Stateless(model)(x).scores, Stateless(model[0])(x).scores)


def marked_model() -> nn.Module:
    """A model with everything that could get lost: mixed modes, hooks, a patched forward, gradients, frozen parts."""
    model = tiny_model()
    model.train()
    layers = list(batchnorm_layers(model).values())
    layers[0].eval()
    layers[1].register_forward_hook(lambda *_: None)
    layers[1].register_forward_pre_hook(lambda *_: None)
    patched = layers[2].forward
    layers[2].forward = lambda x: patched(x)
    layers[0].weight.grad = torch.ones_like(layers[0].weight)
    layers[1].weight.requires_grad_(False)
    return model


class Stop(BaseException):
    """As KeyboardInterrupt: not an Exception."""


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("rule", [Source(), Batch(), Ema(0.5)], ids=str)
def test_the_model_is_never_touched(rule, error):
    """Modes, buffers, parameters, gradients, hooks, patched forwards and attributes; during a pass, and after an error."""
    model, seen = marked_model(), []
    layer = list(batchnorm_layers(model).values())[3]

    def look(*_):
        seen.append(snapshot(model))
        if error:
            raise error

    layer.register_forward_hook(look)
    before = snapshot(model)
    try:
        with torch.no_grad():
            Stateless(model)(pictures(4), rule)
    except (RuntimeError, KeyboardInterrupt, Stop) as caught:
        assert type(caught) is error
    assert seen == [before] and snapshot(model) == before


def test_hooks_of_the_user_run():
    model, calls = tiny_mixed(), []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    run(model, Batch(), pictures(2))
    assert calls == [1]


def test_one_pass_knows_nothing_of_another():
    model, images = tiny_model(), pictures(4)
    network, plain = Stateless(model), model(images)
    outer = network(images, Batch()).scores
    assert torch.equal(network(images, Source()).scores, plain)
    assert torch.equal(network(images, Batch()).scores, outer) and not torch.equal(outer, plain)


def test_batchnorm_layers_and_affine_parameters_are_found_by_name():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4)), nn.LayerNorm(4),
        nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4, affine=False), nn.BatchNorm1d(4),
    )  # fmt: skip
    assert list(batchnorm_layers(model)) == ["1", "5", "6"]
    found = norm_affine(model)
    assert list(found) == [f"{layer}.{p}" for layer in ("1", "2.0", "3", "4", "6") for p in ("weight", "bias")]
    assert all(parameter is model.get_parameter(name) for name, parameter in found.items())


def test_layers_without_affine_parameters_are_normalised_too():
    layer, x = nn.BatchNorm2d(3, affine=False), torch.randn(6, 3, 4, 4)
    expected = layer(x)
    assert torch.allclose(run(layer, Batch(), x).scores, expected, rtol=0, atol=1e-5)
    parts = torch.cat([nn.BatchNorm2d(3, affine=False)(part) for part in x.chunk(2)])
    assert torch.allclose(run(layer, Batch(), x, episodes=2).scores, parts, rtol=0, atol=1e-5)


def test_layers_without_running_statistics_can_only_use_the_batchs():
    """That is their plain inference, too; what would need the source's moments is refused."""
    layer, x = nn.BatchNorm2d(3, track_running_stats=False).eval(), torch.randn(6, 3, 4, 4)
    for rule in (Blend(0.5), Shrink(4), Ema(0.1), Adaptive()):
        with pytest.raises(ValueError, match=r"track_running_stats=False\): use statistics=Batch\(\)"):
            run(layer, rule, x)
    for rule in (Batch(), Source()):
        assert torch.allclose(run(layer, rule, x).scores, layer(x), rtol=0, atol=1e-5)


def test_a_rule_on_a_model_without_batchnorm_is_an_error_that_says_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    for rule in (Batch(), Blend(0.5)):
        with pytest.raises(ValueError, match=r"needs BatchNorm layers.*use statistics=Source\(\)"):
            run(model, rule, pictures(2))
    assert run(model, Source(), pictures(2)).scores.shape == (2, 4, 32, 32)


# How far the batch is from the source, and by how much chance alone would be


def series(count: int, width: int = 6, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    """(count, width, 3, 3): each image has means of its own, N(0, spread²), and pixels of deviation 1 around them."""
    generator = torch.Generator().manual_seed(seed)
    means = spread * torch.randn(count, width, 1, 1, generator=generator, dtype=torch.float64)
    return means + torch.randn(count, width, 3, 3, generator=generator, dtype=torch.float64)


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
    assert torch.equal(run(layer, Adaptive(), x).scores, plain)


def test_low_contrast_alone_is_enough_for_adaptive():
    """The means stay, the variances fall to a quarter: most of the batch is believed."""
    layer, x = nn.BatchNorm2d(6).eval(), series(32).float()
    layer.running_mean.copy_(batch_moments(x).mean[0])
    layer.running_var.copy_(4 * batch_moments(x).var[0])
    assert (used(layer, Adaptive(1.5), x)[""].var < 1.6 * batch_moments(x).var).all()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", [Adaptive(), Adaptive(1.5, exact=False), First(Adaptive(), 0.5)], ids=str)
def test_a_single_image_is_left_to_the_source_by_adaptive_bit_for_bit(make, rule):
    model, image = make(), pictures(1)
    plain = model(image)
    found = run(model, rule, image)
    assert torch.equal(found.scores, plain)
    for name, layer in batchnorm_layers(model).items():
        assert torch.equal(found.used[name].mean.flatten(), layer.running_mean)
        assert torch.equal(found.used[name].var.flatten(), layer.running_var)


def test_a_single_image_has_a_finite_score_without_any_caution():
    model = tiny_model()
    assert run(model, Adaptive(caution=0), pictures(1)).scores.isfinite().all()


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
    found = used(model, First(Batch(), share), images)
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
        assert close(found[first], used(model, Batch(), images)[first], 0)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_first_of_all_layers_is_the_rule_itself(rule):
    model, images = tiny_model(), pictures(4)
    rule = rule.rule if isinstance(rule, First) else rule
    assert torch.equal(run(model, First(rule, 1.0), images).scores, run(model, rule, images).scores)


@pytest.mark.parametrize("rule", RULES[:-1], ids=str)
def test_a_plain_rule_is_the_same_at_every_depth(rule):
    assert all(rule.at(depth) is rule for depth in (0.0, 0.5, 0.99))


def test_first_of_first_is_the_smaller_share():
    model, images = tiny_model(), pictures(4)
    expected = run(model, First(Batch(), 0.25), images).scores
    assert torch.equal(run(model, First(First(Batch(), 0.25), 0.5), images).scores, expected)


# What is measured along the way


def with_record(model, rule, rows, record=True, through=False, **layout):
    """Scores, the gradient of Σ scores³ with respect to γ and β, and what was measured."""
    params = {name: p.detach().clone().requires_grad_() for name, p in norm_affine(model).items()}
    found = run(model, rule, rows, params, record=record, through=through, grad=True, **layout)
    gradients = torch.autograd.grad((found.scores**3).sum(), list(params.values()))
    return found.scores.detach(), gradients, found.measured


RECORDED = [rule for rule in RULES]


@pytest.mark.parametrize("rule", RECORDED, ids=str)
@pytest.mark.parametrize("through", [False, True], ids=["cut", "through"])
def test_recording_changes_neither_scores_nor_gradients(rule, through):
    model, images = tiny_model(), pictures(6)
    scores, slopes, measured = with_record(model, rule, images, False, through)
    assert measured == {}
    again, same, measured = with_record(model, rule, images, True, through)
    assert torch.equal(again, scores) and all(map(torch.equal, same, slopes))
    assert measured.keys() == batchnorm_layers(model).keys()


@pytest.mark.parametrize("rule", [Source(), Blend(0.5), First(Adaptive(), 0.3)], ids=str)
def test_what_is_recorded_is_of_the_clean_images_whatever_the_rule(rule):
    """(source moments, moments and sampling error of the episode's clean images); beyond the first layer with gradients."""
    model = tiny_model().double()
    clean, copies = pictures(6).double(), pictures(4, seed=7).double()
    rows = torch.cat([torch.cat([clean[3 * e : 3 * e + 3], copies[2 * e : 2 * e + 2]]) for e in range(2)])
    _, _, measured = with_record(model, rule, rows, episodes=2, images=3)
    name, layer = next(iter(batchnorm_layers(model).items()))
    source, batch = measured[name]
    assert torch.equal(source.mean, layer.running_mean) and torch.equal(source.var, layer.running_var)
    inputs = model.features[0]((clean - model.mean) / model.std)
    assert close(batch, measure(inputs, 2))
    deep = [batch for _, batch in measured.values()][1:]
    assert all(batch.mean.requires_grad and batch.var.requires_grad and not batch.error.requires_grad for batch in deep)


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


# Odd models


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
    found = [run(model, First(Batch(), 0.5), images) for model in (ordered, reverse)]
    assert torch.equal(found[0].scores, found[1].scores)
    assert list(found[1].used) == ["stage0.1", "stage1.1"]


class Activated(nn.BatchNorm2d):
    """A subclass that does more than its parent, as timm's layers do."""

    def forward(self, x):
        return super().forward(x).abs()


@pytest.mark.parametrize("rule", [Source(), Batch(), Blend(0.5)], ids=str)
def test_what_a_subclass_adds_to_batchnorm_is_kept(rule):
    plain_layer, layer, x = nn.BatchNorm2d(3).eval(), Activated(3).eval(), torch.randn(5, 3, 4, 4)
    assert torch.equal(run(layer, rule, x).scores, run(plain_layer, rule, x).scores.abs())


def test_a_layer_that_stands_twice_and_one_gamma_for_two_layers():
    """Under its first name it is adapted wherever it stands; nothing is left behind."""
    bn = nn.BatchNorm2d(3)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = bn, bn

        def forward(self, x):
            return self.b(self.a(x))

    model, x = Twice().eval(), torch.randn(4, 3, 5, 5)
    before = snapshot(model)
    gamma = torch.tensor([2.0, 0.5, 1.0])
    found = run(model, Source(), x, {"a.weight": gamma}).scores
    assert torch.allclose(found, x * gamma.view(1, 3, 1, 1) ** 2, atol=1e-4)
    assert snapshot(model) == before

    tied = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    tied[1].weight = tied[0].weight
    assert torch.allclose(run(tied, Source(), x, {"0.weight": gamma}).scores, found, atol=1e-4)
    with pytest.raises(ValueError, match=r"no parameter '0\.wieght'"):
        run(tied, Source(), x, {"0.wieght": gamma})


class Tokens(nn.Module):
    """Patches folded into the batch before BatchNorm."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 6, 8, 8), nn.BatchNorm1d(6)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (B, T, 6)
        return self.norm(tokens.reshape(-1, 6)).view_as(tokens).mean(1)


def test_rows_that_cannot_be_told_apart_are_refused_in_one_pass_with_copies():
    model, images = seeded(lambda: Tokens()).eval(), pictures(4)
    found = run(model, Batch(), images)
    assert not found.rowwise
    assert torch.allclose(found.scores, copy.deepcopy(model).train()(images), atol=1e-5)
    for layout in ({"images": 2}, {"episodes": 2}):
        with pytest.raises(ValueError, match="layer 'norm' sees 64 rows for 4 images"):
            run(model, Batch(), images, **layout)


def test_an_input_that_the_model_changes_in_place_is_not_the_callers():
    class Halves(nn.Module):
        def forward(self, x):
            return x.mul_(0.5)

    images = pictures(2)
    before = images.clone()
    run(Halves(), Source(), images)
    assert torch.equal(images, before)


def test_modules_that_a_later_step_need_not_run_again_are_remembered():
    """What depends on no adapted parameter runs once; the scores and gradients are those of a full pass."""
    model, images, calls = tiny_model(), pictures(6), []
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    late = dict(list(norm_affine(model).items())[6:])
    params = {name: p.detach().clone().requires_grad_() for name, p in late.items()}
    network, memory = Stateless(model), Memory()
    layout = Layout(1, 4)
    full = network(images, Blend(0.5), params, layout=layout).scores
    kept = [network(images, Blend(0.5), params, layout=layout, memory=memory) for _ in range(2)]
    slopes = [torch.autograd.grad((scores**2).sum(), list(params.values())) for scores in (full, kept[1].scores)]
    assert torch.equal(kept[0].scores, full) and torch.equal(kept[1].scores, full)
    assert all(map(torch.equal, *slopes))
    assert kept[1].used.keys() == batchnorm_layers(model).keys()
    hooked = [calls.count(name) for name in dict.fromkeys(calls)]
    assert hooked[0] == 3 and memory.kept  # hooks still run
    with torch.no_grad():
        alone = network(images[:4], Blend(0.5), params).scores
        short = network(images[:4], Blend(0.5), params, memory=memory.of_images(layout)).scores
    assert torch.allclose(short, alone, atol=1e-6)


def test_what_is_changed_in_place_is_not_remembered():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

        def forward(self, x):
            y = self.first(x)
            y += 1
            return self.second(y).mean((2, 3))

    model, images = seeded(InPlace).eval(), pictures(3)
    params = {name: p.detach().clone().requires_grad_() for name, p in norm_affine(model).items()}
    network, memory = Stateless(model), Memory()
    first, second = (network(images, Source(), params, memory=memory).scores for _ in range(2))
    assert torch.equal(first, second) and memory.kept == {}
