"""Where files are kept, and how one is written: whole, or not at all."""

from __future__ import annotations

import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_dir

log = logging.getLogger(__name__)  # without a handler: one line on stderr
PARTIAL = "tta-iqa-partial-"  # begins the names of half-written files
_lost: set[Path] = set()  # folders that could not be written to


def cache_folder() -> Path:
    """Where built splits and finished runs are kept; set TTA_IQA_CACHE to move it. Deleting it is always safe."""
    return Path(os.environ.get("TTA_IQA_CACHE") or user_cache_dir("tta_iqa_lib", appauthor=False))


def data_folder() -> Path:
    """The shipped data: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


def check_folder(folder: Path) -> None:
    """Before long work begins: can its results be written into this folder? It is made if it is not there.

    What a writer that was killed left there half-written goes, once nobody has touched it for an hour.

    Raises:
        OSError: no; the message names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write into '{folder}': {error.strerror}") from None
    for left in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError):  # its writer, or another sweeper, may have been quicker
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def partial_name(path: Path) -> Path:
    """Where to write what becomes `path`: beside it, with its suffix, a name that no other writer has."""
    return path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")


def _system_error(error: Exception, partial: Path) -> OSError | None:
    """What Python would have raised where a writer in another language has an error of its own; None if it was not the disk."""
    if found := re.search(r"os error (\d+)", str(error)):  # Rust's
        return OSError(int(found[1]), os.strerror(int(found[1])), str(partial))
    try:
        with partial.open("ab") as file:
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    except OSError as reason:
        return reason


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a path to write to, with the suffix of `path`. What is there when the block ends well becomes `path`.

    `path` is at every moment what it was before or what is written now, never a part of it: under an exception, a kill, a
    power cut, and with several processes or threads that write to it at once (the last one stays).

    Raises:
        OSError: the disk is full, say; also where the writer, in another language than Python, had another word for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # the content is on the disk before the name is
        partial.replace(path)
    except OSError:
        raise
    except Exception as error:
        if reason := _system_error(error, partial):
            raise reason from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """As `atomic_write`, for what only saves time later: on a full disk or in a read-only folder the file is what is lost, with
    one line for its folder on stderr, and not the work.

    Args:
        write: writes to the path that it is given.
    """
    try:
        with atomic_write(path) as partial:
            write(partial)
    except OSError as error:
        if path.parent not in _lost:
            _lost.add(path.parent)
            log.warning("tta-iqa: cannot keep '%s' (%s): it is computed again when it is needed", path, error.strerror)
