"""Commands on the user's own images: `score`, `evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..tables import check_table
from .app import DATABASE, ImageFolder, LowerIsBetter, PathColumn, ScoreColumn, app
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
from .output import Printing, check_outputs, finish, print_lines, report, save

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

    from ..journals import journal_beside, score_open
    from ..results import Results
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
    report(about)
    journal = journal_beside(out, settings, scorer, files)
    batches = cut_batches(len(files), batch_size, scorer, seed)
    if journal and journal.done:
        report(f"going on from '{journal.path}': {len(journal.done)} of {len(batches)} batches are done")
    results, printing = Results(len(files)), Printing(as_json)
    with tqdm(total=len(files), desc="images", file=sys.stderr) as bar:
        for number, rows in score_open(scorer, [[files[i] for i in batch] for batch in batches], journal, workers):
            for row in rows:
                if row.error:
                    bar.write(f"tta-iqa: {row.error}", file=sys.stderr)
            bar.update(len(rows))
            printing(results.add(batches[number], rows))
            if printing.ended and not (out or sheet):
                raise typer.Exit(printing.status)
    notes = [about]
    if settings.method:
        notes.append(f"{settings.method}: {results.summary()}")
        report(notes[1])
    finish(results, out, sheet, notes, scorer.model.higher_is_better, printing.status, journal and journal.path)


@app.command()
def evaluate(
    database: Annotated[Path, typer.Argument(help=DATABASE)],
    path_column: PathColumn = "path",
    score_column: ScoreColumn = "score",
    images: ImageFolder = None,
    lower_is_better: LowerIsBetter = False,
    limit: Annotated[int | None, typer.Option(help="So many images, evenly drawn; default: all.", min=8)] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write path, opinion, score and source score here.")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    weights: Weights = None,
    batch_size: BatchSize = 32,
    crops: Crops = 4,
    seed: Seed = 0,
) -> None:
    """Compare a model with human opinions, as it is and adapted: SRCC, PLCC and KRCC with 95 % intervals by content.

    `tta-iqa databases` lists the known layouts. An interrupted run goes on where it stopped.
    """
    import numpy as np

    from ...datasets.databases import read
    from ...datasets.near_duplicates import find_contents
    from ...imaging.crops import square_side
    from ...metrics import evenly_spaced
    from ..evaluation import compare, score_database
    from ..loading import load_model

    try:
        network = load_model(model, weights)
        square_side(crops)
        if csv_file:
            check_table(csv_file)
        table = {"path_column": path_column, "score_column": score_column, "folder": images}
        found = read(database, **table, higher_is_better=not lower_is_better)
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    if limit and limit < len(found):
        found = found.select(evenly_spaced(len(found), limit))
    report(f"{found.name}: {len(found)} images; the model predicts {network.predicts}")
    rows, batches, adapted = {}, 0, 0
    with tqdm(total=len(found), desc="images", file=sys.stderr) as bar:
        for batch in score_database(network, found, batch_size, crops, seed):
            rows |= {row.path: row for row in batch}
            batches += 1
            adapted += any(not row.error and row.score != row.source_score for row in batch)
            bar.update(len(batch))
    failed = [row for row in rows.values() if row.error]
    for row in failed:
        report(row.error)
    found = found.select(np.array([not rows[path].error for path in found.paths]))
    if len(found) < 8:
        report(f"only {len(found)} images could be read: too few to compare")
        raise typer.Exit(2)
    new, old = ([getattr(rows[path], key) for path in found.paths] for key in ("score", "source_score"))
    contents = find_contents(found)
    header = ["path", "opinion", "score", "source_score"]
    saved = save(csv_file, header, zip(found.paths, found.scores, new, old, strict=True))
    left = "; the gate left the others to the source model" if adapted < batches else ""
    lines = [
        f"{found.name}: {len(found)} images, {len(set(contents.tolist()))} contents, batches of {batch_size}",
        f"Adapted: {adapted} of {batches} batches{left}.\n",
        f"{'':6s}{'source model':24s}{'adapted':24s}difference",
    ]
    for name, (before, after, change) in compare(new, old, found.scores, contents).items():
        lines.append(f"{name:6s}{before!s:24s}{after!s:24s}{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]")
    print_lines(lines)
    if not saved:
        raise typer.Exit(2)
    if failed:
        report(f"{len(failed)} of {len(rows)} images could not be read, and are left out")
        raise typer.Exit(1)
