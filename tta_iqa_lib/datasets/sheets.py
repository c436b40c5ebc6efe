"""Tables that are no text: a sheet of an Excel workbook, and Parquet. The packages that read them are optional."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from .tables import DatabaseError


def read_sheet(file: Path, columns: Sequence[str] = (), sheet: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """The header, then the rows that are not blank, each with its number; every cell as text.

    Args:
        columns: the first row that holds all of them is the header, as titles may stand above it; else the first that is
            not blank.
        sheet: of a workbook; its first by default.

    Raises:
        DatabaseError: the package for it is missing (the message names it), no such sheet, or not such a file.
    """
    try:
        rows = _parquet(file) if file.suffix.lower() == ".parquet" else _workbook(file, sheet)
    except DatabaseError:
        raise
    except Exception as error:  # each package has its own, and those of zip, XML and Thrift come through
        raise DatabaseError(f"cannot read '{file}': {error or type(error).__name__}") from None
    rows = [(number, ["" if cell is None else str(cell).strip() for cell in row]) for number, row in rows]
    rows = [(number, row) for number, row in rows if any(row)]
    heads = (i for i, (_, row) in enumerate(rows) if set(columns) <= set(row))
    return iter(rows[next(heads, 0) :])


def _workbook(file: Path, sheet: str | None) -> list[tuple[int, Sequence]]:
    book = _package("openpyxl", file).load_workbook(file, read_only=True, data_only=True)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise DatabaseError(f"'{file}' has no sheet '{sheet}'; it has {', '.join(book.sheetnames)}")
        return list(enumerate(book[sheet or book.sheetnames[0]].iter_rows(values_only=True), 1))
    finally:
        book.close()


def _parquet(file: Path) -> list[tuple[int, Sequence]]:
    table = _package("pyarrow.parquet", file).read_table(file)
    return [(0, table.column_names), *enumerate(zip(*table.to_pydict().values(), strict=True), 1)]


def _package(name: str, file: Path):
    try:
        return import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise DatabaseError(f"reading '{file}' needs the package {package}: pip install {package}") from None
