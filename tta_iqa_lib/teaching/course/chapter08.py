"""Chapter 8, the loop: its checkers."""

import torch
from torch import nn

from ...adaptation.adapter import Adapter
from ...adaptation.losses import GroupContrastive
from ...adaptation.rules import Shrink
from .checker import Wrong, checker, yes_or_no
from .fresh import hazy_crops, source_model


@checker("ex08_1", may_write=True)
def ex08_1(episodic):
    """`episodic(start, batches, adapt, score) -> [scores]`: every batch starts from the same state."""

    def adapt(state, batch):  # writes as optimisers do: into a tensor that is there, and a new tensor under an old name
        state["shift"] += sum(batch)
        state["steps"] = state["steps"] + 1
        return state

    def score(state, batch):
        return [x + float(state["shift"] + 100 * state["steps"]) for x in batch]

    batches = [[1.0, 2.0], [10.0], [1.0, 2.0]]
    expected = [[104.0, 105.0], [120.0], [104.0, 105.0]]
    start = {"shift": torch.tensor(0.0), "steps": torch.tensor(0.0)}
    tensors = tuple(start.values())
    scores = [[float(x) for x in s] for s in episodic(start, batches, adapt, score)]
    if scores == batches:
        raise Wrong("these are the scores before adapting; adapt to a batch first, then score it")
    if scores == [[104.0, 105.0], [123.0], [117.0, 118.0]]:
        raise Wrong(
            "the copy is shallow: its tensors are those of `start`, and `adapt` writes into them; copy the tensors, too"
        )
    if scores in ([[104.0, 105.0], [223.0], [317.0, 318.0]], [[317.0, 318.0], [326.0], [317.0, 318.0]]):
        raise Wrong("the state leaks from one batch into the next: batches 1 and 3 are equal, their scores are not")
    if scores == [[1.0, 2.0], [113.0], [214.0, 215.0]]:
        raise Wrong("each batch is scored with the state of the batch before it")
    if scores != expected:
        raise Wrong(f"for the batches {batches} the scores should be {expected}; yours are {scores}")
    if any(start.values()):
        raise Wrong(
            "the scores are right, but `start` was changed: `adapt` writes into what it gets, so give it a copy"
        )
    if any(tensors):
        raise Wrong(
            "the scores are right and `start` holds the old values, but in new tensors: `adapt` wrote into the tensors that "
            "the caller gave, and may still hold; give it a copy of them"
        )


@checker("ex08_2", may_write=True)
def ex08_2(borrowed):
    """`borrowed(model, images, change) -> scores`: scores of the changed model; afterwards it is as it was, come what may."""

    def fresh():
        layer = nn.BatchNorm1d(2)
        layer.running_mean = torch.ones(2)
        nn.init.constant_(layer.weight, 2.0)
        return layer.eval()

    def change(model):
        with torch.no_grad():
            model.weight.mul_(3)
            model.running_mean.sub_(5)

    def kept(model):
        return model.weight.eq(2).all() and model.running_mean.eq(1).all()

    def check_state(model):
        """What a state_dict does not hold."""
        if model.training:
            raise Wrong("the model came in evaluation mode and is in training mode now: put that back, too")
        if not all(p.requires_grad for p in model.parameters()):
            raise Wrong("the parameters no longer ask for gradients (requires_grad): put that back, too")
        if any(p.grad is not None for p in model.parameters()):
            raise Wrong("the parameters hold gradients now (.grad); none were there before")

    images = torch.arange(6.0).view(3, 2)
    model, reference = fresh(), fresh()
    change(reference)
    enabled = torch.is_grad_enabled()
    scores = torch.as_tensor(borrowed(model, images, change))
    if torch.is_grad_enabled() != enabled:
        torch.set_grad_enabled(enabled)
        raise Wrong("gradients are switched off for the caller, too, from now on: use `with torch.no_grad():`")
    if torch.equal(scores, fresh()(images)):
        raise Wrong("these are the scores of the unchanged model: call `change(model)` before you score")
    if not torch.allclose(scores, reference(images)):
        raise Wrong("the scores are not those of the changed model in evaluation mode")
    if not model.weight.eq(2).all():
        raise Wrong(
            "the parameters are still changed. A state_dict holds references: clone its tensors before `change` writes into them"
        )
    if not kept(model):
        raise Wrong("the parameters are back, BatchNorm's running mean is not: buffers are part of the state, too")
    check_state(model)

    class OutOfMemory(RuntimeError):
        pass

    def fail(model):
        change(model)
        raise OutOfMemory

    swallowed = Wrong("an error inside `change` was swallowed: the caller must hear of it")
    try:
        borrowed(model, images, fail)
    except OutOfMemory:
        pass
    except Wrong:  # nothing was returned
        raise swallowed from None
    else:
        raise swallowed
    if not kept(model):
        raise Wrong("when `change` fails half-way, the model stays changed: restore in a `finally`")
    check_state(model)


@checker("ex08_3")
def ex08_3(trustworthy):
    """`trustworthy(loop, A, B) -> bool`: does a batch get the same scores again, bit for bit, after another one?"""
    A, B = hazy_crops(16, seed=83)[0].split(8)
    adapter = Adapter(source_model(), [GroupContrastive()], Shrink(16))
    batches = []

    def honest(batch):
        return adapter(batch)

    def drifts(batch):
        """Grows by less than anybody would see, with each batch."""
        batches.append(batch)
        return adapter(batch) + 1e-6 * len(batches)

    def remembers(batch):
        """Forgets only where it sees the same batch twice in a row."""
        last = batches[-1] if batches else batch
        batches.append(batch)
        return adapter(batch) + 0.01 * float((last - batch).abs().mean())

    def swaps(batch):
        """Its mean score stays, its single scores do not."""
        batches.append(batch)
        return adapter(batch).roll(len(batches))

    def verdict(loop):
        batches.clear()
        answer = trustworthy(loop, A, B)
        return yes_or_no(answer)

    if not verdict(honest):
        raise Wrong(
            "an honest episodic `Adapter` is refused: compare the scores of A with those of A, not with those of B"
        )
    with adapter.online():
        if verdict(honest):
            raise Wrong("an online loop passes, which carries γ, β and moments from each batch to the next")
    if verdict(remembers):
        raise Wrong("a loop passes that remembers the batch before: score A, then another batch, then A again")
    if verdict(swaps):
        raise Wrong("a loop passes that gives A the same mean score, but not the same scores: compare image by image")
    if verdict(drifts):
        raise Wrong("a loop passes whose scores grow by a millionth with each batch: bit for bit means torch.equal")
