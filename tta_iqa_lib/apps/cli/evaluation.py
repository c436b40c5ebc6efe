"""A model on databases of opinions: `evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from ..tables import check_table
from .app import DATABASE, ImageFolder, LowerIsBetter, PathColumn, ScoreColumn, app
from .options import (
    DEFAULT_MODEL,
    METHOD,
    BatchSize,
    Crops,
    Device,
    ModelName,
    Precision,
    Readers,
    Seed,
    Weights,
    fair,
)
from .output import print_lines, report, save

if TYPE_CHECKING:
    from ...datasets.databases import Database
    from ..results import Results, Row

HEADER = ("database", "method", "path", "opinion", "score", "source_score", "decision", "reason")
FEWEST = 8  # images that can be compared


@app.command()
def evaluate(
    databases: Annotated[list[Path], typer.Argument(help=DATABASE)],
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help=f"{METHOD} May be given several times; default: recipe.", autocompletion=fair),
    ] = None,
    path_column: PathColumn = "path",
    score_column: ScoreColumn = "score",
    images: ImageFolder = None,
    lower_is_better: LowerIsBetter = False,
    limit: Annotated[int | None, typer.Option(help="So many images, evenly drawn; default: all.", min=FEWEST)] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table of all scores and opinions.")] = None,
    model: ModelName = DEFAULT_MODEL,
    weights: Weights = None,
    batch_size: BatchSize = 32,
    crops: Crops = 4,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    workers: Readers = 2,
) -> None:
    """Compare a model with human opinions, as it is and adapted: SRCC, PLCC and KRCC with 95 % intervals by content.

    Each method is compared with the source model, and with its matched control if that is evaluated, too: `--method rank+gc
    --method bn-blend` tells what the losses add. `tta-iqa databases` lists the known layouts. An interrupted run goes on where
    it stopped.
    """
    from ...datasets.databases import read
    from ...metrics import evenly_spaced
    from ..evaluation import score_database
    from ..scorers import DEFAULT_METHOD, Scorer, ScoringError
    from ..settings import Settings

    methods = list(dict.fromkeys(methods or [DEFAULT_METHOD]))
    try:
        settings = Settings(model, str(weights) if weights else None, crops=crops, device=device, precision=precision)
        network = settings.load()
        notes = [
            Scorer(network, m, crops, seed).note for m in methods
        ]  # a wrong name is noticed before the work begins
        if csv_file:
            check_table(csv_file)
        table = {"path_column": path_column, "score_column": score_column, "folder": images}
        found = [read(place, **table, higher_is_better=not lower_is_better) for place in databases]
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    for note in filter(None, notes):
        report(note)
    unread, lines = 0, []
    for database in found:
        if limit and limit < len(database):
            database = database.select(evenly_spaced(len(database), limit))
        report(f"{database.name}: {len(database)} images; the model predicts {network.predicts}")
        options = batch_size, crops, seed
        try:
            done = {m: _scored(database, score_database(network, database, *options, m, workers), m) for m in methods}
        except ScoringError as error:
            report(str(error))
            raise typer.Exit(2) from None
        good = [not any(row.error for row in rows) for rows in zip(*(one.rows for one in done.values()), strict=True)]
        for row, readable in zip(done[methods[0]].rows, good, strict=True):
            if not readable:
                report(row.error)
        if sum(good) < FEWEST:
            report(f"only {sum(good)} images of {database.name} could be read: too few to compare")
            raise typer.Exit(2)
        unread += len(good) - sum(good)
        database = database.select(good)
        rows = {m: [row for row, kept in zip(done[m].rows, good, strict=True) if kept] for m in methods}
        summaries = {m: done[m].summary() for m in methods}
        print_lines(_compared(database, rows, summaries, batch_size, network.higher_is_better))
        for method in methods:
            for row, opinion in zip(rows[method], database.scores, strict=True):
                about = row.path, float(opinion), row.score, row.source_score, row.decision, row.reason
                lines.append((database.name, method, *about))
    if not save(csv_file, HEADER, lines):
        raise typer.Exit(2)
    if unread:
        report(f"{unread} images could not be read, and are left out")
        raise typer.Exit(1)


def _scored(database: Database, batches: Iterable[list[Row]], method: str) -> Results:
    from ..results import Results

    places = {path: place for place, path in enumerate(database.paths)}
    results = Results(len(database))
    with tqdm(total=len(database), desc=method, file=sys.stderr) as bar:
        for rows in batches:
            results.add([places[row.path] for row in rows], rows)
            bar.update(len(rows))
    return results


def _compared(
    database: Database, rows: dict[str, list[Row]], summaries: dict[str, str], batch_size: int, higher_is_better: bool
) -> Iterator[str]:
    """What is printed of a database: each method beside the source model, and beside its control."""
    import numpy as np

    from ...datasets.near_duplicates import find_contents
    from ...experiments.methods import METHODS
    from ..evaluation import compare

    contents, sign = find_contents(database), 1 if higher_is_better else -1
    count = len(set(contents.tolist()))
    yield f"{database.name}: {len(database)} images, {count} contents, batches of {batch_size}"
    for method, mine in rows.items():
        yield f"{method}: {summaries[method]}"
        scores = np.array([row.score for row in mine])
        others = {"source model": [row.source_score for row in mine]}
        control = METHODS[method].control if method in METHODS else None
        if control in rows:
            others[control] = [row.score for row in rows[control]]
        for name, theirs in others.items():
            yield f"\n{'':6s}{name:24s}{method:24s}difference"
            found = compare(sign * scores, sign * np.array(theirs), database.scores, contents)
            for metric, (before, after, change) in found.items():
                yield f"{metric:6s}{before!s:24s}{after!s:24s}{change.signed()}"
        yield ""
