"""One pass as a value: what a model computes under a rule, with the model only borrowed."""

import copy

import pytest
import torch
from helpers import (
    MODELS,
    RULES,
    close,
    moments_of,
    moments_used,
    one_pass,
    pictures,
    seeded,
    snapshot,
    tiny_mixed,
    tiny_model,
)
from torch import nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from tta_iqa_lib.adaptation import (
    Adaptive,
    Batch,
    Blend,
    Ema,
    First,
    Layout,
    Moments,
    Shrink,
    Source,
    Stateless,
    Statistics,
    batchnorm_layers,
    blend,
    measure,
    norm_affine,
)
from tta_iqa_lib.adaptation.moments import layer_shifts
from tta_iqa_lib.adaptation.passes import Memory

# What a model computes under a rule


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", [Source(), Blend(0), Blend(0, exact=False), Ema(0), First(Batch(), 0)], ids=str)
def test_no_weight_on_the_batch_is_plain_inference_bit_for_bit(make, rule):
    model, images = make(), pictures(4)
    plain = model(images)
    assert torch.equal(one_pass(model, rule, images).scores, plain)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    "rule", [Batch(), Blend(1), Shrink(0), Ema(1), Adaptive(caution=0), First(Batch(), 1)], ids=str
)
def test_all_weight_on_the_batch_is_training_mode(make, rule):
    """In double precision, to rounding."""
    model, images = make().double(), pictures(4).double()
    training = copy.deepcopy(model).train()(images)
    found = one_pass(model, rule, images).scores
    assert torch.allclose(found, training, rtol=0, atol=1e-10)
    assert not torch.allclose(found, model(images), rtol=0, atol=1e-3)


def test_a_rule_on_a_model_without_batchnorm_is_an_error_that_says_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    for rule in (Batch(), Blend(0.5)):
        with pytest.raises(ValueError, match=r"needs BatchNorm layers.*use statistics=Source\(\)"):
            one_pass(model, rule, pictures(2))
    assert one_pass(model, Source(), pictures(2)).scores.shape == (2, 4, 32, 32)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_copies_never_enter_the_statistics(make, rule):
    """Whatever the copies are, the moments and the clean images' scores stay the same bit for bit."""
    model, clean = make(), pictures(4)
    found = []
    for copies in (clean * 0.1, torch.rand(4, 3, 32, 32), clean.flip(0)):
        one = one_pass(model, rule, torch.cat([clean, copies]), images=4)
        found.append((one.scores[:4], one.used))
    for scores, moments in found[1:]:
        assert torch.equal(scores, found[0][0])
        assert all(map(torch.equal, sum(moments.values(), ()), sum(found[0][1].values(), ())))


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_copies_are_normalised_with_the_clean_images_moments(rule):
    """A copy that equals its image gets its score, whatever the other copies are."""
    model, clean = tiny_mixed().double(), pictures(4).double()
    scores = one_pass(model, rule, torch.cat([clean, clean[:2], pictures(2, seed=5).double()]), images=4).scores
    assert torch.allclose(scores[4:6], scores[:2], rtol=0, atol=1e-12)


def test_the_count_of_images_excludes_copies_and_other_episodes():
    seen = []

    class Counting(Statistics):
        def __call__(self, source, batch, previous, count):
            seen.append(count)
            return source

    moments_used(tiny_model(), Counting(), pictures(12), episodes=2, images=2)
    assert set(seen) == {2}


@pytest.mark.parametrize("rule", [Ema(0.3), Ema(0.3, exact=False)])
def test_a_stream_carries_moments_on(rule):
    """μ₂ = (1 − m) μ₁ + m μ_batch, layer by layer; without a past it starts from the source."""
    layer = batchnorm_layers(tiny_mixed().double())["1"]
    first, second = (torch.randn(6, 5, 4, 4, dtype=torch.float64) for _ in range(2))
    source = Moments(layer.running_mean, layer.running_var)
    after_first = moments_used(layer, rule, first)
    after_second = moments_used(layer, rule, second, carried=after_first)
    expected = blend(source, moments_of(first), 0.3, rule.exact)
    assert close((m.flatten() for m in after_first[""]), expected)
    assert close((m.flatten() for m in after_second[""]), blend(expected, moments_of(second), 0.3, rule.exact))


# Folded episodes


def folded(model, rule, params, images, episodes, through):
    """Scores (E, rows) of one pass, and the gradients of Σ scores³ with respect to stacked γ and β."""
    params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    found = one_pass(model, rule, images, params, through=through, grad=True, episodes=episodes, images=4)
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
    one_pass(model, Batch(), pictures(2))
    assert calls == [1]


def test_one_pass_knows_nothing_of_another():
    model, images = tiny_model(), pictures(4)
    network, plain = Stateless(model), model(images)
    outer = network(images, Batch()).scores
    assert torch.equal(network(images, Source()).scores, plain)
    assert torch.equal(network(images, Batch()).scores, outer) and not torch.equal(outer, plain)


def test_an_input_that_the_model_changes_in_place_is_not_the_callers():
    class Halves(nn.Module):
        def forward(self, x):
            return x.mul_(0.5)

    images = pictures(2)
    before = images.clone()
    one_pass(Halves(), Source(), images)
    assert torch.equal(images, before)


# What is measured along the way


def with_record(model, rule, rows, record=True, through=False, **layout):
    """Scores, the gradient of Σ scores³ with respect to γ and β, and what was measured."""
    params = {name: p.detach().clone().requires_grad_() for name, p in norm_affine(model).items()}
    found = one_pass(model, rule, rows, params, record=record, through=through, grad=True, **layout)
    gradients = torch.autograd.grad((found.scores**3).sum(), list(params.values()))
    return found.scores.detach(), gradients, found.measured


@pytest.mark.parametrize("rule", RULES, ids=str)
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


class Operations(TorchDispatchMode):
    """Counts those that compute; a view computes nothing."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_recording_takes_a_few_operations_a_layer():
    """A small batch on a GPU costs as much as the launch of its operations. What the gate asks of all layers is asked at once."""
    model, images, counts = tiny_model(), pictures(6), []
    for record in (False, True):
        with Operations() as operations:
            found = one_pass(model, Source(), images, record=record)
            if record:
                assert layer_shifts([*found.measured.values()]).shape == (len(batchnorm_layers(model)), 4, 1)
        counts.append(operations.count)
    assert counts[1] - counts[0] < 8 * len(batchnorm_layers(model)) + 50


# What a later step need not run again


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
        kept = memory.of_images(layout)
        assert not kept.open
        short = network(images[:4], Blend(0.5), params, memory=kept).scores
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


# Odd models


class Activated(nn.BatchNorm2d):
    """A subclass that does more than its parent, as timm's layers do."""

    def forward(self, x):
        return super().forward(x).abs()


@pytest.mark.parametrize("rule", [Source(), Batch(), Blend(0.5)], ids=str)
def test_what_a_subclass_adds_to_batchnorm_is_kept(rule):
    plain_layer, layer, x = nn.BatchNorm2d(3).eval(), Activated(3).eval(), torch.randn(5, 3, 4, 4)
    assert torch.equal(one_pass(layer, rule, x).scores, one_pass(plain_layer, rule, x).scores.abs())


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
    found = one_pass(model, Source(), x, {"a.weight": gamma}).scores
    assert torch.allclose(found, x * gamma.view(1, 3, 1, 1) ** 2, atol=1e-4)
    assert snapshot(model) == before

    tied = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    tied[1].weight = tied[0].weight
    assert torch.allclose(one_pass(tied, Source(), x, {"0.weight": gamma}).scores, found, atol=1e-4)
    with pytest.raises(ValueError, match=r"no parameter '0\.wieght'"):
        one_pass(tied, Source(), x, {"0.wieght": gamma})


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
    found = one_pass(model, Batch(), images)
    assert not found.rowwise
    assert torch.allclose(found.scores, copy.deepcopy(model).train()(images), atol=1e-5)
    for layout in ({"images": 2}, {"episodes": 2}):
        with pytest.raises(ValueError, match="layer 'norm' sees 64 rows for 4 images"):
            one_pass(model, Batch(), images, **layout)
