"""Several databases in one small folder: 256-pixel squares, opinions, contents; for a machine that has nothing else."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm.auto import tqdm

from ...datasets.databases import Database, DatabaseError, from_table, read
from ...datasets.near_duplicates import content_groups
from ...imaging.crops import resize_to
from ...imaging.files import read_image
from ...store import atomic_write

SIDE = 256  # pixels; of larger pictures the middle square, reduced
QUALITY = 80  # of WebP: about 13 kB an image
TABLE = "pack.csv"
SCORES, CONTENTS = ("score", "mos", "mos_quality"), ("content", "prompt")


@dataclass(frozen=True)
class Pack:
    """Squares of 256 pixels, (N,) each; the pictures stay on disk until they are asked for.

    Attributes:
        folder: where it lies.
        files: names of the pictures.
        part: which database, or which subset of it.
        scores: opinions, higher = better, in each database's own unit.
        content: what was photographed, as a label. No two parts share one.
    """

    folder: Path
    files: tuple[str, ...]
    part: np.ndarray
    scores: np.ndarray
    content: np.ndarray

    def images(self, rows: np.ndarray) -> Tensor:
        """(n, 3, 256, 256), uint8, of the rows."""
        out = torch.empty(len(rows), 3, SIDE, SIDE, dtype=torch.uint8)
        for i, row in enumerate(rows):
            with Image.open(self.folder / self.files[row]) as picture:
                out[i] = pil_to_tensor(picture.convert("RGB"))
        return out

    def rows(self, *parts: str) -> np.ndarray:
        """Row numbers of some parts, in order.

        Raises:
            ValueError: a part that the pack does not have.
        """
        if missing := set(parts) - set(self.part):
            raise ValueError(f"'{self.folder}' holds no '{min(missing)}'; it has {', '.join(dict.fromkeys(self.part))}")
        return np.flatnonzero(np.isin(self.part, parts))

    @cached_property
    def key(self) -> str:
        """What tells this pack from others, the hash of its table, in which each picture has its checksum."""
        return hashlib.sha256((self.folder / TABLE).read_bytes()).hexdigest()[:16]


def read_part(path: str | Path) -> Database:
    """A database in an official layout, or a table with the column "path", and "score", "mos" or "mos_quality".

    What the table calls "content" or "prompt" are the contents.

    Raises:
        DatabaseError: neither.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        return read(path)
    if not path.is_file():
        raise DatabaseError(f"no such file: '{path}'")
    with path.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines))
    header = table[0].keys() if table else ()
    score = next((name for name in SCORES if name in header), None)
    if score is None:
        raise DatabaseError(f"'{path}': expected a column {' or '.join(SCORES)}; it has {', '.join(header)}")
    database = from_table(path, score_column=score)
    content = next((name for name in CONTENTS if name in header), None)
    if content is None:
        return database
    labels = {label: str(i) for i, label in enumerate(dict.fromkeys(row[content] for row in table))}
    return replace(database, content=np.array([labels[row[content]] for row in table]))


def make_pack(databases: Mapping[str, Database], folder: Path, progress: bool = True) -> Pack:
    """Write a pack. A database with subsets becomes several parts, called as the subsets are.

    Contents are those that the authors name; elsewhere near-duplicates are one content. Pictures that are there already are not
    written again.

    Args:
        databases: by the name of the part.
        folder: a new one, or one in which this was interrupted.
    """
    lines = []
    for name, database in databases.items():

        def reduce(i: int, name=name, database=database) -> tuple[str, Tensor]:
            path = folder / name / f"{i}.webp"
            if not path.is_file():
                image = resize_to(read_image(database.paths[i]), SIDE)
                y, x = ((length - SIDE) // 2 for length in image.shape[1:])
                square = (image[:, y : y + SIDE, x : x + SIDE] * 255).round().to(torch.uint8)
                with atomic_write(path) as partial:
                    Image.fromarray(square.permute(1, 2, 0).numpy()).save(partial, "WEBP", quality=QUALITY, method=4)
            with Image.open(path) as picture:
                thumb = pil_to_tensor(picture.convert("L").resize((16, 16), Image.Resampling.BOX))
            return hashlib.sha256(path.read_bytes()).hexdigest()[:16], thumb

        with ThreadPoolExecutor() as pool:
            numbers = range(len(database))
            done = list(tqdm(pool.map(reduce, numbers), desc=name, total=len(database), disable=not progress))
        known = (database.content != "").all()
        content = database.content if known else content_groups(torch.stack([thumb for _, thumb in done]))
        for i, (checksum, _) in enumerate(done):
            part = database.subset[i] or name
            lines.append([f"{name}/{i}.webp", part, f"{database.scores[i]:.6g}", f"{name}-{content[i]}", checksum])
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([["file", "part", "score", "content", "sha256"], *lines])
    with atomic_write(folder / TABLE) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
    return read_pack(folder)


def read_pack(folder: str | Path) -> Pack:
    """The pack in a folder.

    Raises:
        ValueError: there is none.
    """
    table = Path(folder) / TABLE
    if not table.is_file():
        raise ValueError(f"'{folder}' is no pack of databases: it holds no {TABLE}; `tta-iqa pack` makes one")
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    files, part, scores, content = ([row[key] for row in rows] for key in ("file", "part", "score", "content"))
    return Pack(Path(folder), tuple(files), np.array(part), np.array(scores, dtype=float), np.array(content))
