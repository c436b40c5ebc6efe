"""Tables that are no text, and folders without a table."""

import sys

import pytest
from openpyxl import Workbook
from PIL import Image

from tta_iqa_lib.datasets.databases import DatabaseError, from_folder, from_table, read

ROWS = [("a.png", 3.5, "x"), ("sub/b.png", 1.0, "y")]


@pytest.fixture
def folder(tmp_path):
    for name, *_ in ROWS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def workbook(file, rows, title="opinions"):
    book = Workbook()
    book.active.title = title
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["nothing here"])
    book.save(file)
    return file


def parquet(file, rows):
    from pyarrow import parquet, table

    columns = list(zip(*rows[1:], strict=True))
    parquet.write_table(table({name: list(cells) for name, cells in zip(rows[0], columns, strict=True)}), file)
    return file


HEADER = ("path", "score", "shows")


@pytest.mark.parametrize(("name", "write"), [("t.xlsx", workbook), ("t.parquet", parquet)])
def test_a_sheet_is_read_as_a_text_is(folder, name, write):
    file = write(folder / name, [HEADER, *ROWS])
    found = read(file)
    assert [path.relative_to(folder).as_posix() for path in found.paths] == ["a.png", "sub/b.png"]
    assert found.scores.tolist() == [3.5, 1.0] and found.content.tolist() == ["", ""]
    labelled = from_table(file, content_column="shows", split_column="shows", higher_is_better=False)
    assert labelled.content.tolist() == labelled.split.tolist() == ["x", "y"] and labelled.scores.tolist() == [-3.5, -1]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".tsv", "\t"), (".tab", "\t"), (".txt", ";")])
def test_a_text_may_have_other_names_than_csv(folder, suffix, delimiter):
    file = folder / f"t{suffix}"
    file.write_text("\n".join(delimiter.join(map(str, row)) for row in [HEADER, *ROWS]))
    assert read(file).scores.tolist() == [3.5, 1.0]


def test_titles_above_the_header_and_remarks_below_do_no_harm(folder):
    rows = [["Opinions, 2024"], [], HEADER, *ROWS, [], [None, None, "30 observers"]]
    assert from_table(workbook(folder / "t.xlsx", rows)).scores.tolist() == [3.5, 1.0]


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([HEADER, ROWS[0], ("sub/b.png", None, "y")], {}, r"line 3: '' is not a score"),
        ([HEADER, ROWS[0], (None, 2, "y")], {}, r"line 3: no path"),
        ([HEADER, ROWS[0], ROWS[0]], {}, r"line 3: 'a.png' is there already, as line 2"),
        ([("file", "mos"), ("a.png", 1)], {}, r"has no column 'path'; it has file, mos"),
        ([HEADER, *ROWS], {"sheet": "Sheet1"}, r"has no sheet 'Sheet1'; it has opinions, notes"),
    ],
)
def test_a_fault_of_a_workbook_is_named_with_its_line(folder, rows, options, complaint):
    with pytest.raises(DatabaseError, match=complaint) as caught:
        from_table(workbook(folder / "t.xlsx", rows), **options)
    assert "t.xlsx" in str(caught.value)


def test_an_opinion_that_is_not_a_number_is_found_in_parquet_too(folder):
    file = parquet(folder / "t.parquet", [HEADER, ROWS[0], ("sub/b.png", float("nan"), "y")])
    with pytest.raises(DatabaseError, match=r"t\.parquet', line 2: 'nan' is not a score"):
        read(file)


@pytest.mark.parametrize("name", ["t.xlsx", "t.parquet"])
def test_what_is_no_such_file_is_an_error_that_names_it(folder, name):
    (folder / name).write_bytes(b"nothing of the kind")
    with pytest.raises(DatabaseError, match=rf"cannot read '.*{name}'"):
        read(folder / name)


@pytest.mark.parametrize(("name", "package"), [("t.xlsx", "openpyxl"), ("t.parquet", "pyarrow")])
def test_without_its_package_the_error_says_what_to_install(folder, name, package, monkeypatch):
    (folder / name).touch()
    for module in (package, "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatabaseError, match=rf"needs the package {package}: pip install {package}"):
        read(folder / name)


def test_a_plain_folder_has_images_and_no_opinions(folder):
    found = from_folder(folder)
    assert [path.name for path in found.paths] == ["a.png", "b.png"] and found.subset.tolist() == ["", "sub"]
    assert all(score != score for score in found.scores)
    (folder / "empty").mkdir()
    with pytest.raises(DatabaseError, match="no images in"):
        from_folder(folder / "empty")
    with pytest.raises(DatabaseError, match="no such folder"):
        from_folder(folder / "none")
