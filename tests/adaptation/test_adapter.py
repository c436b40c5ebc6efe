import copy
import math
import threading
from dataclasses import replace

import pytest
import torch
from helpers import pictures, seeded, snapshot, tiny_mixed, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import (
    Batch,
    Blend,
    Carried,
    Ema,
    Moments,
    Shrink,
    Source,
    Stateless,
    batch_moments,
    batchnorm_layers,
    mean_shift,
    measure,
    norm_affine,
    variance_shift,
)
from tta_iqa_lib.adaptation.adapter import (
    DEFAULT_RECIPE,
    Adapter,
    State,
    adapt_batch,
    balanced_batches,
)
from tta_iqa_lib.adaptation.copies import Pair
from tta_iqa_lib.adaptation.gates import ShiftGate
from tta_iqa_lib.adaptation.losses import Anchor, GroupContrastive, RelativeRank, ScoreOrder
from tta_iqa_lib.imaging.crops import symmetries
from tta_iqa_lib.models.quality import ScoringModel

DEFAULT_STATISTICS, DEFAULT_GATE = DEFAULT_RECIPE.inference.statistics, DEFAULT_RECIPE.inference.gate
METHOD = (RelativeRank(), GroupContrastive())
FAST = (GroupContrastive(),)  # no copies


def plain(model, images) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def mean_score(context) -> torch.Tensor:
    """A loss of somebody's own: raise the scores."""
    return -context.scores["clean"].mean()


# The loop


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("statistics", [Source(), Batch()])
def test_the_loop_equals_one_written_by_hand(statistics, through):
    """Deep copy, `requires_grad`, `zero_grad`, `backward`, `step`: three Adam steps on rank + 0.5 · contrast.

    With `Batch`, the model by hand is in training mode, where gradients always flow through the statistics; the loss
    is then the one that needs no distorted copies.
    """
    model, images = tiny_model().double(), pictures(8).double()
    model.set_moments(
        feature_mean=torch.rand(6).double(),
        feature_cov=torch.eye(6).double() * 2,
        score_mean=torch.zeros(()).double(),
        score_std=torch.ones(()).double(),
    )
    rank = isinstance(statistics, Source)
    losses = [RelativeRank(copies=Pair(choose="signed")), GroupContrastive(weight=0.5)][0 if rank else 1 :]
    found = Adapter(model, losses, statistics, steps=3, lr=0.01, seed=5, grad_through_statistics=through).run(images)

    by_hand = copy.deepcopy(model).train(not rank)
    by_hand.requires_grad_(False)
    pseudo = plain(model, images)
    copies = Pair(choose="signed")(images, lambda x: plain(model, x), torch.Generator().manual_seed(5))
    gammas_betas = [p for layer in batchnorm_layers(by_hand).values() for p in layer.parameters()]
    optimizer = torch.optim.Adam([p.requires_grad_() for p in gammas_betas], lr=0.01)

    def standardised(x):
        return (by_hand(x, with_features=True)[1] - model.feature_mean) / math.sqrt(2)

    for _ in range(3):
        z = standardised(images)
        loss = 0.5 * tta.group_contrastive_loss(z, pseudo) / math.log(3)
        if rank:
            mild, severe = standardised(copies["mild"]), standardised(copies["severe"])
            loss = loss + tta.relative_rank_loss(*(f / math.sqrt(6) for f in (z, mild, severe)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = plain(by_hand, images)
    if rank or through:
        assert torch.allclose(found.scores, expected, rtol=0, atol=1e-9)
        assert found.trace[2]["loss"] == pytest.approx(loss.item(), abs=1e-9)
    else:
        assert not torch.allclose(found.scores, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(found.scores, found.initial_scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("losses", [METHOD, (ScoreOrder(),)], ids=["method", "order"])
def test_steps_lower_the_loss_on_average(losses):
    model = tiny_model()
    traces = [Adapter(model, losses, steps=6, lr=3e-3).run(pictures(8, seed=s)).trace for s in range(6)]
    first, last = (sum(trace[i]["loss"] for trace in traces) for i in (0, -1))
    assert last < first - 0.01
    assert all(len(trace) == 6 for trace in traces)


def test_weights_scale_their_loss():
    images, model = pictures(4), tiny_model()
    one, half, none = (
        Adapter(model, [GroupContrastive(weight=w), mean_score], Source()).run(images).trace[0] for w in (1, 0.5, 0)
    )
    assert half["GroupContrastive"] == pytest.approx(0.5 * one["GroupContrastive"], rel=1e-6)
    assert none["GroupContrastive"] == 0 and none["loss"] == pytest.approx(none["mean_score"])
    assert half["loss"] == pytest.approx(half["GroupContrastive"] + half["mean_score"], rel=1e-6)


def test_the_trace_tells_scores_before_each_step():
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, FAST, Blend(0.5), steps=3).run(images)
    assert torch.equal(result.trace[0]["scores"], result.initial_scores)
    two = Adapter(model, FAST, Blend(0.5), steps=2).run(images)
    assert torch.equal(result.trace[2]["scores"], two.scores)
    assert torch.equal(result.source_scores, plain(model, images))


@pytest.mark.parametrize("statistics", [Source(), Blend(0)])
def test_losses_off_and_no_weight_on_the_batch_is_plain_inference_exactly(statistics):
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, losses=[], statistics=statistics).run(images)
    for scores in (result.scores, result.initial_scores, result.source_scores):
        assert torch.equal(scores, plain(model, images))
    assert result.trace == [] and result.skipped == {}


def test_no_steps_are_the_statistics_alone():
    model, images = tiny_model(), pictures(5)
    control = Adapter(model, [], Shrink(4))(images)
    assert torch.equal(Adapter(model, METHOD, Shrink(4), steps=0)(images), control)
    # The loop's pass is longer by the copies: the convolutions may round differently.
    before_steps = Adapter(model, METHOD, Shrink(4)).run(images).initial_scores
    assert torch.allclose(before_steps, control, rtol=0, atol=1e-6)


def test_distorted_copies_do_not_enter_the_statistics():
    """Batch statistics of the scoring pass are those of the clean images, whatever copies the losses asked for."""
    model, images = tiny_model(), pictures(6)
    recipe = Adapter(model, METHOD, Batch(), steps=1, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.0)).recipe
    (result,), state = adapt_batch(model, State(), images, recipe)
    _, control = adapt_batch(model, State(), images, Adapter(model, [], Batch()).recipe)
    assert torch.allclose(result.initial_scores, result.scores, rtol=0, atol=1e-6)
    assert all(map(torch.equal, sum(state.moments.values(), ()), sum(control.moments.values(), ())))


# Nothing is left behind


@pytest.mark.parametrize("losses", [METHOD, (ScoreOrder(),), ()], ids=["method", "order", "none"])
def test_the_same_batch_gives_the_same_scores_at_any_position_of_a_stream(losses):
    options = {"lr": 0.01} if losses else {}
    adapter = Adapter(tiny_model(), losses, **options)
    batch, other = pictures(6), pictures(7, seed=1)
    first = adapter(batch)
    torch.manual_seed(123)
    for _ in range(2):
        adapter(other)
        assert torch.equal(adapter(batch), first)
    assert torch.equal(Adapter(tiny_model(), losses, **options)(batch), first)


def test_the_seed_decides_the_copies():
    model, images = tiny_model(), pictures(6)
    loss = RelativeRank(copies=Pair(("noise",)))
    scores = [Adapter(model, [loss], seed=seed)(images) for seed in (0, 0, 1)]
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])


def marked_model():
    """A model with everything that could get lost: modes, hooks, patched forward, gradients, frozen parts, moments."""
    model = tiny_model()
    model.set_moments(
        feature_mean=torch.zeros(6), feature_cov=torch.eye(6), score_mean=torch.zeros(()), score_std=torch.ones(())
    )
    layers = list(batchnorm_layers(model).values())
    model.train()
    layers[0].eval()
    layers[1].register_forward_hook(lambda *_: None)
    layers[2].forward = layers[2].forward
    layers[1].weight.requires_grad_(False)
    model.regressor.weight.requires_grad_(False)
    layers[2].weight.grad = torch.ones_like(layers[2].weight)
    return model


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("when", [0, 2], ids=["first step", "last step"])
def test_the_model_comes_back_exactly_as_it_was(error, when):
    """Tensors, gradients, `requires_grad`, modes, hooks and attributes: also when a loss fails, or at Ctrl-C."""
    model, calls = marked_model(), []

    def fails(context):
        calls.append(1)
        if error and len(calls) > when:
            raise error
        return context.scores["severe"].mean()

    fails.copies = Pair()
    before = snapshot(model)
    adapter = Adapter(model, [fails, GroupContrastive()])
    if error:
        with pytest.raises(error):
            adapter(pictures(5))
    else:
        adapter(pictures(5))
    assert len(calls) == (when + 1 if error else 3)
    assert snapshot(model) == before


def test_reset_is_bit_exact_after_an_exception():
    """Scores after a batch that failed half-way are those of an adapter that never failed."""
    broken = []

    def fails(context):
        if broken and context.scores["clean"].isfinite().all():
            raise RuntimeError
        return context.scores["clean"].var()

    adapter, images = Adapter(tiny_model(), [fails], lr=0.1), pictures(5)
    first = adapter(images)
    broken.append(True)
    with pytest.raises(RuntimeError):
        adapter(pictures(5, seed=1))
    broken.clear()
    assert torch.equal(adapter(images), first)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_makes_no_difference(guard):
    """Inference mode used to switch the steps off in silence."""
    images, adapter = pictures(5), Adapter(tiny_model(), METHOD)
    expected = adapter(images)
    with guard():
        inside = adapter.run(images.clone())
    assert torch.equal(inside.scores, expected) and len(inside.trace) == 3
    assert not inside.scores.requires_grad


@pytest.mark.parametrize("mode", [True, False])
def test_the_users_mode_makes_no_difference(mode):
    model, images = tiny_model(), pictures(5)
    expected = Adapter(model, METHOD)(images)
    assert torch.equal(Adapter(model.train(mode), METHOD)(images), expected)


# Any loss, any model, any parameters


def test_any_callable_is_a_loss():
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, [lambda context: -context.scores["clean"].mean()], Source()).run(images)
    assert (result.scores > result.source_scores).all()
    assert result.trace[0]["<lambda>"] == pytest.approx(-result.source_scores.mean().item(), abs=1e-6)


def test_two_losses_of_one_name_both_count():
    """The second lambda used to replace the first."""
    model, images = tiny_model(), pictures(5)
    up, down = (lambda context: -context.scores["clean"].mean()), (lambda context: context.scores["clean"].mean())
    result = Adapter(model, [up, down, mean_score], Source(), steps=1).run(images)
    assert result.trace[0]["loss"] == pytest.approx(-result.source_scores.mean().item(), abs=1e-6)
    assert sum("lambda" in name for name in result.trace[0]) == 2


def test_a_loss_may_bear_a_name_that_the_trace_uses():
    def loss(context):
        return -context.scores["clean"].mean()

    trace = Adapter(tiny_model(), [loss, GroupContrastive()], Source(), steps=1).run(pictures(5)).trace[0]
    own = sum(value for name, value in trace.items() if name not in ("loss", "scores"))
    assert trace["loss"] == pytest.approx(own, rel=1e-6)


def test_the_context_shows_the_source_and_the_adapted_model():
    """Pseudo-scores and source features stay, scores and features move; images and copies are at hand."""
    model, images, seen = tiny_model(), pictures(5), []

    def look(context):
        seen.append(context)
        return context.scores["clean"].mean() + 0 * context.scores["mild"].sum()

    look.copies = Pair(("dark",))
    Adapter(model, [look], Source(), lr=0.1, steps=2)(images)
    first, second = seen
    with torch.no_grad():
        scores, features = model(images, with_features=True)
    for context in seen:
        assert torch.equal(context.pseudo_scores, scores)
        assert torch.equal(context.images["clean"], images)
        assert torch.equal(context.images["severe"], tta.distort(images, "dark", 0.7))
    # The pass with the copies is longer: the convolutions may round differently.
    assert torch.allclose(first.features["clean"], features, rtol=0, atol=1e-5)
    assert torch.allclose(first.scores["mild"], plain(model, tta.distort(images, "dark", 0.3)), rtol=0, atol=1e-5)
    assert not torch.allclose(second.scores["clean"], scores, rtol=0, atol=1e-3)
    # Without source moments, the batch's own stand in.
    assert torch.equal(first.feature_mean, features.mean(0)) and torch.equal(first.score_std, scores.std(correction=0))


def test_losses_that_disagree_about_the_same_copies_are_an_error():
    losses = [RelativeRank(), ScoreOrder(copies=Pair(mild=0.1))]
    with pytest.raises(ValueError, match="different copies under the name 'mild'"):
        Adapter(tiny_model(), losses)(pictures(4))


class Module(nn.Module):
    """Somebody else's module around the tiny one; `output` shapes what it returns."""

    def __init__(self, output):
        super().__init__()
        self.net, self.output = tiny_mixed(), output

    def forward(self, x):
        return self.output(self.net(x))


OUTPUTS = {
    "(B,)": lambda s: s[:, 0],
    "(B, 1)": lambda s: s,
    "tuple": lambda s: (s, s.new_zeros(3)),
    "dictionary": lambda s: {"aux": s.new_zeros(2), "score": s},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_any_wrapped_module_adapts_alike(name):
    images = pictures(6)
    module = Module(OUTPUTS[name])
    before = snapshot(module)
    result = Adapter(tta.wrap_model(module, features="net.5"), METHOD, Blend(0.5)).run(images)
    expected = Adapter(tta.wrap_model(Module(OUTPUTS["(B,)"]), features="net.5"), METHOD, Blend(0.5)).run(images)
    assert result.scores.shape == (6,)
    assert torch.equal(result.scores, expected.scores)
    assert not torch.equal(result.scores, result.initial_scores)
    assert snapshot(module) == before


@pytest.mark.parametrize("losses", [METHOD, (ScoreOrder(), Anchor()), (RelativeRank(copies=Pair(choose="signed")),)])
def test_a_model_where_lower_is_better_is_the_negative_of_one_where_higher_is(losses):
    images = pictures(6)
    lower = tta.wrap_model(Module(lambda s: s), features="net.5", higher_is_better=False)
    higher = tta.wrap_model(Module(lambda s: -s), features="net.5")
    down, up = (Adapter(model, losses, lr=0.01).run(images) for model in (lower, higher))
    for field in ("scores", "source_scores", "initial_scores"):
        assert torch.equal(getattr(down, field), -getattr(up, field))
    assert torch.equal(down.trace[1]["scores"], -up.trace[1]["scores"])
    assert [step["loss"] for step in down.trace] == [step["loss"] for step in up.trace]


class LayerNormModel(ScoringModel):
    def __init__(self, norm: nn.Module):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, 4), norm, nn.Linear(6, 1)

    def forward(self, images, with_features=False):
        features = self.norm(self.conv(images).relu().mean((2, 3)))
        scores = self.head(features)[:, 0]
        return (scores, features) if with_features else scores


def test_a_layernorm_model_adapts_its_gamma_and_beta_with_the_sources_statistics():
    model, images = seeded(lambda: LayerNormModel(nn.LayerNorm(6))), pictures(6)
    adapter = Adapter(model, FAST, lr=0.01)
    assert adapter.recipe.inference.statistics == Source()
    result = adapter.run(images)
    assert torch.equal(result.initial_scores, plain(model, images))
    assert not torch.allclose(result.scores, result.source_scores, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="needs BatchNorm layers"):
        Adapter(model, FAST, Batch())(images)


def test_a_model_with_nothing_to_adapt_is_an_error_that_says_so():
    model = LayerNormModel(nn.Identity())
    with pytest.raises(ValueError, match=r"nothing to adapt.*params="):
        Adapter(model, FAST)
    assert torch.equal(Adapter(model, [])(pictures(3)), plain(model, pictures(3)))


def test_params_may_pick_any_parameters():
    """Only the regressor's bias: the mean moves, the differences between images do not."""
    model, images = LayerNormModel(nn.Identity()), pictures(4)
    picked = Adapter(model, [mean_score], params=lambda m: {"head.bias": m.head.bias}, lr=0.1, steps=2).run(images)
    assert torch.allclose(picked.scores - picked.source_scores, torch.full((4,), 0.2), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="params must be"):
        Adapter(model, params="all")


def test_only_the_picked_parameters_get_gradients():
    """And the state that comes back holds just these."""
    model, images = tiny_model(), pictures(4)
    recipe = Adapter(model, FAST, lr=0.01).recipe
    _, state = adapt_batch(model, State(), images, recipe)
    assert state.params.keys() == norm_affine(model).keys()
    assert all(p.grad is None for p in model.parameters())
    moved = [name for name, p in state.params.items() if not torch.equal(p, model.get_parameter(name))]
    assert len(moved) > len(state.params) / 2


def test_an_unwrapped_module_is_an_error_that_says_to_wrap_it():
    with pytest.raises(TypeError, match=r"Module is not a quality model.*wrap_model\(module"):
        Adapter(Module(lambda s: s))


IMPOSSIBLE = [
    *({"steps": value} for value in (-1, 2.5, math.nan, "3", True)),
    *({"lr": value} for value in (-1, math.nan, math.inf, "x")),
    *({"sam_rho": value} for value in (-1.0, math.nan)),
    *({"seed": value} for value in ("x", 0.5, -1)),
    *({"views": value} for value in (0, 3, 2.5)),
    *({"episodes_per_pass": value} for value in (0, math.nan, 1.5)),
    *({"crops_per_image": value} for value in (0, 1.5)),
    *({"statistics": value} for value in ("batch", Batch, 0.7)),
    *({"optimizer": 5}, {"params": 5}, {"gate": 5}, {"losses": [5]}),
]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_impossible_settings_are_errors_that_name_the_setting(options):
    (name,) = options
    with pytest.raises((ValueError, TypeError), match="loss" if name == "losses" else name):
        Adapter(tiny_model(), **{"losses": FAST, **options})


@pytest.mark.parametrize("option", ["steps", "lr", "optimizer", "params", "sam_rho", "grad_through_statistics"])
def test_settings_of_the_optimiser_without_a_loss_are_an_error(option):
    """They used to be ignored in silence."""
    value = {"optimizer": torch.optim.SGD, "params": "norm-affine"}.get(option, 1)
    for losses in (None, ()):
        with pytest.raises(ValueError, match=f"{option}= is for losses, and there are none"):
            Adapter(tiny_model(), losses, **{option: value})


def test_a_recipe_is_one_value_that_can_be_printed_and_passed():
    model, images = tiny_model(), pictures(6)
    own = Adapter(model, METHOD, Blend(0.5), lr=0.01, seed=3)
    assert torch.equal(Adapter(model, recipe=own.recipe)(images), own(images))
    assert Adapter(model, recipe=DEFAULT_RECIPE).recipe == DEFAULT_RECIPE == Adapter(model).recipe
    assert "Adaptive(caution=1.5" in repr(DEFAULT_RECIPE) and "RelativeRank(" in repr(own.recipe)
    with pytest.raises(ValueError, match="steps= stands in the recipe"):
        Adapter(model, recipe=own.recipe, steps=5)


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


# Batches of any size, and bad ones


@pytest.mark.parametrize("count", range(1, 6))
def test_small_batches_work_and_report_the_contrast_they_cannot_form(count):
    model, images = tiny_model(), pictures(count)
    result = Adapter(model, METHOD).run(images)
    assert result.scores.shape == (count,) and result.scores.isfinite().all()
    assert ("GroupContrastive" in result.skipped) == (count < 4)
    assert len(result.trace) == 3 and (count >= 4) == (result.trace[0]["GroupContrastive"] > 0)
    alone = Adapter(model, FAST).run(images)  # below four images no loss is left
    assert torch.equal(alone.scores, alone.initial_scores) == (count < 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_images_that_are_not_finite_are_an_error(bad):
    images = pictures(4)
    images[2, 0, 3, 3] = bad
    adapter = Adapter(tiny_model(), [])
    for call in (adapter, adapter.predict):
        with pytest.raises(ValueError, match="not finite"):
            call(images)


@pytest.mark.parametrize("images", [pictures(3)[0], pictures(3)[:0], torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_images_of_the_wrong_shape_or_type_are_an_error(images):
    with pytest.raises(ValueError, match=r"expected floating-point images \(B, 3, H, W\) with B ≥ 1"):
        Adapter(tiny_model(), [])(images)


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


# Whole data sets


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(33, 32, [16, 17]), (8, 8, [8]), (5, 8, [5]), (20, 8, [6, 7, 7])]
)
def test_batches_are_balanced(count, size, lengths):
    """33 images make 17 + 16, not 32 + 1."""
    for seed in (None, 0):
        batches = balanced_batches(count, size, seed)
        assert sorted(map(len, batches)) == lengths
        assert sorted(row for rows in batches for row in rows) == list(range(count))
    assert [row for rows in balanced_batches(count, size) for row in rows] == list(range(count))
    assert balanced_batches(count, size, 3) == balanced_batches(count, size, 3) != balanced_batches(count, size, 4)
    with pytest.raises(ValueError, match="batch_size"):
        balanced_batches(count, 0)


def test_predict_gives_scores_in_the_order_of_the_images():
    """Each batch of the seeded shuffle is an episode of its own."""
    model, images = tiny_model(), pictures(11)
    adapter = Adapter(model, FAST, seed=3)
    expected = torch.empty(11)
    for rows in balanced_batches(11, 4, seed=3):
        expected[rows] = adapter(images[rows])
    assert torch.equal(adapter.predict(images, batch_size=4), expected)
    in_order = torch.cat([adapter(images[rows]) for rows in balanced_batches(11, 4)])
    assert torch.equal(adapter.predict(images, batch_size=4, shuffle=False), in_order)
    assert not torch.equal(in_order, expected)


def test_predict_takes_loaders_of_batches_and_of_tuples():
    adapter, images = Adapter(tiny_model(), FAST), pictures(9)
    expected = torch.cat([adapter(images[:5]), adapter(images[5:])])
    assert torch.equal(adapter.predict([images[:5], images[5:]]), expected)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.arange(9)), batch_size=5)
    assert torch.equal(adapter.predict(loader), expected)
    assert torch.equal(adapter.predict(batch for batch in loader), expected)


@pytest.mark.parametrize("statistics", [Source(), Batch(), Shrink(4)], ids=str)
@pytest.mark.parametrize("fold", [2, 8])
@pytest.mark.parametrize("losses", [METHOD, (RelativeRank(copies=Pair(("noise",))),)], ids=["method", "noise"])
def test_folding_does_not_change_the_scores(fold, statistics, losses, monkeypatch):
    """To rounding, three Adam steps apart; and the passes are indeed fewer: 2 + 1 or 3 episodes in one."""
    model, images, passes = tiny_model(), pictures(12), []

    def counting(model, state, images, recipe, episodes=1, run=None):
        passes.append(episodes)
        return adapt_batch(model, state, images, recipe, episodes, run)

    monkeypatch.setattr("tta_iqa_lib.adaptation.adapter.adapt_batch", counting)
    one, many = (
        Adapter(model, losses, statistics, episodes_per_pass=n).predict(images, batch_size=4) for n in (1, fold)
    )
    assert passes == [1, 1, 1, *([2, 1] if fold == 2 else [3])]
    assert torch.allclose(one, many, rtol=0, atol=1e-5)


def test_folded_episodes_report_alike():
    model, images = tiny_model(), pictures(12)
    labels = [0, 1, 2] * 4
    one, many = (Adapter(model, METHOD, Batch(), episodes_per_pass=n).run(images, groups=labels) for n in (1, 3))
    for alone, folded in zip(one.trace, many.trace, strict=True):
        assert alone["group"] == folded["group"]
        for a, b in zip(alone["steps"], folded["steps"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
            assert torch.allclose(a["scores"], b["scores"], rtol=0, atol=1e-5)


def test_each_folded_episode_sees_its_own_images_and_source():
    model, images, seen = tiny_model(), pictures(8), []

    def look(context):
        seen.append(context)
        return context.scores["mild"].mean()

    look.copies = Pair(("dark",))
    Adapter(model, [look], steps=1, episodes_per_pass=2).run(images, groups=[0] * 4 + [1] * 4)
    for context, part in zip(seen, images.split(4), strict=True):
        scores = plain(model, part)
        assert torch.equal(context.images["clean"], part)
        assert torch.equal(context.images["mild"], tta.distort(part, "dark", 0.3))
        for found, expected in (
            (context.pseudo_scores, scores),
            (context.score_std, scores.std(correction=0)),
        ):
            assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_parameters_that_cannot_differ_between_episodes_are_an_error_when_folded():
    model = seeded(lambda: LayerNormModel(nn.LayerNorm(6)))
    adapter = Adapter(model, FAST, episodes_per_pass=2)
    with pytest.raises(ValueError, match="episodes_per_pass=1"):
        adapter.predict(pictures(8), batch_size=4)
    regressor = Adapter(tiny_model(), FAST, params=lambda m: {"regressor.bias": m.regressor.bias}, episodes_per_pass=2)
    with pytest.raises(ValueError, match="episodes_per_pass=1"):
        regressor.predict(pictures(8), batch_size=4)


@pytest.mark.parametrize("fold", [1, 4])
def test_groups_equal_separate_runs(fold):
    """Images of one label are an episode, wherever they stand."""
    model, images = tiny_model(), pictures(12)
    labels = torch.tensor([7, 2, 7, 2, 2, 7, 5, 7, 2, 7, 2, 5])  # five, five and two: the fives can be folded
    result = Adapter(model, METHOD, episodes_per_pass=fold).run(images, groups=labels)
    for label in (7, 2, 5):
        alone = Adapter(model, METHOD).run(images[labels == label])
        for field in ("scores", "source_scores", "initial_scores"):
            found = getattr(result, field)[labels == label]
            assert torch.allclose(found, getattr(alone, field), rtol=0, atol=0 if fold == 1 else 1e-5)
    assert [entry["group"] for entry in result.trace] == [7, 2, 5]
    assert list(result.skipped) == ["5: GroupContrastive"]
    with pytest.raises(ValueError, match="2 group labels for 12 images"):
        Adapter(model, METHOD).run(images, groups=[0, 1])


# Streams


@pytest.mark.parametrize("make", [
    lambda m: Adapter(m, FAST, Blend(0.5), lr=0.01),  # parameters and Adam's memory are carried
    lambda m: Adapter(m, [], Ema(0.3)),  # statistics are carried
], ids=["losses", "statistics"])  # fmt: skip
def test_online_carries_the_state_and_leaving_forgets_it(make):
    model, first, second = tiny_model(), pictures(6), pictures(6, seed=1)
    adapter = make(model)
    before = snapshot(model)
    episodic = [adapter(first), adapter(second)]
    for _ in range(2):
        with adapter.online() as stream:
            assert stream is adapter
            assert torch.equal(adapter(first), episodic[0])
            carried = adapter(second)
        assert not torch.allclose(carried, episodic[1], rtol=0, atol=1e-4)
        assert torch.equal(adapter(second), episodic[1])
    assert snapshot(model) == before
    with pytest.raises(RuntimeError), adapter.online():
        adapter(first)
        raise RuntimeError
    assert torch.equal(adapter(second), episodic[1])


def test_online_equals_a_fold_over_adapt_batch():
    """State in, state out: the block is nothing but that."""
    model = tiny_model()
    adapter = Adapter(model, FAST, Ema(0.3), lr=0.01)
    batches = [pictures(5, seed=s) for s in range(3)]
    with adapter.online():
        found = [adapter(batch) for batch in batches]
    state = State()
    for batch, scores in zip(batches, found, strict=True):
        (result,), state = adapt_batch(model, state, batch, adapter.recipe)
        assert torch.equal(result.scores, scores)


def test_a_state_is_a_value():
    """Going on from it twice gives the same twice: the optimiser's memory used to be written over."""
    model, recipe = tiny_model(), Adapter(tiny_model(), FAST, Ema(0.3), lr=0.01).recipe
    _, state = adapt_batch(model, State(), pictures(5), recipe)
    twice = [adapt_batch(model, state, pictures(5, seed=1), recipe)[0][0].scores for _ in range(2)]
    assert torch.equal(*twice)


def test_a_restart_begins_the_next_batch_at_the_source():
    """Where it is true of a result, the batch after it is scored as the first of a stream; its own scores stand."""
    model, asked = tiny_model(), []
    adapter = Adapter(model, FAST, Ema(0.3), lr=0.01)
    a, b, c = (pictures(5, seed=s) for s in range(3))

    def second(result) -> bool:
        asked.append(result.scores)
        return len(asked) == 2

    with adapter.online():
        carried = [adapter(x) for x in (a, b, c)]
    with adapter.online(restart=second):
        restarted = [adapter(x) for x in (a, b, c)]
    assert torch.equal(torch.cat(restarted[:2]), torch.cat(carried[:2]))
    assert all(torch.equal(x, y) for x, y in zip(asked, restarted, strict=True))
    assert torch.equal(restarted[2], adapter(c)) and not torch.allclose(restarted[2], carried[2], rtol=0, atol=1e-4)
    with adapter.online():  # the next block knows nothing of it
        assert torch.equal(torch.cat([adapter(x) for x in (a, b, c)]), torch.cat(carried))
    assert len(asked) == 3


def test_a_stream_is_never_folded():
    """Each batch starts from the one before it: `fold` must not let two start from the same state."""
    model, images = tiny_model(), pictures(12)
    scores = []
    for fold in (1, 3):
        adapter = Adapter(model, FAST, Blend(0.5), lr=0.01, episodes_per_pass=fold)
        with adapter.online():
            scores.append(adapter.predict(images, batch_size=4))
    assert torch.equal(*scores)


def test_online_keeps_the_optimizers_memory():
    """Momentum makes the second batch's step larger than the first's, at the same gradient."""
    model, images = LayerNormModel(nn.Identity()), pictures(3)
    adapter = Adapter(
        model,
        [mean_score],
        params=lambda m: {"head.bias": m.head.bias},
        steps=1,
        optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.5),
    )
    with adapter.online():
        moves = [(adapter.run(images).scores - plain(model, images)).mean().item() for _ in range(3)]
    assert moves == pytest.approx([0.1, 0.25, 0.425], abs=1e-5)


@pytest.mark.parametrize("losses", [FAST, ()], ids=["losses", "statistics"])
def test_predict_before_or_after_the_update_is_explicit(losses):
    """ "before" scores a batch with what the batches before it left, statistics and parameters, and learns from it."""
    model, batches = tiny_model(), [pictures(5, seed=s) for s in range(3)]
    adapter = Adapter(model, losses, Ema(0.3), **({"lr": 0.01} if losses else {}))
    with adapter.online("after"):
        after = [adapter.run(batch) for batch in batches]
    with adapter.online("before"):
        before = [adapter.run(batch) for batch in batches]
    state, network = State(), Stateless(model)
    for late, early, batch in zip(after, before, batches, strict=True):
        with torch.no_grad():
            expected = network(batch, Carried(), state.params, carried=state.moments).scores
        assert torch.equal(early.scores, expected) and not torch.equal(early.scores, late.scores)
        assert early.trace == [] or early.trace[0]["loss"] == late.trace[0]["loss"]
        _, state = adapt_batch(model, state, batch, adapter.recipe)
    assert torch.equal(before[0].scores, plain(model, batches[0]))
    assert torch.equal(adapter(batches[0]), after[0].scores)  # outside, scores are those after adaptation
    with pytest.raises(ValueError, match="'after' or 'before'"), adapter.online("during"):
        pass


def test_a_stream_within_a_stream_starts_afresh_and_the_outer_one_goes_on():
    model, (a, b, c) = tiny_model(), (pictures(5, seed=s) for s in range(3))
    adapter = Adapter(model, FAST, Ema(0.3), lr=0.01)
    with adapter.online():
        straight = [adapter(x) for x in (a, b, c)]
    with adapter.online():
        first = [adapter(a), adapter(b)]
        with adapter.online():
            assert torch.equal(adapter(a), straight[0])
        assert torch.equal(torch.cat([*first, adapter(c)]), torch.cat(straight))
    assert not torch.equal(adapter(c), straight[2])


def test_a_stream_belongs_to_the_thread_that_opened_it():
    model, (a, b) = tiny_model(), (pictures(5, seed=s) for s in range(2))
    adapter, seen = Adapter(model, FAST, Ema(0.3), lr=0.01), []
    alone = adapter(b)
    with adapter.online():
        adapter(a)
        thread = threading.Thread(target=lambda: seen.append(adapter(b)))
        thread.start()
        thread.join()
        assert not torch.equal(adapter(b), alone)
    assert torch.equal(seen[0], alone)


# Gates


@pytest.mark.parametrize("decision", ["adapted", "initial", "source"])
def test_the_gate_decides_whose_scores_are_returned(decision):
    model, images, seen = tiny_model(), pictures(5), []

    def gate(result):
        seen.append(result)
        return decision

    result = Adapter(model, FAST, Blend(0.5), lr=0.01, gate=gate).run(images)
    free = Adapter(model, FAST, Blend(0.5), lr=0.01).run(images)
    choices = {"adapted": free.scores, "initial": free.initial_scores, "source": free.source_scores}
    assert result.decision == decision and torch.equal(result.scores, choices[decision])
    assert sum(torch.equal(result.scores, scores) for scores in choices.values()) == 1
    assert len(seen) == 1 and len(seen[0].trace) == 3  # the gate sees what happened


def test_the_gate_decides_batch_by_batch():
    model, images = tiny_model(), pictures(12)

    def gate(result):
        return "source" if len(result.scores) < 6 else "adapted"

    labels = [0] * 7 + [1] * 5
    result = Adapter(model, FAST, gate=gate).run(images, groups=labels)
    assert result.decision == "mixed"
    assert torch.equal(result.scores[7:], result.source_scores[7:])
    assert torch.equal(result.scores[:7], Adapter(model, FAST)(images[:7]))


def test_the_gate_is_respected_when_scores_are_taken_before_the_update():
    adapter = Adapter(tiny_model(), FAST, Blend(0.5), gate=lambda result: "source")
    with adapter.online("before"):
        result = adapter.run(pictures(5))
    assert result.decision == "source" and torch.equal(result.scores, result.source_scores)


@pytest.mark.parametrize("answer", [True, None, "yes"])
def test_a_bad_answer_of_a_gate_is_an_error(answer):
    with pytest.raises(ValueError, match="a gate must answer"):
        Adapter(tiny_model(), [], gate=lambda result: answer)(pictures(3))


def test_a_model_that_keeps_no_running_statistics_adapts_with_the_batchs():
    """Its plain inference already uses the batch: the source scores are those; other rules cannot be had."""
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    model, images = tta.QualityModel(features, nn.Linear(4, 1)).eval(), pictures(8)
    result = Adapter(model, [ScoreOrder()], Batch()).run(images)
    with torch.no_grad():
        assert torch.allclose(result.source_scores, model(images), atol=1e-5)
    assert len(result.trace) == 3 and not torch.allclose(result.scores, result.source_scores, atol=1e-5)
    folded = Adapter(model, [ScoreOrder()], Batch(), episodes_per_pass=2).run(images, groups=[0, 0, 0, 0, 1, 1, 1, 1])
    assert torch.allclose(folded.source_scores[:4], model(images[:4]), atol=1e-5)
    for rule in (None, Blend(0.5)):
        with pytest.raises(ValueError, match=r"use statistics=Batch"):
            Adapter(model, [ScoreOrder()], rule)(images)
    with pytest.raises(ValueError, match=r"use statistics=Batch"):
        Adapter(model)(images)


# Defaults


def test_the_default_recipe_has_its_gate_and_the_models_views():
    inference = Adapter(tiny_model(views=8)).recipe.inference
    assert inference == replace(DEFAULT_RECIPE.inference, views=8) and inference.gate == DEFAULT_GATE
    assert Adapter(tiny_model(views=2)).recipe.inference.views == 2
    assert Adapter(tiny_model()).recipe == DEFAULT_RECIPE and Adapter(tiny_model()).recipe.optimisation is None


def test_no_losses_are_the_default_recipe_however_it_is_said():
    """`Adapter(model)` and `Adapter(model, losses=())` used to differ in gate and views."""
    model = tiny_model(views=8)
    assert Adapter(model).recipe == Adapter(model, losses=()).recipe == Adapter(model, losses=[]).recipe


@pytest.mark.parametrize("own", [{"losses": FAST}, {"statistics": Batch()}], ids=str)
def test_with_losses_or_statistics_of_ones_own_neither_gate_nor_views_come_unasked(own):
    model = tiny_model(views=8)
    inference = Adapter(model, **own).recipe.inference
    assert inference.gate is None and inference.views == 1
    asked = Adapter(model, **own, gate=DEFAULT_GATE, views=2).recipe.inference
    assert asked.gate == DEFAULT_GATE and asked.views == 2
    assert Adapter(model, gate=None, views=1).recipe.inference.gate is None
    assert Adapter(model, gate=None, views=1).recipe.inference.views == 1


def test_the_default_recipe_is_its_parts_spelt_out():
    model, images = tiny_model(views=2), pictures(6)
    spelt = Adapter(model, [], DEFAULT_STATISTICS, gate=DEFAULT_GATE, views=2).run(images)
    default = Adapter(model).run(images)
    assert torch.equal(default.scores, spelt.scores) and default.decision == spelt.decision


def test_a_gate_by_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="gate must be a function, None or 'default'"):
        Adapter(tiny_model(), gate="shift")


# Views


def mean_of_views(score, images, views: int) -> torch.Tensor:
    return torch.stack([score(view) for view in symmetries(images, views)]).mean(0)


def far(a, b, margin: float = 1e-6) -> bool:
    return not torch.allclose(a, b, rtol=0, atol=margin)


@pytest.mark.parametrize("views", [2, 8])
@pytest.mark.parametrize("statistics", [Source(), Batch(), DEFAULT_STATISTICS], ids=str)
def test_scores_are_the_mean_over_separately_scored_views(views, statistics):
    """Each view is normalised with its own moments; the source's scores are averaged alike."""
    model, images = tiny_model().double(), pictures(5).double()
    result = Adapter(model, [], statistics, views=views).run(images)
    one = Adapter(model, [], statistics)
    expected = mean_of_views(one, images, views)
    source = mean_of_views(lambda x: plain(model, x), images, views)
    for found, wanted in (
        (result.scores, expected),
        (result.initial_scores, expected),
        (result.source_scores, source),
    ):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert far(result.scores, one(images))


@pytest.mark.parametrize("views", [2, 8])
def test_views_are_averaged_before_and_after_the_steps(views):
    """The losses see the images as they are; their steps are those of one view, and both ends are averaged."""
    model, images, seen = tiny_model().double(), pictures(5).double(), []

    def look(context):
        seen.append(context.scores["clean"].detach())
        return -context.scores["clean"].mean()

    recipe = Adapter(model, [look], Blend(0.5), lr=0.01, views=views).recipe
    (result,), state = adapt_batch(model, State(), images, recipe)
    _, alone = adapt_batch(model, State(), images, Adapter(model, [look], Blend(0.5), lr=0.01).recipe)
    assert all(torch.equal(state.params[name], p) for name, p in alone.params.items())
    unstepped = Adapter(model, [], Blend(0.5))
    assert torch.allclose(seen[0], unstepped(images), rtol=0, atol=1e-12)
    assert torch.allclose(result.initial_scores, mean_of_views(unstepped, images, views), rtol=0, atol=1e-12)
    stepped = copy.deepcopy(model)
    stepped.load_state_dict({**model.state_dict(), **state.params})
    expected = mean_of_views(Adapter(stepped, [], Blend(0.5)), images, views)
    assert torch.allclose(result.scores, expected, rtol=0, atol=1e-12)
    assert far(result.scores, result.initial_scores, 1e-4)


@pytest.mark.parametrize("statistics", [Batch(), DEFAULT_STATISTICS], ids=str)
def test_folded_episodes_average_their_views_as_a_loop_does(statistics):
    model, images = tiny_model(), pictures(12)
    one, many = (Adapter(model, FAST, statistics, views=8, episodes_per_pass=n).predict(images, 4) for n in (1, 3))
    assert torch.allclose(one, many, rtol=0, atol=1e-5)


def test_impossible_views_are_an_error():
    with pytest.raises(ValueError, match="1, 2 or 8 symmetric views"):
        Adapter(tiny_model(), views=4)
    with pytest.raises(ValueError, match="square"):
        Adapter(tiny_model(), views=8)(pictures(3)[..., :24])
    assert Adapter(tiny_model(), views=2)(pictures(3)[..., :24]).shape == (3,)


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


# Moments for losses and gates


@pytest.mark.parametrize("statistics", [Source(), Blend(0.5), DEFAULT_STATISTICS], ids=str)
def test_a_loss_that_needs_moments_gets_the_sources_and_the_batchs_with_gradients(statistics):
    """Layer by layer, of the clean images alone. What goes into the first layer does not depend on γ and β; the rest does."""
    model, images, seen = tiny_model().double(), pictures(5).double(), []

    def look(context):
        seen.append(context.moments)
        return sum((batch.mean - source.mean).square().sum() for source, batch in context.moments.values())

    look.needs_moments, look.views = True, Pair(("dark",))
    result = Adapter(model, [look], statistics, lr=0.01, steps=2).run(images)
    layers = batchnorm_layers(model)
    for moments in seen:
        assert moments.keys() == layers.keys()
        for i, (name, (source, batch)) in enumerate(moments.items()):
            assert torch.equal(source.mean, layers[name].running_mean) and batch.mean.shape == source.mean.shape
            assert torch.equal(source.var, layers[name].running_var) and batch.var.shape == source.var.shape
            assert batch.mean.requires_grad is batch.var.requires_grad is (i > 0)
    inputs = model.features[0]((images - model.mean) / model.std)
    expected = [part[0] for part in batch_moments(inputs)]
    for moments in seen:
        assert all(
            torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(moments["features.1"][1], expected, strict=True)
        )
    assert result.trace[1]["loss"] < result.trace[0]["loss"] - 1e-4
    assert result.shift == {}  # that is for gates


def test_moments_are_not_measured_unasked():
    def look(context):
        assert context.moments == {}
        return -context.scores["clean"].mean()

    assert len(Adapter(tiny_model(), [look], Blend(0.5)).run(pictures(3)).trace) == 3


def test_each_folded_episode_gets_its_own_moments():
    model, images, seen = tiny_model(), pictures(8), []

    def look(context):
        seen.append({name: batch for name, (_, batch) in context.moments.items()})
        return -context.scores["clean"].mean()

    look.needs_moments = True
    Adapter(model, [look], Blend(0.5), steps=1, episodes_per_pass=2).predict(images, 4, shuffle=False)
    together, seen = seen, []
    Adapter(model, [look], Blend(0.5), steps=1).predict(images, 4, shuffle=False)
    for a, b in zip(together, seen, strict=True):
        assert all(torch.allclose(x, y, atol=1e-5) for name in b for x, y in zip(a[name], b[name], strict=True))


def shift_by_hand(model, images, crops=1) -> list[tuple[float, float]]:
    """Distance and noise of the first BatchNorm layer's means, and of its variances."""
    layer = next(iter(batchnorm_layers(model).values()))
    inputs = model.features[0]((images - model.mean) / model.std).detach()
    moments = Moments(layer.running_mean, layer.running_var), measure(inputs, crops=crops)
    return [tuple(part.item() for part in how(*moments)) for how in (mean_shift, variance_shift)]


def approximately(parts):
    return [pytest.approx(part, rel=1e-4) for part in parts]


@pytest.mark.parametrize("statistics", [Source(), Blend(0.5), DEFAULT_STATISTICS], ids=str)
@pytest.mark.parametrize("views", [1, 8])
@pytest.mark.parametrize("losses", [(), FAST], ids=["none", "losses"])
def test_shift_is_measured_for_a_gate_and_only_then(statistics, views, losses):
    """Of the images as they are, whatever the views, copies and steps; layer by layer, (distance, noise)."""
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, losses, statistics, gate=lambda result: "adapted", views=views).run(images)
    assert result.shift.keys() == batchnorm_layers(model).keys()
    assert list(result.shift["features.1"]) == approximately(shift_by_hand(model, images))
    free = Adapter(model, losses, statistics, views=views).run(images)
    assert free.shift == {} and torch.equal(free.scores, result.scores)


def test_the_gate_sees_the_shift_of_its_own_episode_when_folded():
    model, images, seen = tiny_model(), torch.cat([pictures(4), 0.2 * pictures(4, seed=1)]), []
    for fold in (1, 2):
        shifts = []
        gate = lambda result, shifts=shifts: shifts.append(result.shift) or "adapted"  # noqa: E731
        Adapter(model, [], Blend(0.5), gate=gate, episodes_per_pass=fold).predict(images, 4, shuffle=False)
        seen.append(shifts)
    for one, many, part in zip(*seen, images.split(4), strict=True):
        for name in one:
            assert list(many[name]) == approximately(one[name])
        assert list(one["features.1"]) == approximately(shift_by_hand(model, part))


def test_crops_of_one_picture_count_as_one():
    """For the rule, and for the gate: each picture stands there twice."""
    model, images = tiny_model(), pictures(5).repeat_interleave(2, 0)
    found = Adapter(model, [], DEFAULT_STATISTICS, gate=lambda result: "adapted", crops_per_image=2).run(images)
    assert list(found.shift["features.1"]) == approximately(shift_by_hand(model, images, crops=2))
    single = Adapter(model, [], DEFAULT_STATISTICS)(images[::2])
    assert torch.allclose(found.scores[::2], single, atol=1e-5)
    with pytest.raises(ValueError, match="no whole number of pictures"):
        Adapter(model, [], DEFAULT_STATISTICS, crops_per_image=3)(images)


def test_the_batchs_statistics_can_have_a_gate():
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, [], Batch(), gate=ShiftGate(threshold=0)).run(images)
    assert torch.equal(result.scores, Adapter(model, [], Batch())(images))


def test_a_model_that_keeps_no_running_statistics_can_have_a_gate():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    model = tta.QualityModel(nn.Sequential(*layers), nn.Linear(4, 1)).eval()
    assert Adapter(model, [], Batch(), gate=lambda result: "source").run(pictures(4)).decision == "source"
