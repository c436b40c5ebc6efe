"""From two subsets of photographs to the third, with real opinions: what adapts, and where the shift sits (chapters 9 and 11)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..adaptation import Adaptive, Batch, Source
from ..adaptation.adapter import Adapter, balanced_batches
from ..adaptation.gates import ShiftGate
from ..imaging.distortions import distort
from ..metrics import evenly_spaced, plcc, srcc
from ..models.quality import QualityModel
from ..models.training import as_float, score_all
from ..store import Store
from .methods import BLEND, GC, ORDER, RANK, STATISTICS
from .methods import adapting as _method
from .opinions import CROP, EPOCHS, LR, SIZE, SUBSETS, Opinions, centre, load, shuffled, split, train_source, untrained
from .seeds import Seeds

# Changes that leave the order of the opinions nearly untouched: all photographs alike.
CONDITIONS: dict[str, tuple[str, float] | None] = {
    "as it is": None,
    "haze": ("haze", 0.6),
    "dark": ("dark", 0.6),
    "jpeg": ("jpeg", 0.1),
}
METHODS = {
    "source": _method("source model", None, losses=(), statistics=Source()),
    "views": _method("2 views", "source", losses=(), statistics=Source(), views=2),
    "bn-batch": _method("BN, batch", "source", losses=(), statistics=Batch()),
    "bn-blend": _method("BN, blend", "source", losses=(), statistics=BLEND),
    "bn-adaptive": _method("BN, adaptive α", "source", losses=(), statistics=Adaptive(1.5)),
    "recipe-open": _method("our recipe, no gate", "source", losses=(), statistics=STATISTICS, views=2),
    "recipe": _method("our recipe", "source"),
    "rank+gc": _method("rank + GC", "bn-blend", losses=(RANK, GC), statistics=BLEND),
    "order": _method("score order", "bn-blend", losses=(ORDER,), statistics=BLEND),
}
CHEAP = tuple(METHODS)[:7]
PLAN: tuple[tuple[str, tuple[str, ...], int], ...] = (  # condition, methods, batch size
    *((condition, CHEAP, 32) for condition in CONDITIONS),
    ("as it is", CHEAP, 8),
    ("as it is", ("rank+gc", "order"), 32),
)


def shift(model: QualityModel, images: Tensor, batch_size: int = 32) -> list[list[float]]:
    """How far batches lie from the source, layer by layer: the squared distances of `ShiftGate` over those by chance.

    Args:
        images: (N, 3, H, W), RGB in [0, 1].

    Returns:
        [[of means, of variances], …], one pair for each BatchNorm layer from the input on; each is the mean over the batches,
        to .01, and about 1 where nothing has shifted.
    """
    measures = Adapter(model, gate=ShiftGate(threshold=math.inf), views=1)  # and never adapts
    batches = [measures.run(images[rows]).shift for rows in balanced_batches(len(images), batch_size)]
    ratios = [[[distance / noise for distance, noise in layer] for layer in batch.values()] for batch in batches]
    return np.mean(ratios, 0).round(2).tolist()


def evaluate(
    folder: str | Path,
    images: int = 128,
    seeds: Sequence[int] = (0, 1, 2),
    architecture: str = "small",
    epochs: int = EPOCHS,
    progress: bool = True,
) -> dict:
    """All directions, conditions and methods of `PLAN`; each finished run is kept in the cache, so it can be resumed.

    Args:
        images: of the subset left out, drawn evenly.
        seeds: numbers, from which `Seeds` are derived: each trains a source model of its own, and draws the order of the images.
        architecture, epochs: of the source models; see `untrained`.

    Returns:
        What `experiments.run_grid` returns. A target is "SUBSET/CONDITION", and a run has "within", too: the mean SRCC inside
        its batches. "about" has for each subset, by seed, the source's SRCC on held-out images of the other two subsets, and
        the `shift` of those ("held out") and of each condition.
    """
    untrained(architecture, 0)  # an unknown one is an error before the work begins
    data = load(folder, progress)
    truth, runs, about = {}, [], {}
    jobs = [(subset, number, *job) for subset in SUBSETS for number in seeds for job in PLAN]
    for subset, number, condition, chosen, size in tqdm(jobs, desc="opinions", disable=not progress):
        seed = Seeds.of_run(number)
        model = train_source(data, subset, seed.source, architecture, epochs, progress=progress)
        store = Store("opinions", depends_on=["experiments.transfer"], model=model, data=data.key, images=images)
        _, held, test = split(data, subset)
        known = about.setdefault(subset, {"held_out_images": len(held), "held_out_srcc": {}, "shift": {"held out": {}}})
        if number not in known["held_out_srcc"]:
            known["held_out_srcc"][number] = round(_srcc_of(model, data, held), 4)
            own = shuffled(held[evenly_spaced(len(held), images)], seed.order)
            pixels = as_float(centre(data.images[own]))
            measured = store.get(f"{subset} held-out shift {seed.order}.json", shift, model, pixels)
            known["shift"]["held out"][number] = measured
        rows = test[evenly_spaced(len(test), images)]
        quality = data.scores[rows]
        pixels = as_float(centre(data.images[rows]))
        if change := CONDITIONS[condition]:
            kind, severity = change
            pixels = torch.cat([distort(part, kind, severity) for part in pixels.split(64)])
        order = torch.from_numpy(shuffled(np.arange(len(rows)), seed.order))
        name, target = f"{subset} {condition}", f"{subset}/{condition}"
        truth[target] = {"quality": quality.tolist(), "content": [str(c) for c in data.content[rows]]}
        measured = store.get(f"{name} shift {seed.order}.json", shift, model, pixels[order])
        known["shift"].setdefault(condition, {})[number] = measured
        for method in chosen:
            adapter = METHODS[method].adapter(model, seed.copies)
            entry = f"{name} {method} {seed.order}-{seed.copies} {size}.json"
            found = store.get(entry, _scores, adapter, pixels, order, size)
            scores = torch.tensor(found)
            batches = [order[i] for i in balanced_batches(len(order), size)]
            runs.append(
                {
                    "method": method,
                    "target": target,
                    "seed": number,
                    "batch_size": size,
                    "srcc": round(srcc(scores, quality), 4),
                    "plcc": round(plcc(scores, quality), 4),
                    "within": round(float(np.mean([srcc(scores[b], quality[b]) for b in batches])), 4),
                    "scores": found,
                }
            )
    about |= {"images": images, "conditions": CONDITIONS, "crop": CROP, "size": SIZE, "epochs": epochs, "lr": LR}
    about |= {
        "architecture": architecture,
        "seeds": list(seeds),
        "labels": {name: method.label for name, method in METHODS.items()},
        "database": "BIQ2021",
        "torch": torch.__version__,
    }
    return {"about": about, "truth": truth, "runs": runs}


def _scores(adapter: Adapter, images: Tensor, order: Tensor, size: int) -> list[float]:
    """In the images' own order, rounded to five decimals."""
    scores = torch.empty(len(images))
    scores[order] = adapter.predict(images[order], size, shuffle=False)
    return [round(float(score), 5) for score in scores]


def _srcc_of(model: QualityModel, data: Opinions, rows: np.ndarray) -> float:
    return srcc(score_all(model, centre(data.images[rows])), data.scores[rows])
