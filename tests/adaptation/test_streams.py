"""Streams: the state that is carried from batch to batch."""

import threading

import pytest
import torch
from helpers import FAST, LayerNormModel, mean_score, pictures, plain_scores, snapshot, tiny_model
from torch import nn

from tta_iqa_lib.adaptation import Adapter, Blend, Carried, Ema, State, Stateless, adapt_batch


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


def test_before_an_update_scores_are_on_the_scale_of_what_is_carried():
    """They are brought onto the source's scale after it only: before, the batch is scored by what there is."""
    model, batches = tiny_model(), [pictures(5, seed=s) for s in range(2)]
    adapter = Adapter(model, FAST, Ema(0.3), lr=0.01, match_source=True)
    with adapter.online("before"):
        early = [adapter.run(batch) for batch in batches]
    _, state = adapt_batch(model, State(), batches[0], adapter.recipe)
    with torch.no_grad():
        expected = Stateless(model)(batches[1], Carried(), state.params, carried=state.moments).scores
    assert torch.equal(early[1].scores, expected)
    assert not torch.allclose(expected.mean(), early[1].source_scores.mean(), rtol=0, atol=1e-5)
