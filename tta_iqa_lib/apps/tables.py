"""Tables of results, in files: CSV, JSON Lines or Parquet. Whole or not at all."""

from __future__ import annotations

import codecs
import csv
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from ..store import atomic_write

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


CSV, JSON_LINES, PARQUET = frozenset({"", ".csv", ".txt"}), frozenset({".jsonl", ".ndjson"}), frozenset({".parquet"})


def check_table(path: Path, kinds: frozenset[str] = CSV | JSON_LINES | PARQUET) -> None:
    """Before the work begins: could `path` be written in the end? Leaves nothing behind.

    Args:
        kinds: endings that say what will be written.

    Raises:
        OSError: no.
        ValueError: it has another ending, such as a picture's, or needs a package that is not there.
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no such folder: '{path.absolute().parent}'")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write the table: '{path}' is a folder")
    if is_device(path):
        return
    if path.suffix.lower() not in kinds:
        raise ValueError(f"'{path}' must end in {', '.join(sorted(filter(None, kinds)))}")
    if path.suffix.lower() in PARQUET and not find_spec("pyarrow"):
        raise ValueError(f"to write '{path}' takes the package pyarrow: pip install pyarrow")
    path = path.resolve()
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=path.name):
            pass  # a folder may be read-only, a name too long
        if path.exists():
            path.open("ab").close()  # a spreadsheet may hold the file open
    except OSError as error:
        raise OSError(f"cannot write the table '{path}': {error.strerror}") from None


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Texts and numbers, to six decimals, in the format that the ending names; CSV is in UTF-8. Whole or not at all.

    A number that is not finite is an empty cell. Rows are taken one after another.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    if is_device(path):
        _fill(path, header, rows)
    else:
        with atomic_write(path.resolve()) as partial:
            _fill(partial, header, rows)


def is_device(path: Path) -> bool:
    """/dev/stdout or a named pipe: written to as it is, never replaced."""
    return path.absolute().parts[1:2] == ("dev",) or (path.exists() and not path.is_file())


def _fill(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    kind = path.suffix.lower()
    (_fill_parquet if kind in PARQUET else _fill_json if kind in JSON_LINES else _fill_csv)(path, header, rows)


def _fill_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors=KEEP_BYTES) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.6f}" if math.isfinite(value) else ""
    return str(value)


def json_line(header: Sequence[str], row: Sequence) -> str:
    """One row as a JSON object, in ASCII; bytes of a file name that are no text are lone surrogates."""
    return json.dumps({name: _plain(value) for name, value in zip(header, row, strict=True)})


def _plain(value):
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return str(value)


def _fill_json(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(f"{json_line(header, row)}\n" for row in rows)


def _fill_parquet(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Bytes of a file name that are no text become codes: Parquet has none but UTF-8."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema, writer = None, None
    try:
        for group in batched(rows, 1 << 16):
            if writer is None:
                kinds = [pa.float64() if isinstance(value, float) else pa.string() for value in group[0]]
                schema = pa.schema(list(zip(header, kinds, strict=True)))
                writer = ParquetWriter(path, schema)
            columns = [[_storable(value) for value in column] for column in zip(*group, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
    finally:
        if writer:
            writer.close()


def _storable(value):
    value = _plain(value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of up to `size`; `itertools.batched` from Python 3.12 on."""
    items = iter(items)
    while group := list(islice(items, size)):
        yield group
