"""How a database lies on disk: what its record says, and how one record becomes a `Database`.

A record names the tables, the columns, the folder of the images, the direction. What to do with them stands here, once.
"""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .databases import Database, database
from .tables import DatabaseError, Table, check_paths, read_table


@dataclass(frozen=True)
class Listing:
    """What the tables of a database say: N names of images and opinions in the authors' direction.

    Attributes:
        source: the table, or the folder of several.
        names: of the images, relative to their folder.
        scores: as they stand there.
        places: where each stands, in words, if it is a table with lines.
        subset, split, content: as in `Database`; None where the tables do not say.
    """

    source: Path
    names: list[str]
    scores: list[float]
    places: list[str] | None = None
    subset: list[str] | None = None
    split: list[str] | None = None
    content: list[str] | None = None


Label = str | Callable[[str], str] | None  # a column of the table, or a function of the image's name


@dataclass(frozen=True)
class Tables:
    """A listing in one table or several of the same form.

    Attributes:
        files: patterns of the tables, each with the split that it holds ("" if it holds none); at least one must be there.
        path: the image's name, of cells in braces: "{image}.{type}.png".
        score: column of the opinions.
        sheet: of a workbook.
        header: the columns of a text without a header.
        words: cells that files call otherwise than tables.
        subset, content: a column, or a function of the image's name.
        split: a function of (folder, names), where other tables tell it.
    """

    files: tuple[tuple[str, str], ...]
    path: str
    score: str
    sheet: str | None = None
    header: tuple[str, ...] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    subset: Label = None
    content: Label = None
    split: Callable[[Path, list[str]], list[str]] | None = None

    def __call__(self, folder: Path) -> Listing:
        files = [(file, split) for pattern, split in self.files for file in sorted(folder.glob(pattern))]
        used = [name for _, name, *_ in string.Formatter().parse(self.path) if name]
        names, scores, places, subset, split, content = ([] for _ in range(6))
        for file, part in files:
            table = read_table(file, *used, self.score, sheet=self.sheet, header=self.header)
            own = self._names(table, used)
            if not own:
                raise DatabaseError(f"'{file}' names no images")
            names += own
            scores += table.scores(self.score)
            places += table.places if len(files) == 1 else [f"{place} of '{file.name}'" for place in table.places]
            subset += _labels(self.subset, table, own)
            content += _labels(self.content, table, own)
            split += [part] * len(own)
        split = self.split(folder, names) if self.split else split
        return Listing(folder if len(files) > 1 else files[0][0], names, scores, places, subset, split, content)

    def _names(self, table: Table, used: list[str]) -> list[str]:
        columns, names = {name: table.column(name) for name in used}, []
        for i, place in enumerate(table.places):
            cells = {name: self.words.get(cells[i], cells[i]) for name, cells in columns.items()}
            if not all(cells.values()):
                raise DatabaseError(f"'{table.file}', {place}: no path")
            names.append(self.path.format_map(cells))
        return names


def _labels(label: Label, table: Table, names: list[str]) -> list[str]:
    if isinstance(label, str):
        return table.column(label)
    return [label(name) if label else "" for name in names]


@dataclass(frozen=True)
class Layout:
    """The record of a database: what it is, where it comes from, and how it lies on disk.

    Attributes:
        name: as its authors call it.
        cite: key of its paper in the bibliography.
        paper: its authors, year and place, in a line.
        page: where it is to be had.
        terms: what may be done with it, in a line.
        count: images with opinions.
        scale: lowest and highest opinion; single ones may lie a little outside.
        higher_is_better: the authors' direction.
        marker: pattern of the file that tells the database.
        says: what stands at the beginning of that file, if others may have one of its name.
        listing: folder → `Listing`.
        images: folders of the images, of which the first that is there counts; patterns will do.
        nested: do they lie in folders below, or under names in other capitals? They are found by their names.
        contents: number and kind of the groups that show the same, if the authors tell.
        splits: of the authors.
    """

    name: str
    cite: str
    paper: str
    page: str
    terms: str
    count: int
    scale: tuple[float, float]
    marker: str
    listing: Callable[[Path], Listing]
    says: str = ""
    higher_is_better: bool = True
    images: tuple[str, ...] = (".",)
    nested: bool = False
    contents: tuple[int, str] | None = None
    splits: tuple[str, ...] = ()

    def is_in(self, folder: Path) -> bool:
        """Does the folder hold the file that tells the database?"""
        files = (file for file in folder.glob(self.marker) if file.is_file())
        return any(not self.says or self.says.encode() in file.read_bytes()[:1000] for file in files)

    def read(self, folder: str | Path) -> Database:
        """The database in a folder.

        Raises:
            DatabaseError: it is not this database, a table is faulty, or images are missing; files and lines are named.
        """
        folder = Path(folder)
        if not self.is_in(folder):
            raise DatabaseError(f"'{folder}' is not {self.name}: it holds no '{self.marker}'")
        listing = self.listing(folder)
        paths = self._find(folder, listing.names)
        check_paths(paths, listing.source, listing.places)
        labels = {key: getattr(listing, key) for key in ("subset", "split", "content")}
        return database(self.name, paths, listing.scores, self.higher_is_better, **labels)

    def _find(self, folder: Path, names: Sequence[str]) -> list[Path]:
        places = [place for pattern in self.images for place in _folders(folder, pattern)]
        root = places[0] if places else folder / self.images[0]
        paths = [root / name for name in names]
        if not self.nested or all(path.is_file() for path in paths):
            return paths
        below: dict[str, list[Path]] = {}
        for place, _, files in os.walk(root):
            for file in files:
                below.setdefault(file.lower(), []).append(Path(place) / file)
        found = (below.get(Path(name).name.lower(), []) for name in names)
        # Of two files of one name nobody knows which is meant.
        return [one[0] if len(one) == 1 else path for one, path in zip(found, paths, strict=True)]


def _folders(folder: Path, pattern: str) -> list[Path]:
    return [folder] if pattern == "." else sorted(place for place in folder.glob(pattern) if place.is_dir())


def read_mat(file: Path, *names: str) -> list[np.ndarray]:
    """Variables of a MATLAB file, each as one row; cells of text as text.

    Raises:
        DatabaseError: no such file or variable, or not such a file.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file)
        return [_text(np.ravel(content[name])) for name in names]
    except (KeyError, ValueError, OSError, NotImplementedError, MatReadError) as error:
        raise DatabaseError(f"'{file}' does not hold the table {', '.join(names)}: {error}") from None


def _text(values: np.ndarray) -> np.ndarray:
    return np.array([str(np.ravel(cell)[0]) for cell in values]) if values.dtype == object else values
