"""Recordings: what a CUDA graph does is played here by a recorder that computes anew and writes into the old outputs."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from helpers import METHOD, pictures, tiny_model

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, Blend, Source, State, adapt_batch
from tta_iqa_lib.adaptation.replays import Replays


def tensors_in(value, seen=None) -> list[torch.Tensor]:
    """All tensors in nested containers, dataclasses and closures of plain objects, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for part in value.values() for t in tensors_in(part)]
    if isinstance(value, (list, tuple)):
        return [t for part in value for t in tensors_in(part)]
    if is_dataclass(value):
        return [t for field in fields(value) for t in tensors_in(getattr(value, field.name))]
    return []


class Recorder:
    """Counts what it records and replays."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, function, inputs, generators):
        self.recorded += 1
        outputs = function(*inputs, *generators)

        def replay():
            self.replayed += 1
            with torch.no_grad():
                for old, new in zip(tensors_in(outputs), tensors_in(function(*inputs, *generators)), strict=True):
                    old.copy_(new)

        return outputs, replay


@pytest.mark.parametrize(
    ("losses", "rule", "gate"),
    [((), Batch(), None), (METHOD, Source(), None), (METHOD, Blend(0.5), tta.ShiftGate(threshold=0.0, min_images=1))],
    ids=["statistics", "frozen", "gate"],
)
@pytest.mark.parametrize("episodes", [1, 2])
def test_replayed_batches_equal_those_computed_as_they_come(losses, rule, gate, episodes):
    """Of several batches; and what a batch gave is not written over by the next."""
    model, recorder = tiny_model(), Recorder()
    run, recipe = Replays(recorder), tta.Adapter(model, losses, rule, gate=gate).recipe
    batches = [pictures(8, seed=seed) for seed in range(3)]
    replayed = [adapt_batch(model, State(), batch, recipe, episodes, run)[0] for batch in batches]
    parts = 3 if losses else 2  # the source pass, the copies, and the steps with the final pass
    assert recorder.recorded == parts and recorder.replayed == 3 * parts
    for batch, found in zip(batches, replayed, strict=True):
        expected, _ = adapt_batch(model, State(), batch, recipe, episodes)
        for one, other in zip(found, expected, strict=True):
            for name in ("scores", "source_scores", "initial_scores"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert [step["loss"] for step in one.trace] == [step["loss"] for step in other.trace]
            assert all(torch.equal(a["scores"], b["scores"]) for a, b in zip(one.trace, other.trace, strict=True))
            assert (one.skipped, one.decision, one.shift) == (other.skipped, other.decision, other.shift)


def test_another_shape_or_another_recipe_is_another_recording():
    model, recorder = tiny_model(), Recorder()
    run, recipe = Replays(recorder), tta.Adapter(model, METHOD, Source()).recipe
    for count in (8, 5, 8, 5):
        adapt_batch(model, State(), pictures(count), recipe, run=run)
    assert recorder.recorded == 6
    other = replace(recipe, optimisation=replace(recipe.optimisation, steps=2))
    (result,), _ = adapt_batch(model, State(), pictures(8), other, run=run)
    assert recorder.recorded == 8 and len(result.trace) == 2


def test_a_stream_is_not_recorded():
    """Its state is carried on, and a recording would carry on the first one."""
    model, recorder = tiny_model(), Recorder()
    recipe = tta.Adapter(model, METHOD, tta.Ema(0.3)).recipe
    _, state = adapt_batch(model, State(), pictures(6), recipe)
    run = Replays(recorder)
    (found,), _ = adapt_batch(model, state, pictures(6, seed=1), recipe, run=run)
    (expected,), _ = adapt_batch(model, state, pictures(6, seed=1), recipe)
    assert recorder.recorded == 0 and torch.equal(found.scores, expected.scores)


def test_values_that_are_changed_in_place_are_seen():
    model, run = tiny_model(), Replays(Recorder())
    recipe, images = tta.Adapter(model, METHOD, Source()).recipe, pictures(6)
    adapt_batch(model, State(), images, recipe, run=run)
    with torch.no_grad():
        model.regressor.bias += 1
    (found,), _ = adapt_batch(model, State(), images, recipe, run=run)
    (expected,), _ = adapt_batch(model, State(), images, recipe)
    assert torch.equal(found.scores, expected.scores)


def test_what_a_gate_leaves_to_the_source_is_not_written_over_either():
    model, run = tiny_model(), Replays(Recorder())
    recipe = tta.Adapter(model, statistics=Batch(), gate=tta.ShiftGate(threshold=float("inf"))).recipe
    batches = [pictures(6, seed=seed) for seed in range(2)]
    found = [adapt_batch(model, State(), batch, recipe, run=run)[0][0] for batch in batches]
    assert run.record.recorded == 1 and [result.decision for result in found] == ["source", "source"]
    with torch.no_grad():
        assert all(torch.equal(result.scores, model(batch)) for result, batch in zip(found, batches, strict=True))


def test_what_cannot_be_recorded_is_named_with_the_way_out():
    def refuse(function, inputs, generators):
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    model = tiny_model()
    recipe = tta.Adapter(model, statistics=Batch()).recipe
    with pytest.raises(RuntimeError, match=r"capture=False \(operation not permitted when stream is capturing\)"):
        adapt_batch(model, State(), pictures(6), recipe, run=Replays(refuse))


def test_a_recording_draws_the_same_copies_at_every_replay():
    """From generators that are set back each time, as a graph goes on where it was."""
    drawn = []

    def draw(images, generator):
        drawn.append(torch.rand((), generator=generator).item())
        return images.clone()

    run = Replays(Recorder())
    for _ in range(2):
        run("copies", draw, pictures(2), seeds=[3])
    assert len(drawn) == 3 and drawn[1] == drawn[2] == torch.rand((), generator=torch.Generator().manual_seed(3)).item()
