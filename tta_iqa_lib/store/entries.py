"""The one place where finished work is kept: under a key of all that decides it, each entry whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from .code import code_hash
from .files import cache_folder, keep
from .identity import Unidentified, identity

T = TypeVar("T")
log = logging.getLogger(__name__)  # without a handler: one line on stderr


class Store:
    """Results by name, kept in the cache folder as long as everything that decides them is the same.

    Several processes may use one store at once: each entry is a file of its own that appears when it is complete. A damaged
    one is named on stderr and computed again.

    Args:
        name: of what is kept; a folder.
        depends_on: the rooms or modules whose code decides the results; see `code_hash`.
        decides: all else that does, by name: models, paths, tensors, settings; see `identity`. If one of them cannot be
            identified, a line on stderr says so and nothing is kept: what depends on it is computed each time.

    Attributes:
        key: of all that decides, and of PyTorch's version; None if nothing is kept.

    Raises:
        ValueError: the library has no such room or module.
    """

    def __init__(self, name: str, depends_on: Iterable[str], **decides: Any):
        import torch  # here, as it takes two seconds, and to read and write files needs none of it

        code = code_hash(*depends_on)
        try:
            self.key = identity([code, torch.__version__, decides])[:16]
        except Unidentified as reason:
            log.warning("tta-iqa: results of '%s' are not kept: %s", name, reason)
            self.key = None
        self.folder = cache_folder() / name / self.key if self.key else None

    def get(self, entry: str, compute: Callable[..., Any], *arguments: Any) -> Any:
        """What is kept under `entry`, or else what `compute(*arguments)` gives, which is kept.

        Args:
            entry: a name that ends in ".json" (plain data) or ".npz" (a dictionary of arrays).
        """
        found = self.find(entry)
        return self.put(entry, compute(*arguments)) if found is None else found

    def find(self, entry: str) -> Any | None:
        """What is kept under `entry`; None if nothing is, or only something damaged."""
        read, _, _ = FORMATS[Path(entry).suffix]
        path = self.path(entry)
        return path and read_whole(path, read)

    def put(self, entry: str, value: Any) -> Any:
        """Keep a value, if there is room for it. Returns it as `find` will: plain data as JSON gives it back, arrays of NumPy."""
        _, write, convert = FORMATS[Path(entry).suffix]
        value, path = convert(value), self.path(entry)
        if path:
            keep(path, lambda partial: write(partial, value))
        return value

    def path(self, entry: str) -> Path | None:
        """The file of an entry; None if nothing is kept."""
        return self.folder / quote(entry, safe=" ,+=()") if self.folder else None


def read_whole(path: Path, read: Callable[[Path], T]) -> T | None:
    """`read(path)`; None if there is no such file, or a damaged one, which a line on stderr names."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever ails it, the remedy is to make it again
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.warning("tta-iqa: '%s' is damaged (%s): it is computed again", path, reason)
        return None


def _checksum(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _read_json(path: Path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["checksum"] != _checksum(stored["value"]):
        raise ValueError("its checksum is wrong")
    return stored["value"]


def _write_json(path: Path, value) -> None:
    path.write_text(json.dumps({"checksum": _checksum(value), "value": value}), encoding="utf-8")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:  # a zip file, which has checksums
        return dict(stored)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType] (an array is no option)


# By suffix: read, write, and what a value becomes by being kept.
FORMATS: dict[str, tuple[Callable, Callable, Callable]] = {
    ".json": (_read_json, _write_json, lambda value: json.loads(json.dumps(value))),
    ".npz": (_read_arrays, _write_arrays, lambda value: {name: np.asarray(array) for name, array in value.items()}),
}
