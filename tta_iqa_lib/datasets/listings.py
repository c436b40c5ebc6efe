"""How the databases are listed that are no single table: the files of several parts, and the authors' splits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .layouts import Listing, read_mat
from .tables import DatabaseError, read_table


def stem_until(mark: str) -> Callable[[str], str]:
    """What stands before a mark in an image's name, in small letters: the name of the undamaged original."""
    return lambda name: Path(name).name.split(mark)[0].lower()


def koniq_split(folder: Path, names: list[str]) -> list[str]:
    """The authors' split is a table of its own."""
    file = folder / "koniq10k_distributions_sets.csv"
    if not file.is_file():
        return [""] * len(names)
    table = read_table(file, "image_name", "set")
    known = dict(zip(table.column("image_name"), table.column("set"), strict=True))
    return [_SETS.get(known.get(name, ""), "") for name in names]


_SETS = {"training": "train", "validation": "val", "test": "test"}


def live_fb_split(folder: Path, names: list[str]) -> list[str]:
    """Pictures of more than 640 pixels test; of the others, a column says which validate."""
    large, others = folder / "labels640.csv", folder / "labels=640_padded.csv"
    if not large.is_file() or not others.is_file():
        return [""] * len(names)
    test = set(read_table(large, "name_image").column("name_image"))
    table = read_table(others, "name_image", "is_valid")
    cells = zip(table.column("name_image"), table.column("is_valid"), strict=True)
    valid = {name for name, flag in cells if flag.lower() in ("true", "1", "1.0")}
    return ["test" if name in test else "val" if name in valid else "train" for name in names]


def uhd_split(folder: Path, names: list[str]) -> list[str]:
    """A column of the one table."""
    table = read_table(folder / "uhd-iqa-metadata.csv", "image_name", "set")
    return [_SETS.get(cell.lower(), cell) for cell in table.column("set")]


def live_challenge(folder: Path) -> Listing:
    """The first seven of the tables' 1,169 images trained the observers, and are left out."""
    files = [folder / "Data" / f"{name}_release.mat" for name in ("AllImages", "AllMOS")]
    (names,), (scores,) = (read_mat(file, file.stem) for file in files)
    _same_length(files[1], names, scores)
    rows = [i for i, name in enumerate(names) if not re.fullmatch(r"t\d+\.bmp", name)]
    return Listing(files[0], [names[i] for i in rows], [float(scores[i]) for i in rows])


# In the order of LIVE's tables: folders and their numbers of images, img1.bmp, img2.bmp …
_LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live(folder: Path) -> Listing:
    """`orgs` marks the undamaged originals among them, which have no opinions of their own."""
    scores, originals = read_mat(folder / "dmos_realigned.mat", "dmos_new", "orgs")
    (content,) = read_mat(folder / "refnames_all.mat", "refnames_all")
    names = [f"{kind}/img{i}.bmp" for kind, count in _LIVE_FOLDERS.items() for i in range(1, count + 1)]
    for values in (scores, originals, content):
        _same_length(folder / "dmos_realigned.mat", names, values)
    rows = [i for i, original in enumerate(originals) if not original]
    return Listing(
        folder / "dmos_realigned.mat",
        [names[i] for i in rows],
        [float(scores[i]) for i in rows],
        subset=[names[i].split("/")[0] for i in rows],
        content=[Path(content[i]).stem for i in rows],
    )


def live_md(folder: Path) -> Listing:
    """Two parts, each with a list and scores; the folders are called Part 1, Part1 or Part_1."""
    names, scores, subset = [], [], []
    for number, kind in ((1, "blurjpeg"), (2, "blurnoise")):
        part = next(iter(sorted(folder.glob(f"Part*{number}"))), folder / f"Part {number}")
        (own,) = read_mat(part / "Imagelists.mat", "distimgs")
        (dmos,) = read_mat(part / "Scores.mat", "DMOSscores")
        _same_length(part / "Scores.mat", own, dmos)
        names += [f"{part.name}/{kind}/{name}" for name in own]
        scores += [float(score) for score in dmos]
        subset += [kind] * len(own)
    return Listing(folder, names, scores, subset=subset, content=[stem_until("_")(name) for name in names])


def _same_length(file: Path, names, values) -> None:
    if len(names) != len(values):
        raise DatabaseError(f"'{file}' has {len(values)} rows for {len(names)} images")
