"""A grid of runs → one tidy, resumable results file (chapter 9).

A run is one method on one target, for one seed and one batch size. A seed draws the source model (one of three), the order
of the images and the distorted copies. Every run is written when it is done; after an interruption the rest is computed and
the results are the same. Numbers in the book come from the results file alone.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import adapt, baselines, batchnorm, benchmark, gate, loop, losses, models, published
from .adapt import DEFAULT_STATISTICS, Adapter
from .baselines import (
    ActMad,
    Average,
    PerImage,
    Rotation,
    ScoreEntropy,
    ScoreVariance,
    Stream,
    SubspaceAlignment,
    Turns,
    rotation_head,
)
from .batchnorm import Adaptive, Batch, Blend, Ema, Shrink, Source
from .benchmark import TARGETS, Meta, build, cache_folder, code_hash, fingerprint, tinyshift
from .losses import GroupContrastive, Pair, RelativeRank, ScoreOrder
from .metrics import Interval, krcc, plcc, resamples, srcc
from .models import ScoringModel, data_folder, load_source_model
from .published import FAULTS, Published

SOURCES = 3  # independently trained source models


@dataclass(frozen=True)
class Method:
    """How a method makes its scorer, and the control it is compared with.

    Attributes:
        label: for tables and figures.
        adapter: (model, seed) → anything with the `predict` of `Adapter`.
        control: name of its matched control: the same statistics and forwards, the losses' gradients switched off.
    """

    label: str
    adapter: Callable[[ScoringModel, int], Adapter]
    control: str | None = None


def _method(label: str, control: str | None, **settings) -> Method:
    return Method(label, lambda model, seed: Adapter(model, seed=seed, **settings), control)


def _online(label: str, control: str | None, **settings) -> Method:
    return Method(label, lambda model, seed: Stream(Adapter(model, seed=seed, **settings)), control)


def _rotation(model: ScoringModel, seed: int) -> Adapter:
    return Adapter(model, losses=(Rotation(source_head(seed % SOURCES)),), statistics=BLEND, seed=seed)


def _memo(model: ScoringModel, seed: int) -> PerImage:
    loss = ScoreVariance(views=Turns(3))
    return PerImage(Adapter(model, losses=(loss,), statistics=BLEND, seed=seed, fold=16))


@cache
def source_head(source: int):
    """The rotation head of a source model (see `baselines.rotation_head`), fitted at its first use on 800 source crops."""
    return rotation_head(load_source_model(source), tinyshift("source/train")[0][:800])


RANK, GC, ORDER = RelativeRank(), GroupContrastive(), ScoreOrder(views=Pair(choose="signed"))
BLEND = Shrink(16)
RECIPE = {"statistics": DEFAULT_STATISTICS, "gate": None, "views": 8}
METHODS = {
    "source": _method("source model", None, losses=(), statistics=Source()),
    "bn-batch": _method("BN, batch", "source", losses=(), statistics=Batch()),
    "bn-blend": _method("BN, blend", "source", losses=(), statistics=BLEND),
    "rank": _method("rank", "bn-blend", losses=(RANK,), statistics=BLEND),
    "gc": _method("GC", "bn-blend", losses=(GC,), statistics=BLEND),
    "rank+gc": _method("rank + GC", "bn-blend", losses=(RANK, GC), statistics=BLEND),
    "rank+gc-frozen": _method("rank + GC, frozen BN", "source", losses=(RANK, GC), statistics=Source()),
    "order": _method("score order", "bn-blend", losses=(ORDER,), statistics=BLEND),
}
MAIN = tuple(METHODS)
METHODS |= {
    "views": Method("8 views", lambda model, seed: Average(model, 8), "source"),
    "views+crops": Method("8 views × 5 crops", lambda model, seed: Average(model, 8, 5), "source"),
    "bn-adaptive": _method("BN, adaptive α", "source", losses=(), statistics=Adaptive(1.5)),
    "bn-first": _method("BN, first layers", "source", losses=(), statistics=DEFAULT_STATISTICS),
    "recipe-open": _method("our recipe, no gate", "source", losses=(), **RECIPE),
    "recipe": _method("our recipe", "source"),  # the defaults of `Adapter`
}
CHEAP = ("source", "views", "bn-batch", "bn-blend", "bn-adaptive", "bn-first", "recipe-open", "recipe")
METHODS |= {
    "recipe+order": _method("recipe + score order", "recipe-open", losses=(ORDER,), **RECIPE),
    "ema": _online("BN, EMA (online)", "source", losses=(), statistics=Ema(0.1)),
    "entropy": _method("TENT, entropy", "bn-blend", losses=(ScoreEntropy(),), statistics=BLEND),
    "variance": _method("TENT, variance", "bn-blend", losses=(ScoreVariance(),), statistics=BLEND),
    "ttt": Method("TTT, rotation", _rotation, "bn-blend"),
    "memo": Method("MEMO", _memo),
    "actmad": _method("ActMAD", "bn-blend", losses=(ActMad(),), statistics=BLEND),
    "ssa": _method("SSA", "bn-blend", losses=(SubspaceAlignment(),), statistics=BLEND),
    "sar": _online(
        "SAR (online)", "bn-batch", losses=(ScoreVariance(reliable=0.3),), statistics=Batch(), sharpness=0.05
    ),
    "published-control": Method(
        "published, no gradients", lambda model, seed: Published(model, gradients=False, seed=seed), "source"
    ),
    "published": Method("published, no faults", lambda model, seed: Published(model, seed=seed), "published-control"),
    "reference": Method(
        "reference mode", lambda model, seed: Published(model, tuple(FAULTS), seed=seed), "published-control"
    ),
}
FAIR = (
    "source", "views", "views+crops", "bn-batch", "bn-blend", "bn-adaptive", "recipe", "recipe-open", "recipe+order",
    "rank+gc", "ema", "entropy", "variance", "ttt", "memo", "actmad", "ssa", "sar",
    "published-control", "published", "reference",
)  # fmt: skip
METHODS |= {
    f"fault-{name}": Method(name, lambda model, seed, name=name: Published(model, (name,), seed=seed), "published")
    for name in FAULTS
}
ALPHAS = tuple(i / 10 for i in range(11))
METHODS |= {f"alpha-{a}": _method(f"α = {a}", "source", losses=(), statistics=Blend(a)) for a in ALPHAS}
STEPS = (0, 1, 2, 3, 5, 10, 20)
METHODS |= {f"steps-{n}": _method(f"{n} steps", "bn-blend", losses=(ORDER,), statistics=BLEND, steps=n) for n in STEPS}


@dataclass(frozen=True)
class Grid:
    """What to run.

    Attributes:
        name: of the results file.
        methods, targets, seeds, batch_sizes: every combination is a run.
        images: at most so many of each target, spread over its contents (None: all).
        order: "shuffled"; "by-content": images of one content follow one another; or "by-quality": the best images come in
            other batches than the worst.
        online: carry the state from batch to batch.
        keep_scores: store the score of every image, for intervals.
    """

    name: str
    methods: tuple[str, ...] = MAIN
    targets: tuple[str, ...] = ("source/test", *TARGETS)
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_sizes: tuple[int, ...] = (32, 8)
    images: int | None = None
    order: str = "shuffled"
    online: bool = False
    keep_scores: bool = True

    def runs(self) -> list[tuple[str, str, int, int]]:
        """(method, target, seed, batch size) of every run; slow methods first, so that processes end together."""
        grid = [(m, t, s, b) for m in self.methods for t in self.targets for s in self.seeds for b in self.batch_sizes]
        return grid[::-1]


_DEVELOPMENT = ("target/dusk", "source/test")
_FULL = ("source", "bn-blend", "bn-adaptive", "rank+gc", "recipe")  # the methods of the full grid
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_FEW = ("source/test", "target/dusk", "target/haze-physical", "target/unseen")
GRIDS = {
    grid.name: grid
    for grid in (
        Grid("headline", images=160),
        Grid("demo", ("source", "bn-blend", "recipe"), tuple(TARGETS), (0,), (32,), 64),
        Grid(
            "alpha",
            tuple(f"alpha-{a}" for a in ALPHAS),
            _DEVELOPMENT,
            batch_sizes=(2, 4, 8, 16, 32, 64),
            keep_scores=False,
        ),
        Grid(
            "one-sided",
            ("source", "bn-batch", "bn-blend"),
            _DEVELOPMENT,
            batch_sizes=(32,),
            images=160,
            order="by-quality",
        ),
        Grid(
            "steps", tuple(f"steps-{n}" for n in STEPS), _DEVELOPMENT, batch_sizes=(32,), images=192, keep_scores=False
        ),
        # The fair experiment (chapters 9 and 10).
        Grid("recipe", CHEAP, seeds=(0, 1, 2, 3, 4), images=96),
        Grid("fair", FAIR, seeds=(0, 1), batch_sizes=(32,), images=64),
        Grid("gate", ("source", "recipe-open", "recipe"), ("source/test-large",), (0,), _SIZES),
        Grid(
            "gate-one-sided",
            ("source", "recipe-open", "recipe"),
            ("source/test-large",),
            (0,),
            _SIZES,
            order="by-quality",
        ),
        Grid(
            "faults", ("published-control", "published", *(f"fault-{n}" for n in FAULTS)), _DEVELOPMENT[:1], images=64
        ),
        *(
            Grid(f"sizes-{order}{'-online' * online}", _FULL, _FEW, (0,), _SIZES, 64, order, online, False)
            for order in ("shuffled", "by-content")
            for online in (False, True)
        ),
    )
}


def load_target(name: str, images: int | None = None) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images (N, 3, H, W), quality (N,), contents (N,) of a target, or an even selection of them."""
    if name == "source/test-large":  # more crops of source/test's contents, for cells of a thousand images
        pixels, quality, meta = large_source_test()
    else:
        pixels, quality, meta = tinyshift(name)
    if images is None or images >= len(pixels):
        return pixels, quality, meta.content
    rows = np.linspace(0, len(pixels) - 1, images).round().astype(int)
    return pixels[rows], quality[rows], meta.content[rows]


@cache
def large_source_test() -> tuple[Tensor, Tensor, Meta]:
    """1,000 crops as those of source/test, drawn with another seed."""
    pixels, quality, meta = build("source/test", 1000, seed=1)
    return pixels.float() / 255, quality, meta


def run_one(
    method: str,
    target: str,
    seed: int,
    batch_size: int,
    images: int | None = None,
    order: str = "shuffled",
    online: bool = False,
) -> list[float]:
    """The scores of one run, in the target's own order, rounded to five decimals."""
    pixels, quality, content = load_target(target, images)
    rows = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(1000 + seed))
    if order == "by-quality":
        rows = rows[quality[rows].argsort(stable=True)]
    elif order == "by-content":
        place = {name: i for i, name in enumerate(dict.fromkeys(content[rows].tolist()))}
        rows = rows[torch.tensor([place[name] for name in content[rows]]).argsort(stable=True)]
    adapter = METHODS[method].adapter(load_source_model(seed % SOURCES), seed)
    if online and isinstance(adapter, Adapter):
        adapter = Stream(adapter)
    scores = torch.empty(len(pixels))
    scores[rows] = adapter.predict(pixels[rows], batch_size, shuffle=False)
    return [round(float(s), 5) for s in scores]


def results_key(grid: Grid) -> str:
    """A hash of everything that decides the results: code, benchmark, weights, grid."""
    code = code_hash(adapt, baselines, batchnorm, gate, loop, losses, models, published, sys.modules[__name__])
    digest = hashlib.sha256(json.dumps([asdict(grid), fingerprint(), code]).encode())
    for seed in sorted({s % SOURCES for s in grid.seeds}):
        digest.update((data_folder() / "models" / f"source-{seed}.safetensors").read_bytes())
    return digest.hexdigest()[:16]


def run_grid(grid: Grid, processes: int | None = None, progress: bool = True) -> dict:
    """Run what is not yet done, `processes` runs at a time, each on one thread; then gather.

    Returns:
        {"about": configuration, "truth": {target: {"quality", "content"}}, "runs": [{"method", "target", "seed",
        "batch_size", "srcc", "plcc", "krcc", "scores"}, …]}, runs sorted; independent of interruptions and processes.
    """
    folder = cache_folder() / grid.name / results_key(grid)
    folder.mkdir(parents=True, exist_ok=True)
    files = {run: folder / ("_".join(map(str, run)).replace("/", "-") + ".json") for run in grid.runs()}
    open_runs = [run for run, file in files.items() if not file.is_file()]
    if open_runs:
        for target in tqdm(sorted(grid.targets), desc="benchmark", disable=not progress):
            load_target(target)
        if "ttt" in grid.methods:
            tinyshift("source/train")
        # Fresh interpreters: a forked copy of PyTorch's threads can hang.
        context = multiprocessing.get_context("spawn")
        workers = processes or min(len(open_runs), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            jobs = {pool.submit(run_one, *run, grid.images, grid.order, grid.online): run for run in open_runs}
            try:
                for job in tqdm(
                    as_completed(jobs),
                    total=len(files),
                    initial=len(files) - len(jobs),
                    desc="runs",
                    disable=not progress,
                ):
                    partial = files[jobs[job]].with_suffix(".partial")
                    partial.write_text(json.dumps(job.result()))
                    partial.replace(files[jobs[job]])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    truth, runs = {}, []
    for target in grid.targets:
        _, quality, content = load_target(target, grid.images)
        truth[target] = {"quality": [round(float(q), 5) for q in quality], "content": content.tolist()}
    for method, target, seed, batch_size in grid.runs()[::-1]:
        scores = json.loads(files[method, target, seed, batch_size].read_text())
        quality = truth[target]["quality"]
        metrics = {m.__name__: round(m(scores, quality), 4) for m in (srcc, plcc, krcc)}
        runs.append(
            {
                "method": method,
                "target": target,
                "seed": seed,
                "batch_size": batch_size,
                **metrics,
                "scores": scores,
            }
        )
    about = {
        "grid": asdict(grid),
        "methods": {name: _settings(method) for name, method in METHODS.items() if name in grid.methods},
        "library": _library_version(),
        "torch": torch.__version__.split("+")[0],
        "benchmark": benchmark.version(),
        "settings_commit": settings_commit(),
    }
    return {"about": about, "truth": truth, "runs": runs}


def _settings(method: Method) -> dict:
    """What a method does, as plain data."""
    scorer = method.adapter(load_source_model(0), 0)
    about = {"label": method.label, "control": method.control, "scorer": type(scorer).__name__}
    adapter = getattr(scorer, "adapter", scorer)
    if not isinstance(adapter, Adapter):
        return about | {key: value for key, value in vars(scorer).items() if key != "model"}
    recipe = adapter.recipe
    return about | {
        "losses": [repr(loss) for loss in recipe.losses],
        "statistics": repr(recipe.statistics),
        "steps": recipe.steps if recipe.losses else 0,
        "lr": recipe.lr,
        "through": recipe.through,
        "views": recipe.views,
        "gate": repr(recipe.gate),
        "sharpness": recipe.sharpness,
    }


def _library_version() -> str:
    from . import __version__

    return __version__


def settings_commit() -> str | None:
    """The last commit that touched the settings (methods, recipe, targets), marked if they have changed since."""
    files = [
        str(Path(__file__).with_name(f"{name}.py"))
        for name in (
            "experiments",
            "benchmark",
            "losses",
            "loop",
            "adapt",
            "batchnorm",
            "gate",
            "baselines",
            "published",
        )
    ]
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "log", "-1", "--format=%h", "--", *files], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--", *files], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return (commit + ("+changes" if dirty else "")) or None


def write_results(results: dict, path: Path) -> None:
    """One run a line, so that a difference between two files can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(run) for run in results["runs"]]
    head = {key: value for key, value in results.items() if key != "runs"}
    text = json.dumps(head)[:-1] + ', "runs": [\n' + ",\n".join(lines) + "\n]}\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def read_results(name: str = "headline") -> dict:
    """The stored results of a grid (data/results/NAME.json).

    Raises:
        FileNotFoundError: they have not been computed; says how.
    """
    path = data_folder() / "results" / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no results at '{path}'; `tta-iqa experiment {name}` computes them")
    return json.loads(path.read_text())


def select(results: dict, **where) -> list[dict]:
    """Runs whose fields equal the given ones: `select(results, method="rank", batch_size=32)`."""
    return [run for run in results["runs"] if all(run[key] == value for key, value in where.items())]


def mean_srcc(results: dict, method: str, target: str, batch_size: int) -> float:
    """SRCC of a method on a target, averaged over seeds."""
    return float(np.mean([run["srcc"] for run in select(results, method=method, target=target, batch_size=batch_size)]))


def headline_targets(results: dict) -> list[str]:
    """The targets of the headline mean: reported, shifted, and readable by the source (SRCC ≥ .2, mean over seeds and sizes)."""
    size = results["about"]["grid"]["batch_sizes"][0]
    return [
        name
        for name, target in TARGETS.items()
        if target.role == "reported" and target.shifted and mean_srcc(results, "source", name, size) >= 0.2
    ]


def difference(
    results: dict,
    method: str,
    control: str,
    targets: Iterable[str],
    batch_size: int,
    count: int = 500,
    seed: int = 0,
) -> Interval:
    """Mean difference in SRCC, method − control, over targets and seeds, with a 95 % interval by content.

    Contents are drawn with replacement, the same for every target and seed of a draw, as all targets show the same contents.
    """
    targets = list(targets)
    cells = []
    for target in targets:
        quality = np.array(results["truth"][target]["quality"])
        pairs = zip(
            select(results, method=method, target=target, batch_size=batch_size),
            select(results, method=control, target=target, batch_size=batch_size),
            strict=True,
        )
        cells += [(target, quality, np.array(a["scores"]), np.array(b["scores"])) for a, b in pairs]

    def mean(index_of: dict[str, np.ndarray]) -> float:
        values = [srcc(a[i], q[i]) - srcc(b[i], q[i]) for t, q, a, b in cells for i in (index_of[t],)]
        return float(np.mean(values))

    everything = {t: np.arange(len(results["truth"][t]["quality"])) for t in targets}
    draws = zip(
        *(resamples(len(everything[t]), results["truth"][t]["content"], count, seed) for t in targets),
        strict=True,
    )
    low, high = np.quantile([mean(dict(zip(targets, draw, strict=True))) for draw in draws], [0.025, 0.975])
    return Interval(mean(everything), float(low), float(high))


def summarise(results: dict) -> list[dict]:
    """Every method against the source and against its control: on each target, and on the mean over headline targets."""
    grid = results["about"]["grid"]
    groups = {"headline": headline_targets(results)} | {target: [target] for target in grid["targets"]}
    summary = []
    for method in tqdm(grid["methods"], desc="intervals"):
        for other in dict.fromkeys(("source", METHODS[method].control)):
            if other in (None, method):
                continue
            for size in grid["batch_sizes"]:
                for name, targets in groups.items():
                    interval = difference(results, method, other, targets, size)
                    numbers = {key: round(value, 4) for key, value in asdict(interval).items()}
                    summary.append({"method": method, "minus": other, "batch_size": size, "targets": name, **numbers})
    return summary


def stored_difference(
    results: dict, method: str, minus: str, targets: str = "headline", batch_size: int = 32
) -> Interval:
    """A line of `summarise` out of a results file, as an `Interval`."""
    where = {"method": method, "minus": minus, "targets": targets, "batch_size": batch_size}
    for line in results["summary"]:
        if all(line[key] == value for key, value in where.items()):
            return Interval(line["value"], line["low"], line["high"])
    raise KeyError(f"the results hold no difference {where}")


def table(results: dict, batch_size: int, methods: Sequence[str] | None = None) -> str:
    """SRCC, mean over seeds, as plain text: one row a target, one column a method."""
    methods = methods or results["about"]["grid"]["methods"]
    targets = results["about"]["grid"]["targets"]
    width = max(len(t) for t in targets) + 2
    columns = [METHODS[m].label for m in methods]
    lines = ["".ljust(width) + "  ".join(columns)]
    for target in targets:
        cells = [
            f"{mean_srcc(results, m, target, batch_size):.2f}".rjust(len(c))
            for m, c in zip(methods, columns, strict=True)
        ]
        lines.append(target.ljust(width) + "  ".join(cells))
    return "\n".join(lines)
