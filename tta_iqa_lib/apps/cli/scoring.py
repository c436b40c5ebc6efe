"""Scoring the user's own images: `score`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

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
from .output import Printing, check_outputs, finish, report

Out = Annotated[Path | None, typer.Option("--out", "--csv", help="Write a table as well: .csv, .jsonl or .parquet.")]
Sheet = Annotated[
    Path | None,
    typer.Option(help="Write a page (.html): histogram, best and worst pictures, those that adapting moved most."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON Lines on standard output, with all that the table has.")]


@app.command()
def score(
    paths: Images,
    adapt: Adapt = False,
    method: Method = None,
    out: Out = None,
    sheet: Sheet = None,
    as_json: Json = False,
    model: ModelName = DEFAULT_MODEL,
    weights: Weights = None,
    batch_size: BatchSize = 32,
    crops: Crops = 4,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    workers: Readers = 2,
    path_column: PathColumn = "path",
) -> None:
    """Score images: one line each, score and path, in the order of the images, as soon as it is known.

    Images are cut into crops at their native resolution; an image's score is the mean over its crops and
    over the symmetric views that the model declares. With `--adapt`
    the scores depend on the images that are scored together; batches are drawn from all of them, so that the first lines may
    wait for the last batch. Whose scores a batch was given, and why, stands in the table.

    With `--out` an interrupted run goes on where it stopped: give the same command again. Until the table is whole, finished
    batches are kept beside it, in NAME.journal.
    """
    import torch

    from ..results import Results
    from ..resuming import journal_beside, score_open
    from ..scorers import ScoringError
    from ..scoring import cut_batches

    try:
        check_outputs(out, sheet)
        settings = settings_of(
            adapt, method, weights, model=model, batch_size=batch_size, crops=crops, seed=seed, device=device,
            precision=precision, threads=torch.get_num_threads(),
        )  # fmt: skip
        files = images_of(paths, path_column)
        scorer = settings.scorer()
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    about = f"the model predicts {scorer.model.predicts}"
    if not scorer.model.higher_is_better:
        about += "; lower is better"
    for line in filter(None, (about, scorer.note)):
        report(line)
    journal = journal_beside(out, settings, scorer, files)
    batches = cut_batches(len(files), batch_size, scorer, seed)
    if journal and journal.done:
        report(f"going on from '{journal.path}': {len(journal.done)} of {len(batches)} batches are done")
    results, printing = Results(len(files)), Printing(as_json)
    try:
        with tqdm(total=len(files), desc="images", file=sys.stderr) as bar:
            for number, rows in score_open(scorer, [[files[i] for i in batch] for batch in batches], journal, workers):
                for row in rows:
                    if row.error:
                        bar.write(f"tta-iqa: {row.error}", file=sys.stderr)
                bar.update(len(rows))
                printing(results.add(batches[number], rows))
                if printing.ended and not (out or sheet):
                    raise typer.Exit(printing.status)
    except ScoringError as error:
        report(str(error))
        raise typer.Exit(2) from None
    notes = [about]
    if settings.method:
        notes.append(f"{settings.method}: {results.summary()}")
        report(notes[1])
    finish(results, out, sheet, notes, scorer.model.higher_is_better, printing.status, journal)
