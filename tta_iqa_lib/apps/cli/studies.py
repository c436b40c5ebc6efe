"""Commands that renew what the book shows: `demo`, `experiment`, `bench`, `endurance`, `pack`, `opinions`, `order-study`,
`manifest`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .output import report


@contextmanager
def _kept() -> Iterator[None]:
    """What a machine does to a long run ends it with one line; what is done is in the store."""
    try:
        yield
    except (OSError, ValueError) as error:
        report(f"{error}; what is done is kept")
    except BrokenProcessPool:
        report(
            "a worker was ended from outside, or no memory was left; what is done is kept: start again, with fewer --processes"
        )
    else:
        return
    raise typer.Exit(2)


Processes = Annotated[int | None, typer.Option(help="Runs at a time; default: one a core.", min=1)]


@app.command()
def demo(processes: Processes = None) -> None:
    """Both worlds in two minutes: the small one's experiment in short, and the model of people's opinions in haze."""
    from ...experiments import haze
    from ...experiments.analysis import table
    from ...experiments.grids import GRIDS
    from ...experiments.runner import run_grid
    from ...models.saving import load_source_model

    grid = GRIDS["demo"]
    with _kept():
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
        with _kept():
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
    with _kept():
        check_folder(file.parent)
        results = run_bench(settings, repeats, fresh)
        if device == "cuda":
            results |= on_gpu(networks or NETWORKS)
        write_results(results, file)
    print(f"{table(results)}\nwritten: {file}")


@app.command()
def endurance(
    images: Annotated[int, typer.Option(help="In the stream, all settings together.", min=36)] = 100_000,
    out: Annotated[Path | None, typer.Option(help="The file; default: data/results/endurance.json.")] = None,
) -> None:
    """Does an adapter last? One long stream of small images in the six settings of the field; minutes on one core."""
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
def pack(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")],
    part: Annotated[
        list[str],
        typer.Option(help='"NAME=PATH", once for each database: a folder in an official layout, or a table (.csv).'),
    ],
) -> None:
    """Put databases into one small folder: squares of 256 pixels (WebP), opinions, contents. `opinions` runs on it.

    That experiment wants the parts live (LIVE In the Wild), biq2021 and agiqa (AGIQA-3K).
    """
    from ...experiments.opinions.pack import make_pack, read_part

    try:
        named = dict(one.split("=", 1) for one in part if "=" in one)
        if len(named) < len(part):
            raise ValueError("--part takes NAME=PATH, each name once")
        found = make_pack({name: read_part(path) for name, path in named.items()}, folder)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    print(f"{folder}: {len(found.files)} pictures, {len(set(found.content))} contents")


@app.command()
def opinions(
    pack: Annotated[Path, typer.Argument(help="A folder that `tta-iqa pack` made.")],
    scale: Annotated[
        str, typer.Option(help='"full" or "medium", for a GPU; "reduced": fewer images, 160², one step.')
    ] = "full",
    sources: Annotated[
        Path | None,
        typer.Option(help="Folder of the source models; those that are missing are trained. Default: the cache."),
    ] = None,
    role: Annotated[str | None, typer.Option(help='Only "development" or "test" targets.')] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help='Which methods: what the reduced scale leaves out are "singles", each loss by itself, '
            '"others", rivals, "published", the published loop, and "small-batches", the losses at 8 images.'
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: a GPU if there is one.")] = None,
    processes: Processes = None,
    out: Annotated[Path | None, typer.Option(help="The file; default: data/results/opinions-SCALE.json.")] = None,
) -> None:
    """The experiment on people's opinions: train source models, adapt them to other databases and other light, store it all.

    Interrupt it and start it again as you like: what is done is kept. The pictures and the models stay on this machine.
    """
    import torch

    from ...experiments.analysis import write_results
    from ...experiments.opinions.methods import GRIDS
    from ...experiments.opinions.sources import SCALES
    from ...experiments.opinions.study import Place, run_study
    from ...experiments.opinions.summary import summarise, text_table
    from ...models.saving import data_folder
    from ...store import cache_folder, check_folder

    for value, known in ((scale, list(SCALES)), (role, [None, "development", "test"]), (grid, [None, *GRIDS])):
        if value not in known:
            report(f"no '{value}'; there are {', '.join(filter(None, known))}")
            raise typer.Exit(2)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = Place(str(pack), str(sources or cache_folder() / "opinion-sources"), scale, device)
    file = out or data_folder() / "results" / f"opinions-{'-'.join(filter(None, (scale, grid, role)))}.json"
    with _kept():
        check_folder(file.parent)
        try:
            results = run_study(place, processes or (1 if device != "cpu" else os.cpu_count() or 1), role, grid=grid)
        except ValueError as error:
            report(str(error))
            raise typer.Exit(2) from None
        results["summary"] = summarise(results)
        write_results(results, file)
    print(f"{text_table(results)}\nwritten: {file}")


@app.command("order-study")
def order_study(
    part: Annotated[
        list[str],
        typer.Argument(help='"NAME=PATH", once for each database: a folder in an official layout, or a table (.csv).'),
    ],
    batches: Annotated[int, typer.Option(help="From each database, or each subset of it.", min=1)] = 3,
    size: Annotated[int, typer.Option(help="Pictures in a batch.", min=2)] = 32,
    out: Annotated[Path | None, typer.Option(help="The file; default: data/results/order-check.json.")] = None,
) -> None:
    """Does the check without opinions tell the truth? Hold its verdicts against databases that have opinions.

    Interrupt it and start it again as you like: what is done is kept.
    """
    import torch

    from ...experiments.analysis import write_results
    from ...experiments.opinions.pack import read_part
    from ...experiments.order_study import Batches, run_study, text_table
    from ...models.saving import data_folder, load_source_model

    try:
        named = dict(one.split("=", 1) for one in part if "=" in one)
        if len(named) < len(part):
            raise ValueError("the arguments are NAME=PATH, each name once")
        databases = {name: read_part(path) for name, path in named.items()}
        model = load_source_model("photographs").to(memory_format=torch.channels_last)  # by a third faster
        results = run_study(model, databases, Batches(size, batches))
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    file = out or data_folder() / "results" / "order-check.json"
    write_results(results, file)
    print(f"{text_table(results)}\nwritten: {file}")


@app.command()
def manifest() -> None:
    """Write data/tinyshift.json: the benchmark's parameters, the source's scores, and each target's ceiling."""
    from ...models.saving import data_folder
    from ...models.training import write_manifest

    write_manifest(data_folder() / "tinyshift.json")
