"""One batch through `adapt_batch`, with any loss, any model, any parameters."""

import copy
import gc
import math

import pytest
import torch
from helpers import (
    FAST,
    METHOD,
    LayerNormModel,
    far,
    mean_score,
    pictures,
    plain_scores,
    seeded,
    snapshot,
    tiny_mixed,
    tiny_model,
)
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import (
    DEFAULT_RECIPE,
    Adapter,
    Anchor,
    Batch,
    Blend,
    GroupContrastive,
    Moments,
    Pair,
    RelativeRank,
    ScoreOrder,
    ShiftGate,
    Shrink,
    Source,
    State,
    adapt_batch,
    batch_moments,
    batchnorm_layers,
    mean_shift,
    measure,
    norm_affine,
    variance_shift,
)
from tta_iqa_lib.imaging.crops import symmetries

DEFAULT_STATISTICS = DEFAULT_RECIPE.inference.statistics


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
    pseudo = plain_scores(model, images)
    copies = Pair(choose="signed")(images, lambda x: plain_scores(model, x), torch.Generator().manual_seed(5))
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
    expected = plain_scores(by_hand, images)
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
    assert torch.equal(result.source_scores, plain_scores(model, images))


@pytest.mark.parametrize("statistics", [Source(), Blend(0)])
def test_losses_off_and_no_weight_on_the_batch_is_plain_inference_exactly(statistics):
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, losses=[], statistics=statistics).run(images)
    for scores in (result.scores, result.initial_scores, result.source_scores):
        assert torch.equal(scores, plain_scores(model, images))
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


def test_the_seed_decides_the_copies():
    model, images = tiny_model(), pictures(6)
    loss = RelativeRank(copies=Pair(("noise",)))
    scores = [Adapter(model, [loss], seed=seed)(images) for seed in (0, 0, 1)]
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])


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


# Contexts, and losses of one's own


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
    assert torch.allclose(
        first.scores["mild"], plain_scores(model, tta.distort(images, "dark", 0.3)), rtol=0, atol=1e-5
    )
    assert not torch.allclose(second.scores["clean"], scores, rtol=0, atol=1e-3)
    # Without source moments, the batch's own stand in.
    assert torch.equal(first.feature_mean, features.mean(0)) and torch.equal(first.score_std, scores.std(correction=0))
    assert torch.equal(first.feature_std, features.std(0, correction=0).clamp_min(1e-6))
    assert torch.equal(first.score_mean, scores.mean())


def test_the_sources_mean_score_reaches_a_loss_in_the_direction_of_the_scores():
    model, seen = tiny_model(), []
    model.set_moments(
        feature_mean=torch.zeros(6), feature_cov=torch.eye(6), score_mean=torch.tensor(3.0), score_std=torch.tensor(2.0)
    )
    model.higher_is_better = False
    Adapter(model, [lambda context: seen.append(context) or context.scores["clean"].mean()], steps=1)(pictures(4))
    assert seen[0].score_mean == -3 and seen[0].score_std == 2


def test_each_folded_episode_sees_its_own_images_and_source():
    model, images, seen = tiny_model(), pictures(8), []

    def look(context):
        seen.append(context)
        return context.scores["mild"].mean()

    look.copies = Pair(("dark",))
    Adapter(model, [look], steps=1, episodes_per_pass=2).run(images, groups=[0] * 4 + [1] * 4)
    for context, part in zip(seen, images.split(4), strict=True):
        scores = plain_scores(model, part)
        assert torch.equal(context.images["clean"], part)
        assert torch.equal(context.images["mild"], tta.distort(part, "dark", 0.3))
        for found, expected in (
            (context.pseudo_scores, scores),
            (context.score_std, scores.std(correction=0)),
        ):
            assert torch.allclose(found, expected, rtol=0, atol=1e-6)


def test_losses_that_disagree_about_the_same_copies_are_an_error():
    losses = [RelativeRank(), ScoreOrder(copies=Pair(mild=0.1))]
    with pytest.raises(ValueError, match="different copies under the name 'mild'"):
        Adapter(tiny_model(), losses)(pictures(4))


# Any model, any parameters


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


def test_a_layernorm_model_adapts_its_gamma_and_beta_with_the_sources_statistics():
    model, images = seeded(lambda: LayerNormModel(nn.LayerNorm(6))), pictures(6)
    adapter = Adapter(model, FAST, lr=0.01)
    assert adapter.recipe.inference.statistics == Source()
    result = adapter.run(images)
    assert torch.equal(result.initial_scores, plain_scores(model, images))
    assert not torch.allclose(result.scores, result.source_scores, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="needs BatchNorm layers"):
        Adapter(model, FAST, Batch())(images)


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


def test_the_batchs_statistics_can_have_a_gate():
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, [], Batch(), gate=ShiftGate(threshold=0)).run(images)
    assert torch.equal(result.scores, Adapter(model, [], Batch())(images))


def test_a_model_that_keeps_no_running_statistics_can_have_a_gate():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    model = tta.QualityModel(nn.Sequential(*layers), nn.Linear(4, 1)).eval()
    assert Adapter(model, [], Batch(), gate=lambda result: "source").run(pictures(4)).decision == "source"


# Views


def mean_of_views(score, images, views: int) -> torch.Tensor:
    return torch.stack([score(view) for view in symmetries(images, views)]).mean(0)


@pytest.mark.parametrize("views", [2, 8])
@pytest.mark.parametrize("statistics", [Source(), Batch(), DEFAULT_STATISTICS], ids=str)
def test_scores_are_the_mean_over_separately_scored_views(views, statistics):
    """Each view is normalised with its own moments; the source's scores are averaged alike."""
    model, images = tiny_model().double(), pictures(5).double()
    result = Adapter(model, [], statistics, views=views).run(images)
    one = Adapter(model, [], statistics)
    expected = mean_of_views(one, images, views)
    source = mean_of_views(lambda x: plain_scores(model, x), images, views)
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
    with pytest.raises(ValueError, match="views must be 1, 2 or 8"):
        Adapter(tiny_model(), views=4)
    with pytest.raises(ValueError, match="square"):
        Adapter(tiny_model(), views=8)(pictures(3)[..., :24])
    assert Adapter(tiny_model(), views=2)(pictures(3)[..., :24]).shape == (3,)


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


class PatchScorer(nn.Module):
    """Folds sixteen patches of each image into the batch before BatchNorm: no row of that layer is one image."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 6, 8, 8), nn.BatchNorm1d(6), nn.Linear(6, 1)
        self.features = nn.Identity()

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (B, T, 6)
        return self.head(self.features(self.norm(tokens.reshape(-1, 6)).view_as(tokens).mean(1)))


@pytest.mark.parametrize("losses", [(), (RelativeRank(), GroupContrastive())])
def test_rows_that_are_no_images_are_adapted_alone_and_refused_in_one_pass(losses):
    """One episode is right, copies and all; several at once are an error before anything is computed wrongly."""
    module = seeded(PatchScorer).eval()
    model = tta.wrap_model(module, features="features")
    images = torch.cat([pictures(6), pictures(6, seed=1) ** 2])
    alone = Adapter(model, losses, Batch()).predict(images, 6, shuffle=False)
    if not losses:
        by_hand = copy.deepcopy(module).train()
        expected = torch.cat([by_hand(part)[:, 0] for part in images.split(6)])
        assert torch.allclose(alone, expected, atol=1e-5)
    assert alone.isfinite().all() and not torch.allclose(alone, plain_scores(model, images), atol=1e-4)
    with pytest.raises(ValueError, match="sees 192 rows for 12 images: episodes and copies cannot share a pass"):
        Adapter(model, losses, Batch(), episodes_per_pass=2).predict(images, 6, shuffle=False)


@pytest.mark.parametrize("losses", [(), (RelativeRank(), GroupContrastive())], ids=["statistics", "losses"])
def test_the_copy_of_the_model_is_gone_with_its_batch(losses):
    """At once: it waits for no garbage collector, which would cost as much as the copy itself."""
    adapter, images = Adapter(tiny_model(), losses, Batch()), pictures(4)

    def modules() -> int:
        return sum(issubclass(type(thing), nn.Module) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = modules()
        result = adapter.run(images)
        assert modules() == before and result.scores.isfinite().all()
    finally:
        gc.enable()
