"""Commands for the evidence on people's opinions: `pack`, `opinions`, `order-study`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .options import Processes
from .output import kept, report

PARTS = '"NAME=PATH", once for each database: a folder in an official layout, or a table (.csv).'


def _named(parts: Sequence[str]) -> dict[str, str]:
    """NAME=PATH, … → {name: path}.

    Raises:
        ValueError: one is not, or a name comes twice.
    """
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    if len(named) < len(parts):
        raise ValueError("databases are given as NAME=PATH, each name once")
    return named


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="Where to put it.")],
    part: Annotated[
        list[str],
        typer.Option(help=PARTS),
    ],
) -> None:
    """Put databases into one small folder: squares of 256 pixels (WebP), opinions, contents. `opinions` runs on it.

    That experiment wants the parts live (LIVE In the Wild), biq2021 and agiqa (AGIQA-3K).
    """
    from ...experiments.opinions.pack import make_pack, read_part

    try:
        found = make_pack({name: read_part(path) for name, path in _named(part).items()}, folder)
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
    with kept():
        check_folder(file.parent)
        try:
            results = run_study(place, processes or (1 if device != "cpu" else os.cpu_count() or 1), role, grid=grid)
        except ValueError as error:
            report(str(error))
            raise typer.Exit(2) from None
        results["summary"] = summarise(results)
        write_results(results, file)
    for size in dict.fromkeys(run["batch_size"] for run in results["runs"]):
        print(f"batches of {size}\n\n{text_table(results, size)}\n")
    print(f"written: {file}")


@app.command("order-study")
def order_study(
    part: Annotated[
        list[str],
        typer.Argument(help=PARTS),
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
        databases = {name: read_part(path) for name, path in _named(part).items()}
        model = load_source_model("photographs").to(memory_format=torch.channels_last)  # by a third faster
        results = run_study(model, databases, Batches(size, batches))
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    file = out or data_folder() / "results" / "order-check.json"
    write_results(results, file)
    print(f"{text_table(results)}\nwritten: {file}")
