"""Which images are meant: files, folders, globs, tables of paths, lists on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..datasets.tables import DatabaseError, check_paths, delimiter_of, find_file, read_text, rows_of
from ..imaging.files import ImageError, list_images

TABLES = frozenset({".csv", ".tsv"})


def find_images(arguments: Iterable[str | Path], path_column: str = "path") -> list[Path]:
    """The images that a command line names, in its order; one that is named twice is listed once.

    Args:
        arguments: files; folders (see `list_images`); patterns such as ``photos/**/*.jpg``, for shells that leave them as they
            are; tables of paths (.csv, .tsv, relative to the table's folder); "-" for paths on standard input, a line each,
            or ended by NUL as `find -print0` does.
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

    Raises:
        DatabaseError: no such table or column; a line of another length; a path that is empty, missing or twice there. Names
            the line.
    """
    text, encoding = read_text(table)
    paths, lines, names = [], [], []
    for line, row in rows_of(text, delimiter_of(text, path_column), table):
        row = [cell.strip() for cell in row]
        if not names:
            names = row
            if names.count(path_column) != 1:
                raise DatabaseError(f"'{table}' needs one column '{path_column}'; it has {', '.join(names)}")
            continue
        if len(row) != len(names):
            raise DatabaseError(f"'{table}', line {line}: {len(row)} cells under a header of {len(names)}")
        if not (name := row[names.index(path_column)]):
            raise DatabaseError(f"'{table}', line {line}: no path")
        paths.append(find_file(table.parent, name, encoding))
        lines.append(line)
    check_paths(paths, table, [f"line {line}" for line in lines])
    return paths
