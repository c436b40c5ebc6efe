import copy

import pytest
import torch
from helpers import pictures, snapshot, tiny_mixed, tiny_model
from torch import nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap

from tta_iqa_lib.batchnorm import (
    Batch,
    Blend,
    Ema,
    Moments,
    Shrink,
    Source,
    Statistics,
    batch_moments,
    batchnorm_layers,
    blend,
    controlled,
    norm_affine,
)

RULES = [Source(), Batch(), Blend(0.7), Blend(0.7, exact=False), Shrink(4), Ema(0.3)]
MODELS = {"images": tiny_model, "images and vectors": tiny_mixed}


def moments_of(x: torch.Tensor) -> Moments:
    """Mean and variance per channel of (N, C, …), by their definitions."""
    flat = x.transpose(0, 1).flatten(1)
    mean = flat.mean(1)
    return Moments(mean, (flat - mean[:, None]).square().mean(1))


def close(a, b, tolerance=1e-12) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in zip(a, b, strict=True))


def used(model, rule, images, **layout) -> dict[str, Moments]:
    with torch.no_grad(), controlled(model, rule) as control:
        for name, value in layout.items():
            setattr(control, name, value)
        model(images)
    return control.used


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
    assert close(Ema(0.2)(*arguments), blend(previous, batch, 0.2, exact=False), 0)


@pytest.mark.parametrize("make", [lambda: Blend(1.1), lambda: Blend(-0.1), lambda: Ema(2), lambda: Shrink(-1)])
def test_impossible_rules_are_errors(make):
    with pytest.raises(ValueError, match=r"must (lie in \[0, 1\]|not be negative)"):
        make()


# What a model computes under a rule


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", [Source(), Blend(0), Blend(0, exact=False), Ema(0)])
def test_no_weight_on_the_batch_is_plain_inference_bit_for_bit(make, rule):
    model, images = make(), pictures(4)
    plain = model(images)
    with controlled(model, rule):
        assert torch.equal(model(images), plain)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", [Batch(), Blend(1), Shrink(0), Ema(1)])
def test_all_weight_on_the_batch_is_training_mode(make, rule):
    """In double precision, to rounding."""
    model, images = make().double(), pictures(4).double()
    training = copy.deepcopy(model).train()(images)
    with controlled(model, rule):
        found = model(images)
    assert torch.allclose(found, training, rtol=0, atol=1e-10)
    assert not torch.allclose(found, model(images), rtol=0, atol=1e-3)


def test_a_blend_normalises_with_the_blended_moments():
    """One layer by the formula γ (x − μ) / √(v + ε) + β."""
    layer = batchnorm_layers(tiny_mixed().double())["1"]
    x = torch.randn(6, 5, 4, 4, dtype=torch.float64)
    mean, var = (m.view(-1, 1, 1) for m in blend(Moments(layer.running_mean, layer.running_var), moments_of(x), 0.6))
    expected = (x - mean) / torch.sqrt(var + layer.eps) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
    with controlled(layer, Blend(0.6)):
        assert torch.allclose(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_copies_never_enter_the_statistics(make, rule):
    """Whatever the copies are, the moments and the clean images' scores stay the same bit for bit."""
    model, clean = make(), pictures(4)
    found = []
    for copies in (clean * 0.1, torch.rand(4, 3, 32, 32), clean.flip(0)):
        with torch.no_grad(), controlled(model, rule) as control:
            control.clean = 4
            scores = model(torch.cat([clean, copies]))
        found.append((scores[:4], control.used))
    for scores, moments in found[1:]:
        assert torch.equal(scores, found[0][0])
        assert all(map(torch.equal, sum(moments.values(), ()), sum(found[0][1].values(), ())))


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_copies_are_normalised_with_the_clean_images_moments(rule):
    """A copy that equals its image gets its score, whatever the other copies are."""
    model, clean = tiny_mixed().double(), pictures(4).double()
    with torch.no_grad(), controlled(model, rule) as control:
        control.clean = 4
        scores = model(torch.cat([clean, clean[:2], pictures(2, seed=5).double()]))
    assert torch.allclose(scores[4:6], scores[:2], rtol=0, atol=1e-12)


def test_the_count_of_images_excludes_copies_and_other_episodes():
    seen = []

    class Counting(Statistics):
        def __call__(self, source, batch, previous, count):
            seen.append(count)
            return source

    used(tiny_model(), Counting(), pictures(12), episodes=2, clean=2)
    assert set(seen) == {2}


@pytest.mark.parametrize("rule", [Ema(0.3), Ema(0.3, exact=True)])
def test_a_stream_carries_moments_on(rule):
    """μ₂ = (1 − m) μ₁ + m μ_batch, layer by layer; without a past it starts from the source."""
    layer = batchnorm_layers(tiny_mixed().double())["1"]
    first, second = (torch.randn(6, 5, 4, 4, dtype=torch.float64) for _ in range(2))
    source = Moments(layer.running_mean, layer.running_var)
    after_first = used(layer, rule, first)
    after_second = used(layer, rule, second, previous=after_first)
    expected = blend(source, moments_of(first), 0.3, rule.exact)
    assert close((m[0] for m in after_first[""]), expected)
    assert close((m[0] for m in after_second[""]), blend(expected, moments_of(second), 0.3, rule.exact))


# Folded episodes


def folded(model, rule, params, images, episodes, through):
    """Scores (E, rows) of one pass, and the gradients of Σ scores³ with respect to stacked γ and β."""
    params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    with controlled(model, rule, through) as control:
        control.episodes, control.clean = episodes, 4
        scores = functional_call(model, params, (images,)).view(episodes, -1)
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
        with controlled(layer, Batch(), through):
            return torch.autograd.grad((weights * layer(x + shift)).sum(), shift)[0]

    assert slope(True).abs().max() < 1e-5
    assert slope(False).abs().min() > 1e-3


# The user's model is only borrowed


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_users_mode_makes_no_difference(make, rule):
    """Neither before the block nor inside it."""
    model, images = make(), pictures(4)
    found = []
    for before in (True, False):
        for inside in (None, not before):
            model.train(before)
            with torch.no_grad(), controlled(model, rule):
                if inside is not None:
                    model.train(inside)
                found.append(model(images))
            assert model.training is before
    assert all(torch.equal(scores, found[0]) for scores in found[1:])


def test_dropout_is_off_inside():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    x = torch.randn(6, 4)
    with controlled(model, Source()):
        assert torch.equal(model(x), model[0](x))


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
def test_the_model_comes_back_exactly_as_it_was(rule, error):
    """Modes, buffers, parameters, gradients, hooks, patched forwards and attributes; also after an error."""
    model = marked_model()
    before = snapshot(model)
    try:
        with controlled(model, rule):
            assert snapshot(model) != before
            model(pictures(4))
            model.train()
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt, Stop) as caught:
        assert type(caught) is error
    assert snapshot(model) == before


def test_hooks_of_the_user_run_inside():
    model, calls = tiny_mixed(), []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    with controlled(model, Batch()):
        model(pictures(2))
    assert calls == [1]


def test_blocks_can_be_nested():
    """The inner rule holds inside, the outer one again afterwards, nothing at the end."""
    model, images = tiny_model(), pictures(4)
    before = snapshot(model)
    plain = model(images)
    with controlled(model, Batch()):
        outer = model(images)
        with controlled(model, Source()):
            assert torch.equal(model(images), plain)
        assert torch.equal(model(images), outer) and not torch.equal(outer, plain)
    assert snapshot(model) == before


def test_used_moments_carry_no_graph():
    model = tiny_model()
    with controlled(model, Blend(0.5), through=True) as control:
        model(pictures(4))
    assert control.used.keys() == batchnorm_layers(model).keys()
    assert not any(m.requires_grad for moments in control.used.values() for m in moments)


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
    expected = layer(x).view(2, 3, 3, 4, 4)
    with controlled(layer.eval(), Batch()) as control:
        assert torch.allclose(layer(x).view_as(expected), expected, rtol=0, atol=1e-5)
        control.episodes = 2
        parts = torch.cat([nn.BatchNorm2d(3, affine=False)(part) for part in x.chunk(2)])
        assert torch.allclose(layer(x), parts, rtol=0, atol=1e-5)


def test_layers_without_running_statistics_can_only_use_the_batchs():
    layer, x = nn.BatchNorm2d(3, track_running_stats=False), torch.randn(6, 3, 4, 4)
    for rule in (Source(), Blend(0.5), Shrink(4), Ema(0.1)):
        with (
            pytest.raises(ValueError, match=r"track_running_stats=False\): use statistics=Batch\(\)"),
            controlled(layer, rule),
        ):
            pass
    with controlled(layer, Batch()):
        assert torch.allclose(layer(x), layer.train()(x), rtol=0, atol=1e-5)


def test_a_rule_on_a_model_without_batchnorm_is_an_error_that_says_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    for rule in (Batch(), Blend(0.5)):
        with (
            pytest.raises(ValueError, match=r"needs BatchNorm layers.*use statistics=Source\(\)"),
            controlled(model, rule),
        ):
            pass
    with controlled(model, Source()):
        assert model(pictures(2)).shape == (2, 4, 32, 32)
