"""Tables of results in each format."""

import csv
import json
import math

import pytest

from tta_iqa_lib.apps.tables import check_table, write_table

HEADER = ("path", "score", "error")
ROWS = [('x, "y".png', 1.23456789, ""), ("caf\udce9.png", -2.0, ""), ("照.png", math.nan, "no such file")]


def test_csv_and_json_lines_hold_the_same(tmp_path):
    """Six decimals; a number that is none is an empty cell or null; names that are no text stay the bytes they are."""
    for name in ("t.csv", "t.jsonl"):
        write_table(tmp_path / name, HEADER, ROWS)
    assert b"caf\xe9.png" in (tmp_path / "t.csv").read_bytes()
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        cells = list(csv.DictReader(file))
    objects = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text(encoding="ascii").splitlines()]
    assert [row["path"] for row in cells] == [row["path"] for row in objects] == [row[0] for row in ROWS]
    assert [row["score"] for row in cells] == ["1.234568", "-2.000000", ""]
    assert [row["score"] for row in objects] == [1.234568, -2.0, None]
    assert cells[2]["error"] == objects[2]["error"] == "no such file"


def test_parquet_holds_the_same(tmp_path):
    """In groups of rows, and twice to the same bytes; bytes that are no text become codes."""
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("t.parquet", "again.parquet"):
        write_table(tmp_path / name, HEADER, iter(ROWS * 30_000))
    table = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert table["path"][:3] == ['x, "y".png', "caf\\udce9.png", "照.png"] and len(table["path"]) == 90_000
    assert table["score"][:3] == [1.234568, -2.0, None] and table["error"][2] == "no such file"
    assert (tmp_path / "t.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_an_ending_that_names_no_format_is_refused_and_so_is_parquet_without_its_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in .csv, .jsonl"):
        check_table(tmp_path / "t.xlsx")
    monkeypatch.setattr("tta_iqa_lib.apps.tables.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        check_table(tmp_path / "t.parquet")
