"""Image quality databases in their official layouts: paths, opinions, and what must not be mixed up (chapter 11).

A reader takes the folder as its authors publish it. It reads; it never writes there and never downloads.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from .images import read_image


class DatabaseError(ValueError):
    """A folder or file does not hold the database it should; the message says what is missing."""


@dataclass(frozen=True)
class Database:
    """Images and what people thought of them.

    Attributes:
        name: of the database.
        paths: N image files.
        scores: (N,) opinions, higher = better, whatever the authors' own direction.
        subset: (N,) names of the authors' parts; all "" where there are none.
        split: (N,) the authors' own split, "train" or "test"; all "" where there is none.
    """

    name: str
    paths: tuple[Path, ...]
    scores: np.ndarray
    subset: np.ndarray
    split: np.ndarray

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
        )


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
        own_paths, own_scores = _read_table(table, folder / "Images", "Image Name", "MOS")
        paths += own_paths
        scores += own_scores
        splits += [table.name.split(" ")[0].lower()] * len(own_paths)
    subset = np.array([path.name.split(" ")[0] for path in paths])
    return Database("BIQ2021", tuple(paths), np.array(scores), subset, np.array(splits))


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
        DatabaseError: no such file or column, a score that is no number, or images missing.
    """
    file = Path(file)
    if not file.is_file():
        raise DatabaseError(f"no such file: '{file}'")
    paths, scores = _read_table(file, Path(folder) if folder else file.parent, path_column, score_column)
    none = np.full(len(paths), "")
    return Database(file.stem, tuple(paths), np.array(scores) * (1 if higher_is_better else -1), none, none)


def _read_table(file: Path, folder: Path, path_column: str, score_column: str) -> tuple[list[Path], list[float]]:
    paths, scores = [], []
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        for column in (path_column, score_column):
            if column not in (reader.fieldnames or []):
                raise DatabaseError(f"'{file}' has no column '{column}'; it has {', '.join(reader.fieldnames or [])}")
        for row in reader:
            if not (row[path_column] or "").strip():
                continue  # an empty line at the end
            try:
                score = float(row[score_column])
            except (TypeError, ValueError):
                score = float("nan")
            if not np.isfinite(score):
                raise DatabaseError(f"'{file}', line {reader.line_num}: {row[score_column]!r} is not a score")
            scores.append(score)
            paths.append(folder / row[path_column].strip())
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatabaseError(f"{len(missing)} of {len(paths)} images of '{file}' are missing, first '{missing[0]}'")
    if not paths:
        raise DatabaseError(f"'{file}' names no images")
    return paths, scores


def load_images(database: Database, size: int, progress: bool = True) -> Tensor:
    """All images with their shorter side reduced to `size` and the centre square cut out: uint8 (N, 3, size, size)."""
    out = torch.empty(len(database), 3, size, size, dtype=torch.uint8)
    for i, path in enumerate(tqdm(database.paths, desc="reading", disable=not progress)):
        image = read_image(path)[None]
        ratio = size / min(image.shape[2:])
        shape = [max(size, round(ratio * length)) for length in image.shape[2:]]
        image = interpolate(image, shape, mode="bilinear", antialias=True)[0].clamp(0, 1)
        y, x = ((length - size) // 2 for length in image.shape[1:])
        out[i] = (image[:, y : y + size, x : x + size] * 255).round().to(torch.uint8)
    return out


def content_groups(images: Tensor, similar: float = 0.9) -> np.ndarray:
    """Which images show the same thing? Group labels (N,): linked where the 16×16 grey thumbnails correlate.

    Databases hold near-duplicates: series of one scene. A split at random puts the same scene on both sides.

    Args:
        images: (N, 3, H, W), uint8 or float.
        similar: correlation of two thumbnails from which they count as one content. A flat image is its own content.
    """
    thumbs = torch.cat(
        [
            interpolate(part.float().mean(1, keepdim=True), (16, 16), mode="area").flatten(1)
            for part in images.split(256)
        ]
    )
    thumbs = thumbs - thumbs.mean(1, keepdim=True)
    norm = thumbs.norm(dim=1, keepdim=True)
    thumbs = torch.where(norm > 1e-3 * thumbs.shape[1] ** 0.5, thumbs / norm.clamp_min(1e-12), 0)
    rows, columns = np.nonzero((thumbs @ thumbs.T > similar).numpy())
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(images),) * 2)
    return connected_components(links, directed=False)[1]
