"""Commands that renew what the book shows of the small world: `demo`, `experiment`, `bench`, `endurance`, `manifest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .options import Processes
from .output import kept, report


@app.command()
def demo(processes: Processes = None) -> None:
    """Both worlds in two minutes: the small one's experiment in short, and the model of people's opinions in haze."""
    from ...experiments import haze
    from ...experiments.analysis import table
    from ...experiments.grids import GRIDS
    from ...experiments.runner import run_grid
    from ...models.saving import load_source_model

    grid = GRIDS["demo"]
    with kept():
        results = run_grid(grid, processes)
    print(
        f"SRCC with computed quality; {grid.images} images a target, batches of {grid.batch_sizes[0]}, one source model:\n"
    )
    print(table(results, grid.batch_sizes[0]))
    print(
        "\nThe model of people's opinions on bundled photographs, each sharp and made worse, in thin to thick haze:\n"
        "SRCC with its own scores in clear air. A look at what adapting does; the evidence is in chapter 9.\n"
    )
    print(haze.table(haze.in_haze(load_source_model("photographs"))))


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
    from ...models.saving import data_folder
    from ...store import check_folder

    if not names:
        for name, grid in GRIDS.items():
            print(f"{name:24s}{len(grid.runs()):5d} runs: {len(grid.methods)} methods × {len(grid.targets)} targets")
        return
    unknown = [name for name in names if name not in GRIDS]
    if unknown:
        report(f"no experiment '{unknown[0]}'; there are {', '.join(GRIDS)}")
        raise typer.Exit(2)
    for name in names:
        with kept():
            file = (out or data_folder() / "results") / f"{name}.json"
            check_folder(file.parent)
            results = run_grid(GRIDS[name], processes)
            if GRIDS[name].keep_scores:
                results["summary"] = summarise(results, ("source", "recipe"))
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
    precision: Annotated[list[str] | None, typer.Option(help="float32 or bfloat16, likewise; default: both.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Turns; the best counts.", min=1)] = 3,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what an earlier run has measured.")] = False,
    out: Annotated[Path | None, typer.Option(help="The file; default: data/results/bench-DEVICE.json.")] = None,
) -> None:
    """What adapting costs on this machine, as ratios to a plain forward pass, to the least possible, to the published way."""
    from ...experiments.analysis import write_results
    from ...experiments.bench import run_bench, settings_of, table
    from ...experiments.contestants import NETWORKS, RECIPES
    from ...experiments.on_gpu import on_gpu
    from ...models.saving import data_folder
    from ...store import check_folder

    for names, known in ((networks, NETWORKS), (recipe, RECIPES), (precision, ("float32", "bfloat16"))):
        unknown = [name for name in names or () if name not in known]
        if unknown:
            report(f"no '{unknown[0]}'; there are {', '.join(known)}")
            raise typer.Exit(2)
    settings = settings_of(
        networks or NETWORKS,
        batch or (8, 32),
        device,
        thread or (1, 2),
        recipe or RECIPES,
        precision or ("float32", "bfloat16"),
    )
    file = out or data_folder() / "results" / f"bench-{device}.json"
    with kept():
        check_folder(file.parent)
        results = run_bench(settings, repeats, fresh)
        if device == "cuda":
            results |= on_gpu(networks or NETWORKS)
        write_results(results, file)
    print(f"{table(results)}\nwritten: {file}")


@app.command()
def endurance(
    images: Annotated[int, typer.Option(help="In all settings together.", min=36)] = 100_000,
    out: Annotated[Path | None, typer.Option(help="The file; default: data/results/endurance.json.")] = None,
) -> None:
    """Does an adapter last? Long streams of small images in the six settings of the field; minutes on one core."""
    from ...experiments.analysis import write_results
    from ...experiments.endurance import run_endurance, table
    from ...models.saving import data_folder

    results = run_endurance(images)
    file = out or data_folder() / "results" / "endurance.json"
    write_results(results, file)
    print(
        f"The stretch of each setting that comes off worst; * beyond {results['about']['margin']} below the source:\n"
    )
    print(f"{table(results)}\n\nwritten: {file}")


@app.command()
def manifest() -> None:
    """Write data/tinyshift.json: the benchmark's parameters, the source's scores, and each target's ceiling."""
    from ...models.saving import data_folder
    from ...models.training import write_manifest

    write_manifest(data_folder() / "tinyshift.json")
