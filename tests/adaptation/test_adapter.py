"""The adapter: settings, defaults, whole data sets, groups, streams."""

import math
import threading
from dataclasses import replace

import pytest
import torch
from helpers import FAST, METHOD, LayerNormModel, mean_score, pictures, plain_scores, snapshot, tiny_mixed, tiny_model
from torch import nn

from tta_iqa_lib.adaptation import (
    DEFAULT_RECIPE,
    Adapter,
    Batch,
    Blend,
    Carried,
    Ema,
    Pair,
    RelativeRank,
    Shrink,
    Source,
    State,
    Stateless,
    adapt_batch,
    balanced_batches,
)

DEFAULT_STATISTICS, DEFAULT_GATE = DEFAULT_RECIPE.inference.statistics, DEFAULT_RECIPE.inference.gate


# Settings


def test_an_unwrapped_module_is_an_error_that_says_to_wrap_it():
    with pytest.raises(TypeError, match=r"Sequential is not a quality model.*wrap_model\(module"):
        Adapter(tiny_mixed())


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


def test_a_gate_by_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="gate must be a function, None or 'default'"):
        Adapter(tiny_model(), gate="shift")


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
    assert torch.allclose(one.initial_scores, many.initial_scores, rtol=0, atol=1e-5)
    for alone, folded in zip(one.trace, many.trace, strict=True):
        assert alone["group"] == folded["group"]
        for a, b in zip(alone["steps"], folded["steps"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
            assert torch.allclose(a["scores"], b["scores"], rtol=0, atol=1e-5)


# Groups


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
        moves = [(adapter.run(images).scores - plain_scores(model, images)).mean().item() for _ in range(3)]
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
    assert torch.equal(before[0].scores, plain_scores(model, batches[0]))
    assert torch.equal(adapter(batches[0]), after[0].scores)  # outside, scores are those after adaptation
    with pytest.raises(ValueError, match="'after' or 'before'"), adapter.online("during"):
        pass


def test_before_an_update_too_a_batch_that_the_gate_leaves_to_the_source_has_the_sources_scores():
    answers = iter(("adapted", "source"))
    adapter = Adapter(tiny_model(), statistics=Ema(0.5), gate=lambda result: next(answers))
    with adapter.online("before"):
        adapter(pictures(4))
        left = adapter.run(pictures(4, seed=1))
    assert left.decision == "source" and torch.equal(left.scores, left.source_scores)


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
