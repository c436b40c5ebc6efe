"""Images and what people thought of them: databases in their official layouts, tables, folders.

A reader takes what its authors publish, or what somebody has on disk. It reads; it never writes there and never downloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .tables import SHEETS, TEXTS, DatabaseError, check_paths, read_table


@dataclass(frozen=True)
class Database:
    """Images and what people thought of them.

    Attributes:
        name: of the database.
        paths: N image files.
        scores: (N,) opinions, higher = better, whatever the authors' own direction; NaN of a plain folder.
        subset: (N,) names of the authors' parts; all "" where there are none.
        split: (N,) the authors' own split, "train", "val" or "test"; all "" where there is none.
        content: (N,) what is shown, such as the name of the undamaged original; all "" where the authors do not say.
    """

    name: str
    paths: tuple[Path, ...]
    scores: np.ndarray
    subset: np.ndarray
    split: np.ndarray
    content: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows) -> Database:
        """The part of the database that an index or mask over its N images picks."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            paths=tuple(self.paths[i] for i in rows),
            scores=self.scores[rows],
            subset=self.subset[rows],
            split=self.split[rows],
            content=self.content[rows],
        )


def database(
    name: str,
    paths: Sequence[Path],
    scores: Sequence[float],
    higher_is_better: bool = True,
    subset: Sequence[str] | None = None,
    split: Sequence[str] | None = None,
    content: Sequence[str] | None = None,
) -> Database:
    """A `Database` in which what is not given is not known; the scores of the other direction are negated."""
    parts = (np.array([""] * len(paths) if part is None else part, dtype=str) for part in (subset, split, content))
    return Database(name, tuple(paths), np.array(scores, dtype=float) * (1 if higher_is_better else -1), *parts)


def read(source: str | Path, /, **table) -> Database:
    """The database in a folder, recognised by its layout, or in a table, read by `from_table` with the options `table`.

    Tables are .csv, .tsv, .tab, .txt, .xlsx and .parquet; one of pyiqa's, `meta_info_….csv`, is read by `from_meta_info`.

    Raises:
        DatabaseError: none of `official.LAYOUTS`; or that database, but with something missing; or as `from_table`.
    """
    # They build on this module.
    from .meta_info import from_meta_info
    from .official import recognise

    source = Path(source)
    if source.suffix.lower() not in (*TEXTS, *SHEETS) or source.is_dir():
        return recognise(source).read(source)
    if source.name.startswith("meta_info_"):
        return from_meta_info(source, table.get("folder"))
    return from_table(source, **table)


def from_table(
    file: str | Path,
    path_column: str = "path",
    score_column: str = "score",
    folder: str | Path | None = None,
    higher_is_better: bool = True,
    subset_column: str | None = None,
    split_column: str | None = None,
    content_column: str | None = None,
    sheet: str | None = None,
) -> Database:
    """Any table of image paths and opinions, with a header.

    Args:
        path_column, score_column: names in the header.
        folder: what paths are relative to; the table's own folder by default.
        higher_is_better: False for difference scores (DMOS); they are negated.
        subset_column, split_column, content_column: names in the header, where the table tells.
        sheet: of a workbook; its first by default.

    Raises:
        DatabaseError: no such file; a fault of the table, with its line; a path that is missing, twice there, or leads to no
            file; .xlsx without the package openpyxl, or .parquet without pyarrow.
    """
    file = Path(file)
    if not file.is_file():
        raise DatabaseError(f"no such file: '{file}'")
    table = read_table(file, path_column, score_column, sheet=sheet)
    paths = table.paths(path_column, Path(folder) if folder else file.parent)
    scores = table.scores(score_column)
    check_paths(paths, file, table.places)
    labels = {"subset": subset_column, "split": split_column, "content": content_column}
    labels = {name: table.column(column) for name, column in labels.items() if column}
    return database(file.stem, paths, scores, higher_is_better, **labels)


from_csv = from_table  # its name while it read nothing else


def from_folder(folder: str | Path) -> Database:
    """The images in a folder and below it, sorted, without opinions (NaN); a subset is the folder that an image lies in.

    Raises:
        DatabaseError: no such folder, or no images in it.

    Warns:
        LeftOutWarning: it holds other files as well.
    """
    from ..imaging.files import list_images

    folder = Path(folder)
    paths = list_images([folder]) if folder.is_dir() else []
    if not paths:
        raise DatabaseError(f"no images in '{folder}'" if folder.is_dir() else f"no such folder: '{folder}'")
    subset = [path.parent.relative_to(folder).as_posix() for path in paths]
    return database(folder.resolve().name, paths, [np.nan] * len(paths), subset=["" if s == "." else s for s in subset])
