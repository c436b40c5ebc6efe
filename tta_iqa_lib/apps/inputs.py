"""Which images are meant: files, folders, globs, tables of paths, lists on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..datasets.meta_info import from_meta_info
from ..datasets.tables import SHEETS, check_paths, read_table
from ..imaging.files import ImageError, list_images

TABLES = frozenset({".csv", ".tsv", ".tab", *SHEETS})


def find_images(arguments: Iterable[str | Path], path_column: str = "path") -> list[Path]:
    """The images that a command line names, in its order; one that is named twice is listed once.

    Args:
        arguments: files; folders (see `list_images`); patterns such as ``photos/**/*.jpg``, for shells that leave them as they
            are; tables of paths (.csv, .tsv, .xlsx, .parquet; relative to their folder); "-" for paths on standard input, a
            line each, or ended by NUL as `find -print0` does.
        path_column: of a table.

    Raises:
        ImageError: a path that does not exist, a pattern that fits nothing, or no images.
        DatabaseError: a fault of a table, with its line.

    Warns:
        LeftOutWarning: as `list_images`.
    """
    arguments = [Path(argument) for argument in arguments]
    paths: list[Path] = []
    for argument in arguments:
        if str(argument) == "-":
            paths += _read_list(sys.stdin.buffer.read())
        elif argument.suffix.lower() in TABLES and not argument.is_dir():
            paths += read_paths(argument, path_column)
        elif not argument.exists() and glob.has_magic(str(argument)):
            matches = sorted(glob.glob(str(argument), recursive=True))
            if not matches:
                raise ImageError(f"nothing fits the pattern '{argument}'")
            paths += map(Path, matches)
        else:
            paths.append(argument)
    images = list_images(paths)
    if not images:
        raise ImageError(f"no images in {', '.join(map(str, arguments))}")
    return images


def _read_list(content: bytes) -> list[Path]:
    """Names may be any bytes, as in a file system."""
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [Path(os.fsdecode(line)) for line in lines if line.strip()]


def read_paths(table: Path, path_column: str = "path") -> list[Path]:
    """The image paths in a table with a header line, relative to the table's folder.

    One of pyiqa's, `meta_info_….csv`, is read as such, unless it has a column of that name.

    Raises:
        DatabaseError: no such table or column; a line that is too long; a path that is empty, missing or twice there. Names
            the line.
    """
    columns = () if table.suffix.lower() in SHEETS else (path_column,)  # of a text they tell the delimiter
    found = read_table(table, *columns)
    if table.name.startswith("meta_info_") and path_column not in found.header:
        return list(from_meta_info(table).paths)
    paths = found.paths(path_column, table.parent)
    check_paths(paths, table, found.places)
    return paths
