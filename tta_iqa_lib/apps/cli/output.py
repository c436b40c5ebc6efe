"""What goes out: remarks on stderr, lines on stdout, tables into files. Nothing is lost without a word."""

from __future__ import annotations

import codecs
import csv
import errno
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import typer

from ...store import atomic_write

KEEP_BYTES = "tta_iqa_lib.keep_bytes"


def _keep_bytes(error: UnicodeError) -> tuple[bytes | str, int]:
    """Bytes of a file name that were no text go out as they came; a letter that the encoding lacks goes out as its code."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    if all("\udc80" <= letter <= "\udcff" for letter in part):
        return bytes(ord(letter) - 0xDC00 for letter in part), error.end
    first = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    if "\udc80" <= part[0] <= "\udcff":
        return _keep_bytes(first)
    return codecs.backslashreplace_errors(first)


codecs.register_error(KEEP_BYTES, _keep_bytes)


def report(message: str) -> None:
    """One line on stderr."""
    print(f"tta-iqa: {message}", file=sys.stderr)


def print_lines(lines: Iterable[str]) -> None:
    """To stdout, at once. Where nobody reads on (`| head`), quietly no further.

    Raises:
        typer.Exit: 2, with a word, where they cannot be written.
    """
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer goes nowhere: else Python would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        closed = errno.EINVAL if os.name == "nt" else errno.EPIPE
        if error.errno != closed:
            report(f"cannot write to standard output: {error.strerror}")
            raise typer.Exit(2) from None


def check_table(path: Path) -> None:
    """Before the work begins: could `path` be written in the end? Leaves nothing behind.

    Raises:
        OSError: no.
        ValueError: it is a picture.
    """
    from ...imaging.files import SUFFIXES

    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no such folder: '{path.absolute().parent}'")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write the table: '{path}' is a folder")
    if path.exists() and path.suffix.lower() in SUFFIXES:
        raise ValueError(f"the table would overwrite the picture '{path}'")
    if _is_device(path):
        return
    path = path.resolve()
    new = not path.exists()
    try:
        with path.open("ab"), tempfile.TemporaryFile(dir=path.parent):
            pass  # a spreadsheet may hold the file open; a folder may be read-only
    except OSError as error:
        raise OSError(f"cannot write the table '{path}': {error.strerror}") from None
    finally:
        if new:
            path.unlink(missing_ok=True)


def write_table(path: Path, header: list[str], rows: Iterable) -> None:
    """CSV in UTF-8: a name, then numbers. Whole or not at all.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    if _is_device(path):
        _fill(path, header, rows)
    else:
        with atomic_write(path.resolve()) as partial:
            _fill(partial, header, rows)


def _is_device(path: Path) -> bool:
    """/dev/stdout or a named pipe: written to as it is, never replaced."""
    return path.absolute().parts[1:2] == ("dev",) or (path.exists() and not path.is_file())


def _fill(path: Path, header: list[str], rows: Iterable) -> None:
    with path.open("w", newline="", encoding="utf-8", errors=KEEP_BYTES) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([first, *(f"{number:.6f}" for number in numbers)] for first, *numbers in rows)
