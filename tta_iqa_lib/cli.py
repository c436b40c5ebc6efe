"""The command line: `tta-iqa score`, `evaluate`, `demo`, `experiment`, `opinions`, `train` (chapter 11).

Results go to stdout, progress and complaints to stderr. Exit status: 0 all scored, 1 some, 2 none or bad usage.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

app = typer.Typer(help="Blind image quality with test-time adaptation.", no_args_is_help=True, add_completion=False)


def _complain(message: str) -> None:
    print(f"tta-iqa: {message}", file=sys.stderr)


@app.callback()
def main(threads: Annotated[int | None, typer.Option(help="CPU threads for PyTorch.", min=1)] = None) -> None:
    if threads:
        torch.set_num_threads(threads)


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched recursively.")],
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt to the images before scoring them.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write path, score and source score here as well.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model file that `tta-iqa train` wrote; default: the shipped one.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images that are adapted to together.", min=1)] = 32,
    crops: Annotated[int, typer.Option(help="Crops per image: 1, 4, 9, 16 …")] = 4,
    seed: Annotated[int, typer.Option(help="Draws the batches and the distorted copies.")] = 0,
) -> None:
    """Score images: one line each, score and path, higher is better.

    Images are cut into crops at their native resolution; an image's score is the mean over its crops and
    over the symmetric views that the model declares. With --adapt
    the scores depend on the images that are scored together.
    """
    from .images import ImageError, list_images
    from .models import load_source_model
    from .scoring import score_files

    try:
        network = load_source_model(model or 0)
        files = list_images(paths)
        if not files:
            raise ImageError(f"no images in {', '.join(map(str, paths))}")
        _check_options(crops, csv_file)
    except (OSError, ValueError) as error:
        _complain(str(error))
        raise typer.Exit(2) from None
    _complain(f"the model predicts {network.predicts}")
    rows, failed = [], 0
    bar = tqdm(total=len(files), desc="images", file=sys.stderr)
    for batch in score_files(network, files, adapt, batch_size, crops, seed):
        for row in batch:
            if row.error:
                failed += 1
                bar.write(f"tta-iqa: {row.error}", file=sys.stderr)
            else:
                rows.append(row)
            bar.update()
    bar.close()
    rows.sort(key=lambda row: files.index(row.path))
    for row in rows:
        print(f"{row.score:.4f}\t{row.path}")
    if csv_file:
        _write_csv(
            csv_file, ["path", "score", "source_score"], ((row.path, row.score, row.source_score) for row in rows)
        )
    if failed:
        _complain(f"{failed} of {len(files)} files could not be scored")
        raise typer.Exit(1 if rows else 2)


@app.command()
def evaluate(
    database: Annotated[
        Path, typer.Argument(help="A folder in an official layout, or a table (.csv) of paths and opinions.")
    ],
    path_column: Annotated[str, typer.Option(help="Of a table: the column of image paths.")] = "path",
    score_column: Annotated[str, typer.Option(help="Of a table: the column of opinions.")] = "score",
    images: Annotated[
        Path | None, typer.Option(help="Of a table: what its paths are relative to; default: its folder.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Of a table: the opinions are differences (DMOS).")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="So many images, evenly drawn; default: all.", min=8)] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write path, opinion, score and source score here.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model file that `tta-iqa train` wrote; default: the shipped one.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images that are adapted to together.", min=1)] = 32,
    crops: Annotated[int, typer.Option(help="Crops per image: 1, 4, 9, 16 …")] = 4,
    seed: Annotated[int, typer.Option(help="Draws the batches.")] = 0,
) -> None:
    """Compare a model with human opinions, as it is and adapted: SRCC, PLCC and KRCC with 95 % intervals by content.

    Known layouts: BIQ2021, KonIQ-10k, KADID-10k, TID2013, LIVE In the Wild. An interrupted run goes on where it stopped.
    """
    import numpy as np

    from .databases import from_csv, read
    from .evaluation import compare, find_contents, score_database
    from .models import load_source_model

    try:
        network = load_source_model(model or 0)
        _check_options(crops, csv_file)
        if database.suffix.lower() == ".csv":
            found = from_csv(database, path_column, score_column, images, not lower_is_better)
        else:
            found = read(database)
    except (OSError, ValueError) as error:
        _complain(str(error))
        raise typer.Exit(2) from None
    if limit and limit < len(found):
        found = found.select(np.linspace(0, len(found) - 1, limit).round().astype(int))
    _complain(f"{found.name}: {len(found)} images; the model predicts {network.predicts}")
    rows, batches, adapted = {}, 0, 0
    with tqdm(total=len(found), desc="images", file=sys.stderr) as bar:
        for batch in score_database(network, found, batch_size, crops, seed):
            rows |= {row.path: row for row in batch}
            batches += 1
            adapted += any(not row.error and row.score != row.source_score for row in batch)
            bar.update(len(batch))
    failed = [row for row in rows.values() if row.error]
    for row in failed:
        _complain(row.error)
    found = found.select(np.array([not rows[path].error for path in found.paths]))
    if len(found) < 8:
        _complain(f"only {len(found)} images could be read: too few to compare")
        raise typer.Exit(2)
    new, old = ([getattr(rows[path], key) for path in found.paths] for key in ("score", "source_score"))
    contents = find_contents(found)
    print(f"{found.name}: {len(found)} images, {len(set(contents.tolist()))} contents, batches of {batch_size}")
    print(f"Adapted: {adapted} of {batches} batches; the gate left the others to the source model.\n")
    print(f"{'':6s}{'source model':24s}{'adapted':24s}difference")
    for name, (before, after, change) in compare(new, old, found.scores, contents).items():
        print(f"{name:6s}{before!s:24s}{after!s:24s}{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]")
    if csv_file:
        _write_csv(
            csv_file,
            ["path", "opinion", "score", "source_score"],
            zip(found.paths, found.scores, new, old, strict=True),
        )
    if failed:
        _complain(f"{len(failed)} of {len(rows)} images could not be read, and are left out")
        raise typer.Exit(1)


def _check_options(crops: int, csv_file: Path | None) -> None:
    """Raises: ValueError, FileNotFoundError."""
    if crops < 1 or round(crops**0.5) ** 2 != crops:
        raise ValueError(f"--crops must be a square number (1, 4, 9, …); got {crops}")
    if csv_file and not csv_file.absolute().parent.is_dir():
        raise FileNotFoundError(f"no such folder: '{csv_file.absolute().parent}'")


def _write_csv(path: Path, header: list[str], rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([first, *(f"{number:.6f}" for number in numbers)] for first, *numbers in rows)


Processes = Annotated[int | None, typer.Option(help="Runs at a time; default: one a core.", min=1)]


@app.command()
def demo(processes: Processes = None) -> None:
    """A short form of the headline experiment: SRCC on every target of TinyShift, in a minute or two."""
    from .analysis import table
    from .experiments import GRIDS, run_grid

    grid = GRIDS["demo"]
    results = run_grid(grid, processes)
    print(
        f"SRCC with computed quality; {grid.images} images a target, batches of {grid.batch_sizes[0]}, one source model:\n"
    )
    print(table(results, grid.batch_sizes[0]))


@app.command()
def experiment(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which; several are run in turn. Without a name: list them.")
    ] = None,
    processes: Processes = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: data/results.")] = None,
) -> None:
    """Run experiments in full and store NAME.json. Interrupt it and start it again as you like: what is done is kept."""
    from .analysis import summarise, table, write_results
    from .experiments import GRIDS, run_grid
    from .models import data_folder

    if not names:
        for name, grid in GRIDS.items():
            print(f"{name:24s}{len(grid.runs()):5d} runs: {len(grid.methods)} methods × {len(grid.targets)} targets")
        return
    unknown = [name for name in names if name not in GRIDS]
    if unknown:
        _complain(f"no experiment '{unknown[0]}'; there are {', '.join(GRIDS)}")
        raise typer.Exit(2)
    for name in names:
        results = run_grid(GRIDS[name], processes)
        if GRIDS[name].keep_scores:
            results["summary"] = summarise(results, ("source", "recipe"))
        file = (out or data_folder() / "results") / f"{name}.json"
        write_results(results, file)
        for size in GRIDS[name].batch_sizes:
            print(
                f"{name}: SRCC, mean over {len(GRIDS[name].seeds)} seeds, batches of {size}:\n\n{table(results, size)}\n"
            )
        print(f"written: {file}")


@app.command()
def opinions(
    folder: Annotated[Path, typer.Argument(help="BIQ2021 in its official layout.")],
    images: Annotated[int, typer.Option(help="Of each subset that is left out.", min=32)] = 128,
    seeds: Annotated[int, typer.Option(help="So many source models are trained for each direction.", min=1)] = 3,
    architecture: Annotated[str, typer.Option(help='"small", or the name of a torchvision ResNet.')] = "small",
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: data/results.")] = None,
) -> None:
    """Train on two subsets of BIQ2021, test on the third, all three ways; store opinions.json. Resumes where it stopped.

    Another architecture than the small one stores opinions-ARCHITECTURE.json.
    Images and trained models stay on this machine, in the cache folder.
    """
    from .analysis import write_results
    from .models import data_folder
    from .opinions import evaluate

    try:
        results = evaluate(folder, images, range(seeds), architecture)
    except ValueError as error:  # no such database, no such architecture
        _complain(str(error))
        raise typer.Exit(2) from None
    name = "opinions" if architecture == "small" else f"opinions-{architecture}"
    file = (out or data_folder() / "results") / f"{name}.json"
    write_results(results, file)
    for run in results["runs"]:
        print(f"{run['target']:16s}{run['method']:14s}{run['seed']:2d}{run['batch_size']:4d}  SRCC {run['srcc']:.3f}")
    print(f"written: {file}")


@app.command()
def train(
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="May be given several times; default: 0.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the source's training split.", min=1)] = 16,
    out: Annotated[Path | None, typer.Option(help="Folder; default: data/models.")] = None,
) -> None:
    """Train a source model on TinyShift's source split and write it as source-SEED.safetensors."""
    from .models import data_folder, save_model
    from .training import train_source

    for seed in seeds or [0]:
        model, about = train_source(seed, epochs)
        file = (out or data_folder() / "models") / f"source-{seed}.safetensors"
        save_model(model, file, about)
        print(f"{file}: SRCC {about['srcc_source_test']:.3f} on source/test")


@app.command()
def manifest() -> None:
    """Write data/tinyshift.json: the benchmark's parameters, the source's scores, and each target's ceiling."""
    from .models import data_folder
    from .training import write_manifest

    write_manifest(data_folder() / "tinyshift.json")
