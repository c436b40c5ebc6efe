"""Commands that spread scoring over processes and machines: `plan`, `shard`, `merge`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..tables import check_table
from .app import PathColumn, app
from .options import (
    DEFAULT_MODEL,
    Adapt,
    BatchSize,
    Crops,
    Device,
    Images,
    Method,
    ModelName,
    Precision,
    Readers,
    Seed,
    Weights,
    images_of,
    settings_of,
)
from .output import finish, report

PlanFile = Annotated[Path, typer.Argument(help="What `tta-iqa plan` wrote.")]


@app.command()
def plan(
    paths: Images,
    out: Annotated[Path, typer.Option(help="The plan, a file of JSON lines.")],
    adapt: Adapt = False,
    method: Method = None,
    model: ModelName = DEFAULT_MODEL,
    weights: Weights = None,
    batch_size: BatchSize = 32,
    crops: Crops = 4,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    path_column: PathColumn = "path",
) -> None:
    """Cut images into batches once, so that many processes can score them and get what one would get.

    Whose batch an image is in changes its score; so the plan holds the batches, and what each image, the model and the settings
    were. Then `tta-iqa shard`, once or many times, and `tta-iqa merge`.
    """
    from ..plans import write_plan

    try:
        check_table(out, frozenset({".jsonl", ".plan", ".json"}))
        settings = settings_of(
            adapt, method, weights, model=model, batch_size=batch_size, crops=crops, seed=seed, device=device,
            precision=precision, threads=1,
        )  # fmt: skip
        made = write_plan(out, images_of(paths, path_column), settings)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    print(f"{out}: {made.images} images in {made.batches} batches")


@app.command()
def shard(
    file: PlanFile,
    part: Annotated[
        str | None,
        typer.Option(help="INDEX/COUNT, from 0/COUNT on; default: what torchrun, srun or a Slurm array say, else all."),
    ] = None,
    ray: Annotated[
        int | None,
        typer.Option(help="All that is open, by so many actors of Ray Data, which comes with the extra `ray`.", min=1),
    ] = None,
    workers: Readers = 2,
) -> None:
    """Score a part of a plan, on one thread. Start it again after an interruption, and it goes on; parts may be cut anew.

    Finished batches are kept in the folder PLAN.parts beside the plan, which all processes must see.

        tta-iqa shard plan.jsonl --part 0/2
        torchrun --no-python --nproc-per-node 8 tta-iqa shard plan.jsonl
        srun --ntasks 8 tta-iqa shard plan.jsonl
        tta-iqa shard plan.jsonl --ray 16

    In a Slurm array each task takes its own part.
    """
    from ..clusters import own_device, own_part, run_on_ray
    from ..parts import open_batches
    from ..plans import Plan
    from ..shards import run_shard

    try:
        found = Plan(file)
        index, count = _part(part) if part else own_part()
        mine = range(found.batches) if ray else range(index, found.batches, count)
        todo = len(open_batches(found, mine))
        report(f"{len(mine)} of {found.batches} batches are this part; {len(mine) - todo} of them are done")
        done = run_on_ray(found, ray) if ray else run_shard(found, index, count, own_device(found), workers)
        failed = 0
        with tqdm(total=todo, desc="batches", file=sys.stderr) as bar:
            for _, rows in done:
                for row in rows:
                    failed += bool(row.error)
                    if row.error:
                        bar.write(f"tta-iqa: {row.error}", file=sys.stderr)
                bar.update()
    except ImportError as error:
        report(f"--ray takes Ray Data: pip install 'ray[data]' ({error})")
        raise typer.Exit(2) from None
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    if failed:
        report(f"{failed} files could not be scored")
        raise typer.Exit(1)


@app.command()
def merge(
    file: PlanFile,
    out: Annotated[Path, typer.Option(help="The table: .csv, .jsonl or .parquet.")],
) -> None:
    """One table of a plan whose parts are done: every image once, in their order. Whoever did them, it is the same."""
    from ..parts import merge as merged
    from ..plans import Plan

    try:
        check_table(out)
        found = Plan(file)
        results = merged(found)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    if found.method:
        report(f"{found.method}: {results.summary()}")
    finish(results, out, None, [], True)


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"--part must be INDEX/COUNT, such as 0/4 … 3/4; got {text!r}")
    return int(match[1]), int(match[2])
