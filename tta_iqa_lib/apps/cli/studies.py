"""Commands that renew what the book shows: `demo`, `experiment`, `bench`, `opinions`, `manifest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .output import report

Processes = Annotated[int | None, typer.Option(help="Runs at a time; default: one a core.", min=1)]

# Settings of the book's opinions.json; others are named in the file, the architecture without a word before it.
BOOK = {"": "small", "images": 128, "seeds": 3, "epochs": 16}


@app.command()
def demo(processes: Processes = None) -> None:
    """A short form of the headline experiment: SRCC on every target of TinyShift, in a minute or two."""
    from ...experiments.analysis import table
    from ...experiments.grids import GRIDS
    from ...experiments.runner import run_grid

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
    from ...experiments.analysis import summarise, table, write_results
    from ...experiments.grids import GRIDS
    from ...experiments.runner import run_grid
    from ...models.quality import data_folder

    if not names:
        for name, grid in GRIDS.items():
            print(f"{name:24s}{len(grid.runs()):5d} runs: {len(grid.methods)} methods × {len(grid.targets)} targets")
        return
    unknown = [name for name in names if name not in GRIDS]
    if unknown:
        report(f"no experiment '{unknown[0]}'; there are {', '.join(GRIDS)}")
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
def bench(
    networks: Annotated[
        list[str] | None, typer.Argument(help="small, resnet18, resnet50, tf_efficientnet_lite0; default: all.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Images; may be given several times; default: 8 and 32.")
    ] = None,
    thread: Annotated[list[int] | None, typer.Option(help="CPU threads, likewise; default: 1 and 2.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Likewise; default: all.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Turns; the best counts.", min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="The file; default: data/results/bench-DEVICE.json.")] = None,
) -> None:
    """What adapting costs on this machine, as ratios to a plain forward pass, to the least possible, to the published way."""
    from ...experiments.analysis import write_results
    from ...experiments.bench import NETWORKS, RECIPES, run_bench, settings_of, table
    from ...models.quality import data_folder

    for names, known in ((networks, NETWORKS), (recipe, RECIPES)):
        unknown = [name for name in names or () if name not in known]
        if unknown:
            report(f"no '{unknown[0]}'; there are {', '.join(known)}")
            raise typer.Exit(2)
    settings = settings_of(networks or NETWORKS, batch or (8, 32), device, thread or (1, 2), recipe or RECIPES)
    results = run_bench(settings, repeats)
    file = out or data_folder() / "results" / f"bench-{device}.json"
    write_results(results, file)
    print(f"{table(results)}\nwritten: {file}")


@app.command()
def opinions(
    folder: Annotated[Path, typer.Argument(help="BIQ2021 in its official layout.")],
    images: Annotated[int, typer.Option(help="Of each subset that is left out.", min=32)] = BOOK["images"],
    seeds: Annotated[int, typer.Option(help="So many source models are trained for each direction.", min=1)] = BOOK[
        "seeds"
    ],
    architecture: Annotated[str, typer.Option(help='"small", or the name of a torchvision ResNet.')] = BOOK[""],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.", min=1)] = BOOK["epochs"],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: data/results.")] = None,
) -> None:
    """Train on two subsets of BIQ2021, test on the third, all three ways; store opinions.json. Resumes where it stopped.

    Settings other than the defaults are named in the file: opinions-resnet18-seeds1.json.
    Images and trained models stay on this machine, in the cache folder.
    """
    from ...experiments.analysis import write_results
    from ...experiments.transfer import evaluate
    from ...models.quality import data_folder

    try:
        results = evaluate(folder, images, range(seeds), architecture, epochs)
    except ValueError as error:  # no such database, no such architecture
        report(str(error))
        raise typer.Exit(2) from None
    settings = {"": architecture, "images": images, "seeds": seeds, "epochs": epochs}
    name = "-".join(["opinions", *(f"{key}{value}" for key, value in settings.items() if value != BOOK[key])])
    file = (out or data_folder() / "results") / f"{name}.json"
    write_results(results, file)
    for run in results["runs"]:
        print(f"{run['target']:16s}{run['method']:14s}{run['seed']:2d}{run['batch_size']:4d}  SRCC {run['srcc']:.3f}")
    print(f"written: {file}")


@app.command()
def manifest() -> None:
    """Write data/tinyshift.json: the benchmark's parameters, the source's scores, and each target's ceiling."""
    from ...models.quality import data_folder
    from ...models.training import write_manifest

    write_manifest(data_folder() / "tinyshift.json")
