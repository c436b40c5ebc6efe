"""Which images a command line names."""

import io
import os

import pytest
from PIL import Image

from tta_iqa_lib.apps.inputs import find_images
from tta_iqa_lib.datasets.tables import DatabaseError
from tta_iqa_lib.imaging.files import ImageError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "deep/c.png", "deep/é.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def names(found) -> list[str]:
    return [path.name for path in found]


def test_files_folders_and_patterns_keep_their_order_and_no_file_comes_twice(folder):
    assert names(find_images([folder / "b.png", folder])) == ["b.png", "a.jpg", "c.png", "é.png"]
    assert names(find_images([f"{folder}/**/*.png", folder / "a.jpg"])) == ["b.png", "c.png", "é.png", "a.jpg"]
    with pytest.raises(ImageError, match=r"fits the pattern .*\*\.gif"):
        find_images([f"{folder}/*.gif"])


def test_a_name_with_an_asterisk_is_no_pattern_where_such_a_file_is(folder):
    (folder / "a.jpg").rename(folder / "[b].jpg")
    assert names(find_images([folder / "[b].jpg"])) == ["[b].jpg"]


@pytest.mark.parametrize("end", [b"\n", b"\0", b"\r\n"])
def test_paths_on_standard_input_are_bytes(folder, monkeypatch, end):
    """As `ls` and `find -print0` write them, whatever the file system holds."""
    odd = os.fsencode(folder) + b"/caf\xe9 .png"
    with open(odd, "wb") as file:
        Image.new("RGB", (4, 4)).save(file, "PNG")
    content = end.join([os.fsencode(folder / "b.png"), odd, b""])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert [os.fsencode(path) for path in find_images(["-"])] == content.split(end)[:-1]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_a_table_names_paths_relative_to_itself(folder, delimiter, encoding):
    rows = [("note", "path"), ("x", "deep/é.png"), ("", ""), ("y", "b.png")]
    (folder / "t.csv").write_text("\n".join(delimiter.join(row) for row in rows), encoding=encoding)
    assert find_images([folder / "t.csv"]) == [folder / "deep/é.png", folder / "b.png"]


def test_a_workbook_or_parquet_names_them_too(folder):
    openpyxl, pyarrow = pytest.importorskip("openpyxl"), pytest.importorskip("pyarrow")
    book = openpyxl.Workbook()
    for row in (["n", "path"], [1, "deep/é.png"], [2, "b.png"]):
        book.active.append(row)
    book.save(folder / "t.xlsx")
    table = pyarrow.table({"n": [1, 2], "path": ["deep/é.png", "b.png"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "t.parquet")
    for name in ("t.xlsx", "t.parquet"):
        assert find_images([folder / name]) == [folder / "deep/é.png", folder / "b.png"]
    book.active.append([3, None])
    book.save(folder / "t.xlsx")
    with pytest.raises(DatabaseError, match=r"t\.xlsx', line 4: no path"):
        find_images([folder / "t.xlsx"])


def test_a_table_of_pyiqa_tells_its_paths_by_the_order_of_its_columns(folder):
    table = folder / "meta_info_MineDataset.csv"
    table.write_text("img_name,mos\na.jpg,3\nb.png,2\n")
    assert names(find_images([table])) == ["a.jpg", "b.png"]
    table.write_text("img_name,path,mos\na.jpg,b.png,3\n")
    assert names(find_images([table])) == ["b.png"]
    table.rename(folder / "mine.csv")
    with pytest.raises(DatabaseError, match="no column 'name'"):
        find_images([folder / "mine.csv"], "name")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["file", "b.png"], "no column 'path'; it has file"),
        ([], "no column 'path'; it has none"),
        (["path", "b.png", "none.png"], r"none\.png' \(line 3\)"),
        (["path", "b.png", "", "./b.png"], "line 4: 'b.png' is there already, as line 2"),
        (["path,n", "b.png,1", "a.jpg,2,3"], "line 3: 3 cells"),
        (["n,path", "1,b.png", "2"], "line 3: no path"),
        (["path,n", ",1"], "line 2: no path"),
        (["path", '"b.png', 'a".jpg'], "line 2: .* stray quote"),
        (["path", '"b.png', 'a.jpg"'], "line 2: a quoted cell runs on to line 3.* stray quote"),
        (["path", '"b.png" x'], "line 2: .* stray quote"),
        (["path"], "names no images"),
    ],
)
def test_a_fault_of_a_table_is_named_with_its_line(folder, lines, reason):
    (folder / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DatabaseError, match=reason):
        find_images([folder / "t.csv"])
