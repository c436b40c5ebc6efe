"""Commands on the user's own images: `score`, `evaluate`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from .app import DATABASE, ImageFolder, LowerIsBetter, PathColumn, ScoreColumn, app
from .output import check_table, print_lines, report, write_table

ModelFile = Annotated[
    Path | None,
    typer.Option(
        help='"photographs", the shipped model of human opinions, or a file that `tta-iqa train` wrote; default: TinyShift\'s.'
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images that are adapted to together.", min=1)]
Crops = Annotated[int, typer.Option(help="Crops per image: 1, 4, 9, 16 …")]
Seed = Annotated[int, typer.Option(help="Draws the batches.")]


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched recursively.")],
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt to the images before scoring them.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write path, score and source score here as well.")
    ] = None,
    model: ModelFile = None,
    batch_size: BatchSize = 32,
    crops: Crops = 4,
    seed: Seed = 0,
) -> None:
    """Score images: one line each, score and path, higher is better.

    Images are cut into crops at their native resolution; an image's score is the mean over its crops and
    over the symmetric views that the model declares. With `--adapt`
    the scores depend on the images that are scored together.
    """
    from ...imaging.files import ImageError, list_images
    from ...models.quality import load_source_model
    from ..scoring import score_files

    try:
        network = load_source_model(model or 0)
        _check_options(crops, csv_file)
        with warnings.catch_warnings(record=True) as left_out:
            warnings.simplefilter("always")
            files = list_images(paths)
        for warning in left_out:
            report(str(warning.message))
        if not files:
            raise ImageError(f"no images in {', '.join(map(str, paths))}")
    except (OSError, ValueError) as error:
        report(str(error))
        raise typer.Exit(2) from None
    report(f"the model predicts {network.predicts}")
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
    place = {file: i for i, file in enumerate(files)}
    rows.sort(key=lambda row: place[row.path])
    header = ["path", "score", "source_score"]
    saved = _save(csv_file, header, ((row.path, row.score, row.source_score) for row in rows))
    print_lines(f"{row.score:.4f}\t{row.path}" for row in rows)
    if not saved:
        raise typer.Exit(2)
    if failed:
        report(f"{failed} of {len(files)} files could not be scored")
        raise typer.Exit(1 if rows else 2)


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
    model: ModelFile = None,
    batch_size: BatchSize = 32,
    crops: Crops = 4,
    seed: Seed = 0,
) -> None:
    """Compare a model with human opinions, as it is and adapted: SRCC, PLCC and KRCC with 95 % intervals by content.

    Known layouts: BIQ2021, KonIQ-10k, KADID-10k, TID2013, LIVE In the Wild. An interrupted run goes on where it stopped.
    """
    import numpy as np

    from ...datasets.databases import read
    from ...datasets.near_duplicates import find_contents
    from ...metrics import evenly_spaced
    from ...models.quality import load_source_model
    from ..evaluation import compare, score_database

    try:
        network = load_source_model(model or 0)
        _check_options(crops, csv_file)
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
    saved = _save(csv_file, header, zip(found.paths, found.scores, new, old, strict=True))
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


def _check_options(crops: int, csv_file: Path | None) -> None:
    """Raises: ValueError, OSError."""
    if crops < 1 or round(crops**0.5) ** 2 != crops:
        raise ValueError(f"--crops must be a square number (1, 4, 9, …); got {crops}")
    if csv_file:
        check_table(csv_file)


def _save(csv_file: Path | None, header: list[str], rows) -> bool:
    """False, with a word, where the table could not be written. It comes before stdout, which may be a closed pipe."""
    try:
        if csv_file:
            write_table(csv_file, header, rows)
    except OSError as error:
        report(
            f"the table '{csv_file}' could not be written: {error.strerror or error}; the scores are on standard output"
        )
        return False
    return True
