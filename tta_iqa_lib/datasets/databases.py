"""Image quality databases in their official layouts: paths, opinions, and what must not be mixed up (chapter 11).

A reader takes the folder as its authors publish it. It reads; it never writes there and never downloads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .tables import DatabaseError, check_paths, parse_score, read_table, read_text


@dataclass(frozen=True)
class Database:
    """Images and what people thought of them.

    Attributes:
        name: of the database.
        paths: N image files.
        scores: (N,) opinions, higher = better, whatever the authors' own direction.
        subset: (N,) names of the authors' parts; all "" where there are none.
        split: (N,) the authors' own split, "train" or "test"; all "" where there is none.
        content: (N,) what was photographed, by the name of the undamaged original; all "" where the authors do not say.
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


def _database(name: str, paths: list[Path], scores, subset=None, split=None, content=None) -> Database:
    """A database in which nothing is said about the rest."""
    none = np.full(len(paths), "")
    parts = (none if part is None else np.array(part) for part in (subset, split, content))
    return Database(name, tuple(paths), np.array(scores, dtype=float), *parts)


def biq2021(folder: str | Path) -> Database:
    """BIQ2021 [ahmed2022biq2021]: 12,000 photographs of three origins, mean opinions in [0, 1] of 30 observers each.

    Official layout: `Images/ss01 (1).jpg` … and `Train (Images and MOS).csv`, `Test (Images and MOS).csv` (file name, mean
    opinion; higher = better). Subsets: ss01 personal photographs, ss02 faults made on purpose, ss03 Unsplash. The
    repository states no licence; its description offers the images for use and benchmarking.

    Raises:
        DatabaseError: no such folder, no table of opinions, or images missing.
    """
    folder = Path(folder)
    tables = sorted(folder.glob("*(Images and MOS).csv"))
    if not tables:
        raise DatabaseError(f"'{folder}' is not BIQ2021: it holds no '… (Images and MOS).csv'")
    paths, scores, splits = [], [], []
    for table in tables:
        own_paths, own_scores = read_table(table, folder / "Images", "Image Name", "MOS")
        paths += own_paths
        scores += own_scores
        splits += [table.name.split(" ")[0].lower()] * len(own_paths)
    check_paths(paths, folder)  # none in both
    return _database("BIQ2021", paths, scores, [path.name.split(" ")[0] for path in paths], splits)


def koniq10k(folder: str | Path) -> Database:
    """KonIQ-10k [hosu2020koniq]: 10,073 photographs from a photo-sharing site; mean opinions 1 to 5 of a crowd.

    Official layout: `koniq10k_scores_and_distributions.csv`, and the images in `1024x768/` or `512x384/` (the larger, if there
    are both).

    Raises:
        DatabaseError: as `biq2021`.
    """
    folder = Path(folder)
    images = next((folder / size for size in ("1024x768", "512x384") if (folder / size).is_dir()), folder / "1024x768")
    file = _expect(folder, "koniq10k_scores_and_distributions.csv", "KonIQ-10k")
    return _database("KonIQ-10k", *read_table(file, images, "image_name", "MOS"))


def kadid10k(folder: str | Path) -> Database:
    """KADID-10k [lin2019kadid]: 81 pictures under 25 distortions at 5 levels; opinions 1 to 5 of a crowd.

    Official layout: `dmos.csv`, and the images in `images/`. The column is called dmos, but 5 is the best.

    Raises:
        DatabaseError: as `biq2021`.
    """
    file = _expect(Path(folder), "dmos.csv", "KADID-10k")
    paths, scores = read_table(file, Path(folder) / "images", "dist_img", "dmos")
    return _database("KADID-10k", paths, scores, content=[path.name.split("_")[0] for path in paths])


def tid2013(folder: str | Path) -> Database:
    """TID2013 [ponomarenko2015tid]: 25 pictures under 24 distortions at 5 levels; mean opinions 0 to 9.

    Official layout: `mos_with_names.txt` ("5.51429 I01_01_1.bmp" a line), and the images in `distorted_images/`, whose names
    differ from the table's in capitals here and there.

    Raises:
        DatabaseError: as `biq2021`.
    """
    file = _expect(Path(folder), "mos_with_names.txt", "TID2013")
    images = Path(folder) / "distorted_images"
    on_disk = {path.name.lower(): path for path in images.glob("*")}
    lines = read_text(file)[0].splitlines()
    rows = {number: line.split() for number, line in enumerate(lines, 1) if line.strip()}
    paths, scores = [], []
    for number, row in rows.items():
        if len(row) != 2:
            raise DatabaseError(f"'{file}', line {number}: expected a score and a name")
        scores.append(parse_score(row[0], file, number))
        paths.append(on_disk.get(row[1].lower(), images / row[1]))
    check_paths(paths, file, list(rows))
    return _database("TID2013", paths, scores, content=[path.name.split("_")[0].lower() for path in paths])


def clive(folder: str | Path) -> Database:
    """LIVE In the Wild Image Quality Challenge [ghadiyaram2016clive]: 1,162 mobile photographs; opinions 0 to 100 of a crowd.

    Official layout: `Data/AllImages_release.mat`, `Data/AllMOS_release.mat`, and the images in `Images/`. The first seven of
    the tables' 1,169 images trained the observers (`Images/trainingImages/`) and are left out.

    Raises:
        DatabaseError: as `biq2021`.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    files = [_expect(Path(folder), f"Data/{name}_release.mat", "LIVE In the Wild") for name in ("AllImages", "AllMOS")]
    try:
        names, scores = (np.ravel(loadmat(file)[file.stem]) for file in files)
    except (KeyError, ValueError, OSError, MatReadError) as error:
        raise DatabaseError(f"'{files[0].parent}' does not hold the tables of LIVE In the Wild: {error}") from None
    names = [str(np.ravel(name)[0]) for name in names]
    rows = [i for i, name in enumerate(names) if not re.fullmatch(r"t\d+\.bmp", name)]
    paths = [Path(folder) / "Images" / names[i] for i in rows]
    check_paths(paths, files[0])
    return _database("LIVE In the Wild", paths, scores[rows])


LAYOUTS = {  # a file that tells the database
    "*(Images and MOS).csv": biq2021,
    "koniq10k_scores_and_distributions.csv": koniq10k,
    "dmos.csv": kadid10k,
    "mos_with_names.txt": tid2013,
    "Data/AllMOS_release.mat": clive,
}


def read(folder: str | Path, /, **table) -> Database:
    """The database in a folder, recognised by its layout, or in a table (.csv), read by `from_csv` with the options `table`.

    Raises:
        DatabaseError: none of `LAYOUTS`; or that database, but with something missing; or as `from_csv`.
    """
    if Path(folder).suffix.lower() == ".csv":
        return from_csv(folder, **table)
    for file, reader in LAYOUTS.items():
        if any(Path(folder).glob(file)):
            return reader(folder)
    what = "is no folder" if not Path(folder).is_dir() else f"holds none of {', '.join(LAYOUTS)}"
    raise DatabaseError(f"no database in '{folder}': it {what}. A table of paths and opinions (.csv) will do, too")


def _expect(folder: Path, name: str, database: str) -> Path:
    if not (folder / name).is_file():
        raise DatabaseError(f"'{folder}' is not {database}: it holds no '{name}'")
    return folder / name


def from_csv(
    file: str | Path,
    path_column: str = "path",
    score_column: str = "score",
    folder: str | Path | None = None,
    higher_is_better: bool = True,
) -> Database:
    """Any table of image paths and opinions, with a header line.

    Args:
        path_column, score_column: names in the header.
        folder: what paths are relative to; the table's own folder by default.
        higher_is_better: False for difference scores (DMOS); they are negated.

    Raises:
        DatabaseError: no such file; or a fault of the table, with its line (`tables.read_table`).
    """
    file = Path(file)
    if not file.is_file():
        raise DatabaseError(f"no such file: '{file}'")
    paths, scores = read_table(file, Path(folder) if folder else file.parent, path_column, score_column)
    return _database(file.stem, paths, np.array(scores) * (1 if higher_is_better else -1))
