"""Three directions over a made-up folder of a dozen small pictures: run once, kept, and with the shift of every layer."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import pictures

from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.experiments import opinions, transfer
from tta_iqa_lib.experiments.opinions import centre, load, shuffled, split, train_source, untrained
from tta_iqa_lib.experiments.transfer import evaluate, shift
from tta_iqa_lib.metrics import evenly_spaced
from tta_iqa_lib.models.training import as_float

pytestmark = pytest.mark.usefixtures("small_squares")


def test_the_shift_is_the_distance_over_that_by_chance_averaged_over_the_batches():
    model, images = untrained("small", 0).eval(), pictures(12, 32)
    halves = [
        Adapter(model, losses=(), gate=lambda result: "source").run(half).shift.values() for half in images.split(6)
    ]
    expected = np.mean([[[d / n for d, n in layer] for layer in half] for half in halves], 0)
    assert np.allclose(shift(model, images, 6), expected, atol=0.006)
    assert shift(model, images * 0.3, 6)[0][0] > 2 * expected[0][0]


def test_all_directions_and_seeds_are_run_once_and_kept(folder, monkeypatch):
    """Two seeds are two source models; a second call reads what the first one stored."""
    monkeypatch.setattr(opinions, "fit", lambda model, *args, **options: model)
    monkeypatch.setattr(opinions, "HELD_OUT", 0.4)
    monkeypatch.setattr(transfer, "PLAN", (("as it is", ("source", "bn-batch"), 4), ("dark", ("source",), 4)))
    results = evaluate(folder, 4, seeds=(0, 1), progress=False)
    runs = {(r["method"], r["target"], r["seed"]): r for r in results["runs"]}
    assert len(runs) == len(results["runs"]) == 3 * 2 * 3  # subsets, seeds, (condition, method) pairs
    bright, dark, other = (
        runs["source", f"ss02/{c}", s]["scores"] for c, s in (("as it is", 0), ("dark", 0), ("as it is", 1))
    )
    assert bright != dark and bright != other
    data = load(folder, progress=False)
    _, held, test = split(data, "ss02")
    model = train_source(data, "ss02", 1, progress=False)
    assert other == pytest.approx(model(as_float(centre(data.images[test]))).tolist(), abs=1e-4)
    known = results["about"]["ss02"]
    assert known["held_out_images"] == len(held) and known["held_out_srcc"].keys() == {0, 1}
    order = shuffled(np.arange(4), 1001)
    pixels = {
        "held out": data.images[shuffled(held[evenly_spaced(len(held), 4)], 1001)],
        "as it is": data.images[test][order],
    }
    assert known["shift"].keys() == {*pixels, "dark"} and known["shift"]["dark"].keys() == {0, 1}
    for name, images in pixels.items():
        found = np.array(known["shift"][name][1])
        assert found.shape == (12, 2) and np.allclose(found, shift(model, as_float(centre(images))), atol=0.011)
    assert results["truth"]["ss02/dark"]["quality"] == data.scores[test].tolist()
    monkeypatch.setattr(
        transfer.METHODS["source"].adapter(model, 0).__class__, "predict", None
    )  # nothing is computed again
    monkeypatch.setattr(transfer, "shift", None)
    assert evaluate(folder, 4, seeds=(0, 1), progress=False) == results


def test_source_order_and_copies_are_drawn_by_their_own_seeds(folder, monkeypatch):
    """The training, every order of images, and every adapter: each has its seed and no other's."""
    seen = {"source": set(), "order": set(), "copies": set()}

    def spy(name, place, true):
        return lambda *args, **options: seen[name].add(args[place]) or true(*args, **options)

    monkeypatch.setattr(opinions, "fit", lambda model, *args, **options: model)
    monkeypatch.setattr(opinions, "HELD_OUT", 0.4)
    monkeypatch.setattr(transfer, "PLAN", (("as it is", ("source",), 4),))
    monkeypatch.setattr(transfer.Seeds, "of_run", lambda number: transfer.Seeds(source=1, order=20, copies=300))
    monkeypatch.setattr(transfer, "train_source", spy("source", 2, transfer.train_source))
    monkeypatch.setattr(transfer, "shuffled", spy("order", 1, transfer.shuffled))
    method = transfer.METHODS["source"]
    monkeypatch.setitem(transfer.METHODS, "source", replace(method, adapter=spy("copies", 1, method.adapter)))
    results = evaluate(folder, 4, seeds=(0,), progress=False)
    assert seen == {"source": {1}, "order": {20}, "copies": {300}}
    assert {run["seed"] for run in results["runs"]} == {0}


def test_an_unknown_architecture_is_an_error_before_the_work_begins(folder):
    with pytest.raises(ValueError, match="no network 'resnet7' in torchvision"):
        evaluate(folder, 4, architecture="resnet7", progress=False)
