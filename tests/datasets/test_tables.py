"""Tables as people keep them: read rightly, or an error that names the table and the line."""

import os

import pytest
from PIL import Image

from tta_iqa_lib.datasets.databases import DatabaseError, from_table
from tta_iqa_lib.datasets.official import layout

EXPECTED = [("a.png", 3.5), ("b.png", 1.25), ("sub/c.png", 4.0)]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def write(folder, content: str | bytes):
    file = folder / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def rows(file, **options) -> list[tuple[str, float]]:
    found = from_table(file, **options)
    paths = [path.relative_to(file.parent).as_posix() for path in found.paths]
    return list(zip(paths, found.scores.tolist(), strict=True))


PLAIN = "path,score,note\na.png,3.5,caf\u00e9\nb.png,1.25,\nsub/c.png,4,no\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_a_table_in_any_usual_encoding_is_read(folder, encoding):
    assert rows(write(folder, PLAIN.encode(encoding))) == EXPECTED


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_lines_may_end_as_elsewhere(folder, ends):
    assert rows(write(folder, PLAIN.replace("\n", ends))) == EXPECTED


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_header_tells_the_delimiter(folder, delimiter):
    assert rows(write(folder, PLAIN.replace(",", delimiter))) == EXPECTED


def test_a_decimal_comma_counts_where_the_semicolon_parts_the_columns(folder):
    text = PLAIN.replace(",", ";").replace("3.5", "3,5").replace("1.25", "1,25")
    assert rows(write(folder, text)) == EXPECTED


def test_names_may_hold_the_delimiter_and_quotes(folder):
    Image.new("RGB", (4, 4)).save(folder / 'x, "y".png')
    assert rows(write(folder, 'score , path\n1,"x, ""y"".png"\n')) == [('x, "y".png', 1.0)]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_name_is_found_by_its_letters_or_by_its_bytes(folder, encoding):
    """A table in Latin-1 beside files named in UTF-8, or in Latin-1 themselves."""
    name = os.fsencode(folder) + b"/" + "caf\u00e9.png".encode(encoding)
    os.rename(folder / "a.png", name)
    (found,) = from_table(write(folder, "path,score\ncaf\u00e9.png,1\n".encode("latin-1"))).paths
    assert os.fsencode(found) == name


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('path,score\na.png,1\n"b.png,2\nd.png,3\n', r"line 3: .*stray quote"),
        (
            'path,score,note\na.png,1,"so\nb.png,2,so"\nd.png,3,\n',
            r"line 2: a quoted cell runs on to line 3.*stray quote",
        ),
        ('path,score\n"a".png,1\n', r"line 2: .*stray quote"),
        ("path,score\na.png,1\n\nb.png,nan\n", r"line 4: 'nan' is not a score"),
        ("path,score\na.png,1\nb.png,4_5\n", r"line 3: '4_5' is not a score"),
        ("path,score\na.png,1\nb.png,good\n", r"line 3: 'good' is not a score"),
        ("path,score\na.png,1\nb.png\n", r"line 3: '' is not a score"),
        ("path,score\na.png,1\n,2\n", r"line 3: no path"),
        ("path,score\na.png,1\nb.png,2\nsub/../a.png,3\n", r"line 4: 'a.png' is there already, as line 2"),
        ("path,score\na.png,1\nnone.png,2\nno.png,2\n", r"2 of 3 images of .* first '.*none\.png' \(line 3\)"),
        ("path,score\na.png,1,5\n", r"line 2: 3 cells under a header of 2"),
        ("path,score,score\na.png,1,5\n", r"two columns 'score'"),
        ("path;mos\na.png;1\n", r"no column 'path'; it has path;mos"),
        ("path,score\na.png,1," + "x" * 140_000 + "\n", r"line 2: field larger"),
        ("", r"no column 'path'"),
        (b"PK\x03\x04\0\0\xff\xfe", r"is no text: save the table as CSV"),
        ("path,score\na.png,1\n".encode("utf-16-le"), r"is no text"),
    ],
)
def test_every_fault_is_one_error_that_names_the_table_and_the_line(folder, text, complaint):
    with pytest.raises(DatabaseError, match=complaint) as caught:
        from_table(write(folder, text))
    assert "table.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_may_not_be_read_is_an_error_that_names_it(folder, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    file = write(folder, PLAIN)
    monkeypatch.setattr(type(file), "read_bytes", refuse)
    with pytest.raises(DatabaseError, match=r"cannot read '.*table\.csv': Permission denied"):
        from_table(file)


def test_no_image_of_biq2021_is_in_both_splits(tmp_path):
    (tmp_path / "Images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "Images" / "ss01 (1).jpg")
    for name in ("Train", "Test"):
        (tmp_path / f"{name} (Images and MOS).csv").write_text("Image Name,MOS\nss01 (1).jpg,0.5\n")
    with pytest.raises(DatabaseError, match=r"'ss01 \(1\)\.jpg' is there already"):
        layout("biq2021").read(tmp_path)


def test_lines_of_tid2013_are_counted_with_the_blank_ones(tmp_path):
    (tmp_path / "mos_with_names.txt").write_text("5.5 a.bmp\n\nx b.bmp\n")
    with pytest.raises(DatabaseError, match="line 3: 'x' is not a score"):
        layout("tid2013").read(tmp_path)
