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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..adaptation import adapter as adapt
from ..adaptation import copies as views
from ..adaptation import gates as gate
from ..adaptation import loop, losses, moments, normalisation, rules, state, stateless
from ..adaptation.adapter import Adapter
from ..datasets import tinyshift as benchmark
from ..datasets.tinyshift import Meta, build, fingerprint, tinyshift
from ..metrics import evenly_spaced, krcc, plcc, srcc
from ..models import quality as models
from ..models.quality import data_folder, load_source_model
from ..store import cache_folder, code_hash, whole_file
from . import baselines, methods, published
from .baselines import Stream
from .grids import Grid
from .methods import METHODS, SOURCES, Method


def load_target(name: str, images: int | None = None) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images (N, 3, H, W), quality (N,), contents (N,) of a target, or an even selection of them."""
    if name == "source/test-large":  # more crops of source/test's contents, for cells of a thousand images
        pixels, quality, meta = large_source_test()
    else:
        pixels, quality, meta = tinyshift(name)
    if images is None or images >= len(pixels):
        return pixels, quality, meta.content
    rows = evenly_spaced(len(pixels), images)
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
    decide = (
        adapt,
        baselines,
        normalisation,
        stateless,
        moments,
        rules,
        gate,
        state,
        loop,
        losses,
        methods,
        models,
        published,
        views,
    )
    code = code_hash(*decide, sys.modules[__name__])
    digest = hashlib.sha256(json.dumps([asdict(grid), fingerprint(), code]).encode())
    for seed in sorted({s % SOURCES for s in grid.seeds}):
        digest.update((data_folder() / "models" / f"source-{seed}.safetensors").read_bytes())
    return digest.hexdigest()[:16]


def run_grid(grid: Grid, processes: int | None = None, progress: bool = True) -> dict:
    """Run what is not yet done, `processes` runs at a time, each on one thread; then gather.

    Returns:
        A dictionary of "about" (the configuration), "truth" (by target, "quality" and "content" of its images) and "runs" (a
        sorted list of dictionaries with "method", "target", "seed", "batch_size", "srcc", "plcc", "krcc" and, where the grid
        keeps them, "scores"). It does not depend on interruptions and processes.
    """
    folder = cache_folder() / grid.name / results_key(grid)
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
                    with whole_file(files[jobs[job]]) as partial:
                        partial.write_text(json.dumps(job.result()))
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
                **({"scores": scores} if grid.keep_scores else {}),
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
    own = {key: value for key, value in vars(scorer).items() if key not in ("model", "adapter")}
    if not isinstance(adapter, Adapter):
        return about | own
    inference, optimisation = adapter.recipe.inference, adapter.recipe.optimisation
    own = {key: value if isinstance(value, (int, str, type(None))) else repr(value) for key, value in own.items()}
    learning = {"losses": [repr(loss) for loss in adapter.recipe.losses], "steps": 0}
    if optimisation:
        learning |= {
            "steps": optimisation.steps,
            "lr": optimisation.lr,
            "grad_through_statistics": optimisation.grad_through_statistics,
            "sam_rho": optimisation.sam_rho,
        }
    return (
        about
        | ({} if scorer is adapter else own)
        | learning
        | {"statistics": repr(inference.statistics), "views": inference.views, "gate": repr(inference.gate)}
    )


def _library_version() -> str:
    from .. import __version__

    return __version__


def settings_commit() -> str | None:
    """The last commit that touched the settings (methods, recipe, targets), marked if they have changed since."""
    library = Path(__file__).parents[1]
    files = [str(library / room) for room in ("imaging", "datasets", "adaptation", "models", "experiments")]
    git = ["git", "-C", str(library)]
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
