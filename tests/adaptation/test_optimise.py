"""The steps: any optimiser, steps that are undone, sharpness-aware steps."""

import copy
import math

import pytest
import torch
from helpers import FAST, LayerNormModel, far, mean_score, pictures, seeded, tiny_model
from torch import nn

from tta_iqa_lib.adaptation import Adapter, Blend, Source, State, adapt_batch, norm_affine
from tta_iqa_lib.adaptation.optimise import Flat, guarded_step, starting_point


def test_the_optimizer_may_be_anyones():
    """Plain gradient descent: θ − lr · gradient, once."""
    model, images, lr = tiny_model(), pictures(4), 0.05
    recipe = Adapter(model, [mean_score], Source(), steps=1, optimizer=lambda ps: torch.optim.SGD(ps, lr=lr)).recipe
    _, state = adapt_batch(model, State(), images, recipe)
    names = list(norm_affine(model))
    slopes = torch.autograd.grad(-model(images).mean(), [model.get_parameter(name) for name in names])
    for name, slope in zip(names, slopes, strict=True):
        expected = model.get_parameter(name) - lr * slope
        assert torch.allclose(state.params[name], expected, rtol=0, atol=1e-6), name


def test_parameters_that_cannot_differ_between_episodes_are_an_error_when_folded():
    model = seeded(lambda: LayerNormModel(nn.LayerNorm(6)))
    adapter = Adapter(model, FAST, episodes_per_pass=2)
    with pytest.raises(ValueError, match="episodes_per_pass=1"):
        adapter.predict(pictures(8), batch_size=4)
    regressor = Adapter(tiny_model(), FAST, params=lambda m: {"regressor.bias": m.regressor.bias}, episodes_per_pass=2)
    with pytest.raises(ValueError, match="episodes_per_pass=1"):
        regressor.predict(pictures(8), batch_size=4)


def test_steps_are_taken_in_single_precision_and_each_layer_is_given_its_own_type():
    """BatchNorm's γ and β are given in full, as its moments are; those of other layers as they were."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(4)).half()
    layout, flat = starting_point(model, State(), dict(model.named_parameters()), 1)
    types = {name: part.dtype for name, part in layout.views(flat).items()}
    assert flat.dtype == types["0.weight"] == torch.float32 and types["1.bias"] == torch.float16


# All that is adapted, in one tensor

SHAPES = {"a.weight": torch.Size([3]), "b.weight": torch.Size([2, 2]), "c": torch.Size([1])}


@pytest.mark.parametrize("episodes", [1, 3])
def test_views_cut_each_row_into_its_parameters(episodes):
    """In the order of the names, nothing left over, each in its type; a single episode's are shaped as the model's."""
    types = {"a.weight": torch.float64, "b.weight": torch.float32, "c": torch.float64}
    flat = torch.arange(8.0 * episodes, dtype=torch.float64).view(episodes, 8)
    views = Flat(SHAPES, types).views(flat)
    lead = (episodes,) if episodes > 1 else ()
    assert {name: tuple(view.shape) for name, view in views.items()} == {n: (*lead, *s) for n, s in SHAPES.items()}
    assert {name: view.dtype for name, view in views.items()} == types
    assert torch.equal(torch.cat([view.reshape(episodes, -1).double() for view in views.values()], 1), flat)


def test_gradients_come_back_to_the_row_and_place_of_each_parameter():
    flat = torch.zeros(3, 8, requires_grad=True)
    views = Flat(SHAPES, dict.fromkeys(SHAPES, torch.float32)).views(flat)
    (5 * views["b.weight"][1, 0, 1] + 7 * views["c"][2, 0]).backward()
    expected = torch.zeros(3, 8)
    expected[1, 3 + 1], expected[2, 7] = 5, 7
    assert torch.equal(flat.grad, expected)


@pytest.mark.parametrize("episodes", [1, 3])
def test_the_steps_start_at_the_states_parameters_or_the_models(episodes):
    """Each episode has a row of its own; the model's tensors are not those that the steps change."""
    model = tiny_model()
    picked = norm_affine(model)
    name = list(picked)[2]
    carried = State({name: torch.full_like(picked[name], 3.0)})
    layout, flat = starting_point(model, carried, picked, episodes)
    assert flat.requires_grad and flat.is_leaf and len(flat) == episodes
    for row in flat.detach().split(1):
        views = layout.views(row)
        assert views.keys() == picked.keys()
        assert all(torch.equal(views[n], carried.params.get(n, p)) for n, p in picked.items())
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        flat[0] += 1
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert episodes == 1 or not torch.equal(flat[0], flat[1])


# Guarded steps

OPTIMIZERS = {
    "Adam": lambda tensors: torch.optim.Adam(tensors, lr=0.1),
    "momentum": lambda tensors: torch.optim.SGD(tensors, lr=0.1, momentum=0.9),
    "plain": lambda tensors: torch.optim.SGD(tensors, lr=0.1),
}


def rows_and_gradients(steps: int):
    """(3, 4), and one (3, 4) for each step."""
    generator = torch.Generator().manual_seed(0)
    rows, *gradients = torch.randn(steps + 1, 3, 4, generator=generator)
    return rows, gradients


def by_hand(make, rows, gradients):
    """Parameters after plain steps of the optimiser."""
    rows = rows.clone().requires_grad_()
    optimizer = make([rows])
    for gradient in gradients:
        rows.grad = gradient
        optimizer.step()
    return rows.detach()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_where_all_is_fine_a_guarded_step_is_the_optimisers(make):
    rows, gradients = rows_and_gradients(3)
    flat = rows.clone().requires_grad_()
    optimizer = make([flat])
    took = [guarded_step(optimizer, flat, gradient, torch.ones(3, dtype=torch.bool)) for gradient in gradients]
    assert all(t.tolist() == [True] * 3 for t in took)
    assert torch.equal(flat.detach(), by_hand(make, rows, gradients))


BAD = {"told": 1.0, "NaN gradient": math.nan, "infinite gradient": math.inf, "too long a step": 3e38}


@pytest.mark.parametrize("at", [0, 1], ids=["first step", "second step"])
@pytest.mark.parametrize("why", BAD)
def test_a_step_that_cannot_be_taken_is_undone_for_its_episode_alone(why, at):
    """Its parameters and momentum are as if it had never been tried; the other episodes are not held up."""

    def make(tensors):
        return torch.optim.SGD(tensors, lr=10.0, momentum=0.9)

    rows, gradients = rows_and_gradients(3)
    flat = rows.clone().requires_grad_()
    optimizer = make([flat])
    for i, gradient in enumerate(gradients):
        given, fine = gradient.clone(), torch.ones(3, dtype=torch.bool)
        if i == at:
            given[1, 2] = BAD[why]
            fine[1] = why != "told"
        took = guarded_step(optimizer, flat, given, fine)
        assert took.tolist() == [True, i != at, True]
    others = by_hand(make, rows, gradients)
    spared = by_hand(make, rows, [gradient for i, gradient in enumerate(gradients) if i != at])
    assert torch.equal(flat.detach()[[0, 2]], others[[0, 2]]) and torch.equal(flat.detach()[1], spared[1])


def test_an_infinite_gradient_is_no_direction_even_where_the_optimiser_takes_its_sign():
    rows, (gradient,) = rows_and_gradients(1)
    flat = rows.clone().requires_grad_()
    gradient[1, 2] = math.inf
    took = guarded_step(torch.optim.Rprop([flat]), flat, gradient, torch.ones(3, dtype=torch.bool))
    assert took.tolist() == [True, False, True]
    assert [torch.equal(new, old) for new, old in zip(flat.detach(), rows, strict=True)] == [False, True, False]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("at", [0, 1], ids=["first step", "second step"])
def test_a_step_that_no_episode_takes_leaves_no_trace(make, at):
    """Not even Adam's count of steps goes on."""
    rows, gradients = rows_and_gradients(3)
    flat = rows.clone().requires_grad_()
    optimizer = make([flat])
    for i, gradient in enumerate(gradients):
        took = guarded_step(optimizer, flat, gradient * (math.nan if i == at else 1), torch.ones(3, dtype=torch.bool))
        assert took.tolist() == [i != at] * 3
    assert torch.equal(flat.detach(), by_hand(make, rows, [g for i, g in enumerate(gradients) if i != at]))


@pytest.mark.parametrize("at", [1, 3])
def test_a_step_on_a_loss_that_is_not_finite_is_undone_and_reported(at):
    """Parameters and Adam's memory are as if it had never been tried."""
    model, images, calls = tiny_model(), pictures(4), []

    def explodes(context):
        calls.append(1)
        return context.scores["clean"].mean() * (math.nan if len(calls) == at else 1.0)

    result = Adapter(model, [explodes], Blend(0.5), steps=4, lr=0.01).run(images)
    assert f"not finite at step {at}" in result.skipped["step"] and len(calls) == 4
    expected = Adapter(model, [lambda c: c.scores["clean"].mean()], Blend(0.5), steps=3, lr=0.01)(images)
    assert torch.equal(result.scores, expected) and result.scores.isfinite().all()


# Sharpness-aware steps


def bend(scores: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient depends on where it is taken."""
    return (5 * scores).exp().mean() + 10 * scores.var()


def curved(context) -> torch.Tensor:
    return bend(context.scores["clean"])


def descend(ps):
    return torch.optim.SGD(ps, lr=0.05)


def test_without_sharpness_a_step_is_plain():
    model, images = tiny_model(), pictures(5)
    expected = Adapter(model, [curved], Blend(0.5), optimizer=descend)(images)
    assert torch.equal(Adapter(model, [curved], Blend(0.5), optimizer=descend, sam_rho=0.0)(images), expected)
    assert far(Adapter(model, [curved], Blend(0.5), optimizer=descend, sam_rho=0.3)(images), expected, 1e-4)


@pytest.mark.parametrize("radius", [0.05, 0.5])
def test_a_sharpness_aware_step_takes_the_gradient_uphill(radius):
    """p − lr · ∇L(p + ρ ∇L(p) / ‖∇L(p)‖), with one norm over all of γ and β; the trace tells L(p)."""
    model, images = tiny_model().double(), pictures(5).double()
    recipe = Adapter(model, [curved], Source(), steps=1, optimizer=descend, sam_rho=radius).recipe
    (result,), state = adapt_batch(model, State(), images, recipe)
    params = {name: p.detach().clone().requires_grad_() for name, p in norm_affine(model).items()}

    def slopes(at):
        loss = bend(torch.func.functional_call(model, at, (images,)))
        return loss, torch.autograd.grad(loss, list(at.values()))

    loss, first = slopes(params)
    norm = torch.cat([g.flatten() for g in first]).norm()
    uphill = {
        name: (p + radius * g / norm).detach().requires_grad_()
        for (name, p), g in zip(params.items(), first, strict=True)
    }
    for (name, p), g in zip(params.items(), slopes(uphill)[1], strict=True):
        assert torch.allclose(state.params[name], p.detach() - 0.05 * g, rtol=0, atol=1e-12), name
    assert len(result.trace) == 1 and result.trace[0]["loss"] == pytest.approx(loss.item(), abs=1e-12)


def test_folded_sharpness_aware_steps_equal_a_loop():
    """Each episode climbs on its own, by its own norm."""
    model, images = (
        tiny_model().double(),
        torch.cat([pictures(4), 0.3 * pictures(4, seed=1), pictures(4, seed=2)]).double(),
    )
    recipes = [
        Adapter(model, [curved], Blend(0.5), optimizer=descend, sam_rho=0.5, episodes_per_pass=n) for n in (1, 3)
    ]
    one, many = (adapter.predict(images, 4, shuffle=False) for adapter in recipes)
    assert torch.allclose(one, many, rtol=0, atol=1e-10)
    assert far(one, Adapter(model, [curved], Blend(0.5), optimizer=descend).predict(images, 4, shuffle=False), 1e-4)


def test_sharpness_with_nothing_to_climb_leaves_the_model_alone():
    """Every loss was skipped: no gradient, no step, and no NaN of 0 / 0."""
    result = Adapter(tiny_model(), FAST, Blend(0.5), sam_rho=0.1).run(pictures(3))
    assert torch.equal(result.scores, result.initial_scores) and "GroupContrastive" in result.skipped

    def flat(context):
        return 0 * context.scores["clean"].mean()

    level = Adapter(tiny_model(), [flat], Blend(0.5), sam_rho=0.1).run(pictures(3))
    assert torch.allclose(level.scores, level.initial_scores, rtol=0, atol=1e-6)
