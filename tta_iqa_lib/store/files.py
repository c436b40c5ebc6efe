"""Where files are kept, and how one is written: whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """Where built splits and finished runs are kept; set TTA_IQA_CACHE to move it. Deleting it is always safe."""
    return Path(os.environ.get("TTA_IQA_CACHE") or user_cache_dir("tta_iqa_lib", appauthor=False))


def data_folder() -> Path:
    """The shipped data: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a path to write to, with the suffix of `path`. What is there when the block ends well becomes `path`.

    `path` is at every moment what it was before or what is written now, never a part of it: under an exception, a kill, a
    power cut, and with several processes or threads that write to it at once (the last one stays).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{secrets.token_hex(4)}-{path.name}")  # each writer has its own
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # the content is on the disk before the name is
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
