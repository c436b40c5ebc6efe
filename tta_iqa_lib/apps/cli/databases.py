"""Databases of opinions: `databases` lists those that the library knows, and checks one on disk."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from .app import ImageFolder, LowerIsBetter, PathColumn, ScoreColumn, app
from .output import print_lines, report


@app.command()
def databases(
    name: Annotated[
        str | None, typer.Argument(help="Of a database: tell all of it, its terms and its citation.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="A database's folder, or a table: count, open, compare with its record.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="With --check: open so many images, evenly drawn; default: all.", min=1)
    ] = None,
    path_column: PathColumn = "path",
    score_column: ScoreColumn = "score",
    images: ImageFolder = None,
    lower_is_better: LowerIsBetter = False,
) -> None:
    """List the databases whose official layouts are known; tell all about one; or check one that you have.

    A check says in a line what is wrong, such as images that are missing or cannot be read, or another scale. Exit status: 0 all
    is well, 1 something is wrong, 2 nothing to check.
    """
    from ...datasets.official import LAYOUTS, layout
    from ...datasets.tables import DatabaseError

    try:
        if check is not None:
            table = {"path_column": path_column, "score_column": score_column, "folder": images}
            _check(check, sample, **table, higher_is_better=not lower_is_better)
        elif name is not None:
            print_lines(_all_of(layout(name)))
        else:
            print_lines([f"{key:10s}{_in_a_line(one)}" for key, one in LAYOUTS.items()])
    except DatabaseError as error:
        report(str(error))
        raise typer.Exit(2) from None


def _in_a_line(one) -> str:
    low, high = one.scale
    better = "higher" if one.higher_is_better else "lower"
    scale = f"{low:g} to {high:g}, {better} is better"
    return f"{one.name:18s}{one.count:7,} images  {scale:32s}{one.page}"


def _all_of(one) -> list[str]:
    low, high = one.scale
    groups = f"{one.contents[0]:,} {one.contents[1]}" if one.contents else "not given: found by comparing thumbnails"
    facts = {
        "images": f"{one.count:,}",
        "opinions": f"{low:g} to {high:g}, {'higher' if one.higher_is_better else 'lower'} is better",
        "contents": groups,
        "splits": ", ".join(one.splits) or "none",
        "told by": one.marker,
        "page": one.page,
        "terms": one.terms,
        "cite": f"{one.paper} ({one.cite})",
    }
    return [one.name, *(f"  {key:10s}{value}" for key, value in facts.items())]


def _check(source: Path, sample: int | None, **table) -> None:
    from ...datasets.checking import check

    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        found = check(source, sample, progress=True, **table)
    for warning in left_out:
        report(str(warning.message))
    print_lines([f"{found.name}: {'; '.join(found.facts) or 'cannot be read'}", *found.faults])
    if found.faults:
        raise typer.Exit(1)
