"""Sources × targets × methods on real opinions → one tidy, resumable results file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ...adaptation import ShiftGate, Source
from ...adaptation.adapter import Adapter
from ...adaptation.batches import balanced_batches
from ...metrics import evenly_spaced, plcc, srcc
from ...models.quality import QualityModel
from ...models.training import as_float
from ...store import Store
from ..baselines import QuantileMatching, Stream, source_quantiles
from ..runner import settings_commit, side_by_side
from ..seeds import Seeds
from .methods import GRIDS, METHODS, ONLINE
from .pack import Pack, read_pack
from .sources import SCALES, Scale, centre, source_file, train_source, training_rows
from .targets import Target, load_target, targets


@dataclass(frozen=True)
class Run:
    """One method on one target, for one seed and one batch size; `online`: the state is carried over the target's batches."""

    method: str
    target: Target
    seed: int
    batch_size: int
    online: bool = False

    @property
    def entry(self) -> str:
        """Its name in the store."""
        return f"{self.target} {self.method} {self.seed} {self.batch_size}{' online' * self.online}.json"


@dataclass(frozen=True)
class Place:
    """Where a study takes its pictures and models from, and on what it computes."""

    pack: str
    sources: str
    scale: str
    device: str = "cpu"


def runs_of(scale: Scale, role: str | None = None, grid: str | None = None) -> list[Run]:
    """The runs of a grid out of `methods.GRIDS`, by default the one named as the scale; all, or those on targets of one role."""
    chosen = [target for target in targets(scale) if role in (None, target.role)]
    found = []
    for size, (everywhere, on_test) in GRIDS[grid or scale.name].items():
        found += [
            Run(method, target, seed, size)
            for method in (*everywhere, *on_test)
            for target in chosen
            for seed in range(scale.seeds[target.source])
            if method in everywhere or target.role == "test"
        ]
    found += [
        Run(method, target, seed, 8, online=True)
        for method in (ONLINE if grid is None else ())
        for target in chosen
        for seed in range(scale.seeds[target.source])
        if str(target) in ("live → ss01, as it is", "live → agiqa, as it is")
    ]
    return found


@lru_cache(maxsize=2)
def _pack(folder: str) -> Pack:
    return read_pack(folder)


@lru_cache(maxsize=8)
def _model(place: Place, source: str, seed: int) -> QualityModel:
    scale = SCALES[place.scale]
    model = train_source(_pack(place.pack), source, seed, scale, Path(place.sources), place.device, progress=False)
    return model.to(memory_format=torch.channels_last)  # by a third faster


@lru_cache(maxsize=32)
def _images(place: Place, target: Target):
    return load_target(_pack(place.pack), target, SCALES[place.scale])


def _order(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _store(place: Place, model: QualityModel) -> Store:
    return Store(
        "opinions",
        depends_on=["experiments.opinions.methods", "experiments.opinions.targets"],
        pack=_pack(place.pack).key,
        scale=asdict(SCALES[place.scale]),
        model=model,
    )


def run_one(place: Place, run: Run) -> list[float]:
    """The scores of a run in the target's own order, to five decimals; from the store, if they are there."""
    model, seeds = _model(place, run.target.source, run.seed), Seeds.of_run(run.seed)

    def compute() -> list[float]:
        images = _images(place, run.target)[0].to(place.device, memory_format=torch.channels_last)
        order = _order(len(images), seeds.order).to(place.device)
        scorer = METHODS[run.method].adapter(model, seeds.copies)
        if run.online and isinstance(scorer, Adapter):
            scorer = Stream(scorer)
        if isinstance(scorer, QuantileMatching):
            scorer = replace(scorer, quantiles=_quantiles(place, run.target.source, run.seed))
        scores = torch.empty(len(images))
        scores[order.cpu()] = scorer.predict(images[order], run.batch_size, shuffle=False).float().cpu()
        return [round(float(score), 5) for score in scores]

    return _store(place, model).get(run.entry, compute)


@lru_cache(maxsize=8)
def _quantiles(place: Place, source: str, seed: int) -> dict[str, torch.Tensor]:
    """Of a source's channels, over some of the pictures that it was trained on."""
    model, pack, scale = _model(place, source, seed), _pack(place.pack), SCALES[place.scale]

    def compute() -> dict[str, torch.Tensor]:
        rows = training_rows(pack, source, scale)
        images = as_float(centre(pack.images(rows[evenly_spaced(len(rows), 128)]), scale.crop))
        return source_quantiles(model, images.to(place.device, memory_format=torch.channels_last))

    kept = _store(place, model).get(f"{source} quantiles {seed}.npz", compute)
    return {name: torch.from_numpy(array) for name, array in kept.items()}


def measure_shift(place: Place, target: Target, seed: int) -> list[list[float]]:
    """How far batches of 32 lie from the source, layer by layer: squared distances over those by chance, about 1 if unshifted.

    Returns:
        For each BatchNorm layer from the input on a pair (of means, of variances), the mean over the batches, to .01.
    """
    model = _model(place, target.source, seed)
    measures = Adapter(model, (), Source(), gate=ShiftGate(threshold=math.inf))

    def compute() -> list[list[float]]:
        images = _images(place, target)[0].to(place.device, memory_format=torch.channels_last)
        images = images[_order(len(images), Seeds.of_run(seed).order)]
        batches = [measures.run(images[rows]).shift for rows in balanced_batches(len(images), 32)]
        ratios = [[[distance / noise for distance, noise in layer] for layer in batch.values()] for batch in batches]
        return np.mean(ratios, 0).round(2).tolist()

    return _store(place, model).get(f"{target} shift {seed}.json", compute)


def run_study(
    place: Place,
    processes: int = 1,
    role: str | None = None,
    progress: bool = True,
    methods: tuple[str, ...] | None = None,
    grid: str | None = None,
) -> dict:
    """Train the sources that are missing, run what is not yet done, gather.

    Args:
        processes: runs at a time, each on one CPU thread.
        role: only "development" or "test" targets.
        methods: only these.
        grid: see `runs_of`.

    Returns:
        As `experiments.runner.run_grid`: "about", "truth" (by target, with its kind, its role, and by seed the `measure_shift`),
        "runs"; "within" of a run is the mean SRCC inside its batches.
    """
    scale, pack = SCALES[place.scale], _pack(place.pack)
    runs = [run for run in runs_of(scale, role, grid) if methods is None or run.method in methods]
    trainings = sorted({(run.target.source, run.seed) for run in runs})
    if place.device == "cpu" or processes == 1:
        for training in trainings:
            train_source(pack, *training, scale, Path(place.sources), place.device, progress)
    else:  # one training keeps a GPU busy for a small part of the time
        done = side_by_side(_train, {training: (place, training) for training in trainings}, processes)
        for _ in tqdm(done, total=len(trainings), desc="trainings", disable=not progress):
            pass
    runs_by_target = sorted(runs, key=lambda run: (str(run.target), run.seed))  # so that a worker reads few of them
    if processes == 1:
        done = ((run, run_one(place, run)) for run in runs_by_target)
    else:
        done = side_by_side(run_one, {run: (place, run) for run in runs_by_target}, processes)
    scores = dict(tqdm(done, total=len(runs), desc="runs", disable=not progress))
    truth, kept = {}, []
    for target in dict.fromkeys(run.target for run in runs):
        _, opinions, content = load_target(pack, target, scale)
        truth[str(target)] = {"quality": [round(float(q), 5) for q in opinions], "content": content.tolist()}
        seeds = range(scale.seeds[target.source])
        shift = {seed: measure_shift(place, target, seed) for seed in seeds}
        truth[str(target)] |= {"kind": target.kind, "role": target.role, "shift": shift}
    for run in runs:
        found, quality = np.array(scores[run]), np.array(truth[str(run.target)]["quality"])
        order = _order(len(found), Seeds.of_run(run.seed).order).numpy()
        batches = [order[rows] for rows in balanced_batches(len(order), run.batch_size)]
        numbers = {
            "srcc": srcc(found, quality),
            "plcc": plcc(found, quality),
            "within": float(np.mean([srcc(found[rows], quality[rows]) for rows in batches])),
        }
        kept.append(
            {
                "method": run.method + " online" * run.online,
                "target": str(run.target),
                "seed": run.seed,
                "batch_size": run.batch_size,
                **{name: round(value, 4) for name, value in numbers.items()},
                "scores": scores[run],
            }
        )
    about = {
        "scale": asdict(scale),
        "pack": pack.key,
        "methods": {
            name: {"label": METHODS[name].label, "control": METHODS[name].control}
            for name in dict.fromkeys(run.method for run in runs)
        },
        "sources": _about_sources(place, runs),
        "machine": torch.cuda.get_device_name(place.device) if place.device.startswith("cuda") else "CPU",
        "settings_commit": settings_commit(),
        "torch": torch.__version__.split("+")[0],
    }
    return {"about": about, "truth": truth, "runs": kept}


def _train(place: Place, training: tuple[str, int]) -> None:
    train_source(_pack(place.pack), *training, SCALES[place.scale], Path(place.sources), place.device, progress=False)


def _about_sources(place: Place, runs: list[Run]) -> dict[str, list[float]]:
    """By kind of source, the SRCC of each on held-out contents."""
    from ...models.saving import read_about

    scale, found = SCALES[place.scale], {}
    for source in dict.fromkeys(run.target.source for run in runs):
        files = [source_file(Path(place.sources), source, seed, scale) for seed in range(scale.seeds[source])]
        found[source] = [read_about(file)["test_srcc"] for file in files]
    return found
