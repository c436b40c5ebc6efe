"""Is a database on disk what its authors published? Counts, files, ranges."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..imaging.files import ImageError, read_image
from .databases import Database, from_folder, read
from .layouts import Layout
from .official import recognise
from .tables import DatabaseError

# Single opinions lie a little outside of a scale: realigned ones, of which LIVE's and CID2013's are examples.
_SLACK = 0.15
_LATER = 1e-3  # of the images, by which a later release may differ from the paper
_SPREAD = 0.2  # opinions that cover less of a scale are on another one


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        name: of the database.
        facts: what is there, one line each.
        faults: what is wrong, one line each; none: all is well.
    """

    name: str
    facts: tuple[str, ...]
    faults: tuple[str, ...]


def check(source: str | Path, sample: int | None = None, progress: bool = False, **table) -> Report:
    """Read a database, open its images, and compare it with its record.

    Args:
        source: a folder in an official layout, a plain folder of images, or a table.
        sample: open so many images, evenly drawn; None: all.
        table: options of `from_table`, for a table.

    Raises:
        DatabaseError: there is nothing to check: no such folder or file, or no images in it.
    """
    source = Path(source)
    record = None
    if source.is_dir():
        try:
            record = recognise(source)
        except DatabaseError:
            found = from_folder(source)
            return Report(found.name, *_compared(found, None, sample, progress))
    elif not source.is_file():
        raise DatabaseError(f"no such file or folder: '{source}'")
    name = record.name if record else source.stem
    try:
        found = read(source, **table)
    except DatabaseError as error:
        return Report(name, (), (str(error),))
    return Report(name, *_compared(found, record, sample, progress))


def _compared(found: Database, record: Layout | None, sample: int | None, progress: bool):
    """Facts and faults."""
    contents = len(set(found.content.tolist())) if (found.content != "").all() else None
    facts, faults = [_counted(len(found), "image")], []
    if contents is not None:
        kind = record.contents[1] if record and record.contents else "contents"
        facts.append(f"{contents:,} {kind}")
    for label in (found.subset, found.split):
        names = Counter(filter(None, label.tolist()))
        if names:
            facts.append(", ".join(f"{name} {count:,}" for name, count in sorted(names.items())))
    if record and abs(len(found) - record.count) > _LATER * record.count:
        faults.append(f"{_counted(len(found), 'image')}; the authors published {record.count:,}")
    elif record and record.contents and contents != record.contents[0]:
        faults.append(f"{contents} {record.contents[1]}; the authors published {record.contents[0]}")
    scores = found.scores if record is None or record.higher_is_better else -found.scores
    if np.isfinite(scores).all():
        low, high = scores.min() + 0.0, scores.max() + 0.0  # no -0
        facts.append(f"opinions from {low:.4g} to {high:.4g}")
        if record:
            faults += _range(low, high, record)
        elif low == high and len(found) > 1:
            faults.append(f"all opinions are {low:.4g}: there is nothing to rank")
    else:
        facts.append("no opinions: a plain folder")
    tried, unreadable = _open(found, sample, progress)
    opened = tried - len(unreadable)
    facts.append(f"{opened:,} opened" + ("" if opened == len(found) else f" of {len(found):,}"))
    if unreadable:
        faults.append(f"{len(unreadable)} of {tried} images cannot be read, first: {unreadable[0]}")
    return tuple(facts), tuple(faults)


def _range(low: float, high: float, record: Layout) -> list[str]:
    bottom, top = record.scale
    span = top - bottom
    if low < bottom - _SLACK * span or high > top + _SLACK * span or high - low < _SPREAD * span:
        return [f"opinions from {low:.4g} to {high:.4g}; the authors' scale is {bottom:g} to {top:g}"]
    return []


def _open(found: Database, sample: int | None, progress: bool) -> tuple[int, list[str]]:
    """How many were tried, and why some cannot be read."""
    count = len(found) if sample is None else min(sample, len(found))
    rows = np.linspace(0, len(found) - 1, count).round().astype(int)
    unreadable = []
    for i in tqdm(rows, desc="opening", disable=not progress):
        try:
            read_image(found.paths[i])
        except (ImageError, OSError) as error:
            unreadable.append(str(error))
    return count, unreadable


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
