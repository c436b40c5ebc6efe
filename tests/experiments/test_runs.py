"""One run: its order, its model, its draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.experiments import runs
from tta_iqa_lib.experiments.methods import METHODS, Method
from tta_iqa_lib.experiments.runs import load_target, run_one
from tta_iqa_lib.experiments.seeds import Seeds
from tta_iqa_lib.models.saving import load_source_model
from tta_iqa_lib.store import identity


def test_a_run_keeps_the_target_s_order():
    """The images are shuffled before they are batched; the scores come back in place."""
    scores = run_one("source", "target/dusk", Seeds.of_run(0), 8, 24)
    images, _, _ = load_target("target/dusk", 24)
    with torch.no_grad():
        expected = load_source_model(0)(images)
    assert np.allclose(scores, expected, atol=1e-4)


class Witness:
    """A method that notes what a run gives it."""

    def __init__(self):
        self.seen = {}

    def adapter(self, model, seed: int) -> "Witness":
        self.seen |= {"source": identity(model), "copies": torch.rand(3, generator=torch.Generator().manual_seed(seed))}
        return self

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        self.seen["order"] = images.flatten(1).sum(1)
        return torch.zeros(len(images))


def draws(monkeypatch, seeds: Seeds, order: str) -> dict[str, list]:
    witness = Witness()
    monkeypatch.setitem(METHODS, "witness", Method("witness", witness.adapter))
    run_one("witness", "target/dusk", seeds, 8, 16, order)
    return {name: list(map(str, value)) for name, value in witness.seen.items()}


@pytest.mark.parametrize("order", ["shuffled", "by-content"])
@pytest.mark.parametrize("name", ["source", "order", "copies"])
def test_one_seed_changes_one_thing(monkeypatch, name, order):
    """Which model, which order, which random numbers: the two others stay as they were, to the bit."""
    seeds = Seeds.of_run(1)
    first, other = (draws(monkeypatch, s, order) for s in (seeds, replace(seeds, **{name: vars(seeds)[name] + 1})))
    assert {key for key in first if first[key] != other[key]} == {name}
    assert first == draws(monkeypatch, seeds, order)


def test_the_copies_of_a_method_are_drawn_by_their_own_seed(monkeypatch):
    """A real method with copies: another seed of them gives other scores, and it is the adapter's."""
    seeds, made, true = Seeds(0, 1000, 5), [], Adapter.__init__
    monkeypatch.setattr(Adapter, "__init__", lambda self, *a, **k: made.append(k["seed"]) or true(self, *a, **k))
    first, other = (run_one("rank", "target/dusk", s, 8, 8) for s in (seeds, replace(seeds, copies=6)))
    assert made == [5, 6] and first != other


def test_the_order_of_the_stored_results_is_that_of_run_1000_and_more():
    rows = torch.randperm(16, generator=torch.Generator().manual_seed(1002))
    images, seen = load_target("target/dusk", 16)[0], Witness()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(runs.METHODS, "witness", Method("witness", seen.adapter))
        run_one("witness", "target/dusk", Seeds.of_run(2), 8, 16)
    assert torch.equal(seen.seen["order"], images[rows].flatten(1).sum(1))
