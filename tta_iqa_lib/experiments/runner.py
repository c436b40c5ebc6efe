"""A grid of runs → one tidy, resumable results file.

A run is one method on one target, for one seed and one batch size; the seed is a number from which `Seeds` are derived. Every
run is written when it is done; after an interruption the rest is computed and the results are the same. Numbers in the book
come from the results file alone.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..adaptation.adapter import Adapter
from ..datasets import tinyshift as benchmark
from ..datasets.tinyshift import fingerprint, tinyshift
from ..metrics import krcc, plcc, srcc
from ..models.saving import load_source_model
from ..store import Store
from .grids import Grid
from .methods import METHODS, SOURCES, Method
from .runs import load_target, run_one
from .seeds import Seeds


def runs_store(grid: Grid) -> Store:
    """Where the runs of a grid are kept. Grids that take the same images in the same order share what they have in common."""
    return Store(
        "runs",
        depends_on=["experiments.runs"],
        benchmark=fingerprint(),
        sources=[load_source_model(source) for source in range(SOURCES)],
        images=grid.images,
        order=grid.order,
        online=grid.online,
    )


def run_grid(grid: Grid, processes: int | None = None, progress: bool = True) -> dict:
    """Run what is not yet done, `processes` runs at a time, each on one thread; then gather.

    Returns:
        A dictionary of "about" (the configuration), "truth" (by target, "quality" and "content" of its images) and "runs" (a
        sorted list of dictionaries with "method", "target", "seed", "batch_size", "srcc", "plcc", "krcc" and, where the grid
        keeps them, "scores"). It does not depend on interruptions and processes.
    """
    store = runs_store(grid)
    names, settings, scores = {}, {}, {}
    for run in grid.runs():
        method, target, number, batch_size = run
        seeds = Seeds.of_run(number, grid.vary)
        settings[run] = method, target, seeds, batch_size, grid.images, grid.order, grid.online
        names[run] = f"{method} {target} {seeds.source}-{seeds.order}-{seeds.copies} {batch_size}.json"
        scores[run] = store.find(names[run])
    open_runs = [run for run, found in scores.items() if found is None]
    if open_runs:
        for target in tqdm(sorted(grid.targets), desc="benchmark", disable=not progress):
            load_target(target)
        if "ttt" in grid.methods:
            tinyshift("source/train")
        workers = processes or min(len(open_runs), os.cpu_count() or 1)
        arguments = {run: settings[run] for run in open_runs}
        done = side_by_side(run_one, arguments, workers)
        bar = tqdm(done, total=len(names), initial=len(names) - len(open_runs), desc="runs", disable=not progress)
        for run, found in bar:
            scores[run] = store.put(names[run], found)
    truth, runs = {}, []
    for target in grid.targets:
        _, quality, content = load_target(target, grid.images)
        truth[target] = {"quality": [round(float(q), 5) for q in quality], "content": content.tolist()}
    for method, target, seed, batch_size in grid.runs()[::-1]:
        found = scores[method, target, seed, batch_size]
        quality = truth[target]["quality"]
        metrics = {m.__name__: round(m(found, quality), 4) for m in (srcc, plcc, krcc)}
        runs.append(
            {
                "method": method,
                "target": target,
                "seed": seed,
                "batch_size": batch_size,
                **metrics,
                **({"scores": found} if grid.keep_scores else {}),
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


def side_by_side(
    function: Callable, arguments: Mapping[Any, Sequence], processes: int
) -> Generator[tuple[Any, Any], None, None]:
    """(job, `function(*arguments[job])`) of each job as it ends, so many at a time, each in a process of one CPU thread.

    Where the caller stops, or is interrupted, those that have not begun are not begun.
    """
    context = multiprocessing.get_context("spawn")  # fresh interpreters: a forked copy of PyTorch's threads can hang
    with ProcessPoolExecutor(processes, context, initializer=start_worker) as pool:
        jobs = {pool.submit(function, *given): job for job, given in arguments.items()}
        try:
            for done in as_completed(jobs):
                yield jobs[done], done.result()
        finally:
            for waiting in jobs:
                waiting.cancel()


def start_worker() -> None:
    """One thread for the work; and a worker ends with the process that started it, however that came about."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


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
