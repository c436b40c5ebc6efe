"""What leaves the command line: nothing is lost without a word, whatever stands at the other end."""

import csv
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tta_iqa_lib.apps import inputs, resuming, scoring, tables
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.datasets.databases import from_csv
from tta_iqa_lib.imaging import files

PROGRAM = [
    sys.executable,
    "-c",
    "from tta_iqa_lib.apps.cli import app; app()",
    "score",
    "--crops",
    "1",
    "--model",
    "source-0",
]


def run(*arguments):
    """With the small model, which takes no time."""
    model = ["--model", "source-0"] if {"score", "evaluate"} & set(arguments) else []
    return CliRunner().invoke(app, [str(a) for a in arguments] + model)


def run_process(*arguments, encoding="utf-8", **options):
    """In a process of its own, as streams and encodings are those of the process."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)  # what is in a buffer is what can be lost
    return subprocess.run([*PROGRAM, *arguments], env=environment, **{"capture_output": True, **options})


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 100), (90, 120, 30)).save(tmp_path / name)
    return tmp_path


def quiet(error: bytes) -> bool:
    return b"Traceback" not in error and b"Exception" not in error and b"Errno" not in error


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "a\udce9\udcff照.png".encode("utf-8", "surrogateescape")),
        ("ascii", b"a\xe9\xff\\u7167.png"),
        ("cp1252", b"a\xe9\xff\\u7167.png"),
    ],
)
def test_bytes_that_are_no_text_go_out_as_they_came_and_letters_that_are_lacking_as_codes(encoding, expected):
    assert "a\udce9\udcff照.png".encode(encoding, tables.KEEP_BYTES) == expected
    assert "照\udce9照".encode("ascii", tables.KEEP_BYTES) == b"\\u7167\xe9\\u7167"


def test_a_name_that_is_no_text_is_written_as_it_is(folder):
    """As old archives hold them; to the table, too, which can be read again."""
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    table = folder / "out.csv"
    done = run_process(folder, "--csv", table)
    assert done.returncode == 0 and quiet(done.stderr)
    assert [line.rsplit(b"/", 1)[1] for line in done.stdout.splitlines()] == [b"a.png", b"b.png", b"caf\xe9.png"]
    assert table.read_bytes().count(b"/caf\xe9.png,") == 1
    assert len(from_csv(table)) == 3


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16"])
def test_standard_output_may_have_any_encoding(folder, encoding):
    Image.new("RGB", (100, 100)).save(folder / "照片.png")
    done = run_process(folder, encoding=encoding)
    assert done.returncode == 0 and quiet(done.stderr)
    assert done.stdout.decode(encoding).count(".png") == 3


def test_nobody_reads_on_and_nothing_is_said(folder):
    """As with `| head -1`. The table is complete."""
    read, write = os.pipe()
    os.close(read)
    done = run_process(folder, "--csv", folder / "out.csv", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0 and quiet(done.stderr) and b"cannot" not in done.stderr
    assert len((folder / "out.csv").read_text().splitlines()) == 3


def test_a_full_disk_under_standard_output_is_said(folder):
    with open("/dev/full", "w") as full:
        done = run_process(folder, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and b"cannot write to standard output: No space left" in done.stderr
    assert quiet(done.stderr)


def test_a_full_disk_under_the_table_costs_neither_the_scores_nor_the_old_table(folder, monkeypatch):
    def half(path, header, rows):
        path.write_text("path,sco")
        raise OSError(28, "No space left on device")

    (folder / "out.csv").write_text("old")
    monkeypatch.setattr(tables, "_fill", half)
    done = run("score", folder, "--crops", 1, "--csv", folder / "out.csv")
    assert done.exit_code == 2 and len(done.stdout.splitlines()) == 2
    assert f"the table '{folder / 'out.csv'}' could not be written: No space left" in done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png", "out.csv", "out.csv.journal"]
    assert (folder / "out.csv").read_text() == "old"
    monkeypatch.undo()
    monkeypatch.setattr(
        resuming, "score_batches", lambda _scorer, batches, _readers: iter(list(batches))
    )  # none are left
    again = run("score", folder, "--crops", 1, "--csv", folder / "out.csv")
    assert again.exit_code == 0 and again.stdout == done.stdout and "going on" in again.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png", "out.csv"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deep", "is a folder"),
        ("none/out.csv", "no such folder"),
        ("a.png", "must end in"),
        ("shut.csv", "Permission denied"),
        ("new.csv", "Permission denied"),
    ],
)
@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_table_that_cannot_be_written_is_noticed_before_the_work_begins(folder, monkeypatch, command, name, reason):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    (folder / "deep").mkdir()
    (folder / "shut.csv").write_text("old")
    (folder / "table.csv").write_text("path,score\na.png,1\nb.png,2\n")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    monkeypatch.setattr(resuming, "score_batches", lambda *_: pytest.fail("the work began"))
    if name == "shut.csv":
        monkeypatch.setattr(Path, "open", refuse)  # a spreadsheet holds it
    if name == "new.csv":
        monkeypatch.setattr(tables.tempfile, "NamedTemporaryFile", refuse)
    done = run(command, folder / ("table.csv" if command == "evaluate" else ""), "--csv", folder / name)
    monkeypatch.undo()
    assert done.exit_code == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert reason in done.stderr and name.split("/")[0] in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_new_table_is_tried_and_leaves_nothing_behind(folder):
    tables.check_table(folder / "out.csv")
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png"]


def test_a_link_to_a_table_stays_a_link_and_a_pipe_a_pipe(folder):
    (folder / "real").mkdir()
    (folder / "link.csv").symlink_to("real/out.csv")
    tables.check_table(folder / "link.csv")
    tables.write_table(folder / "link.csv", ["path", "score"], [("a", 1.0)])
    assert (folder / "link.csv").is_symlink() and (folder / "real/out.csv").read_text() == "path,score\na,1.000000\n"
    os.mkfifo(folder / "pipe")
    tables.check_table(folder / "pipe")
    reader = threading.Thread(target=lambda: got.append((folder / "pipe").read_text()), daemon=True)
    got: list[str] = []
    reader.start()
    tables.write_table(folder / "pipe", ["path", "score"], [("a", 1.0)])
    reader.join(10)
    assert got == ["path,score\na,1.000000\n"] and (folder / "pipe").is_fifo()


def test_printing_takes_time_in_proportion_to_the_files(tmp_path, monkeypatch):
    """30,000 in seconds; looked up in a list one by one they took a minute. In their own order, not in that of the batches."""
    many = [tmp_path / f"IMG_{i:06d}.jpg" for i in range(30_000)]
    monkeypatch.setattr(inputs, "list_images", lambda _paths: many)
    monkeypatch.setattr(
        resuming,
        "score_batches",
        lambda _scorer, batches, _readers: ([scoring.Row(p, 0.5, 0.5) for p in b] for b in batches),
    )
    start = time.perf_counter()
    done = run("score", tmp_path, "--adapt")
    assert time.perf_counter() - start < 15
    assert [line.rsplit("/", 1)[1] for line in done.stdout.splitlines()] == [path.name for path in many]


def test_what_is_left_out_of_a_folder_is_said(folder):
    (folder / "d.cr2").write_bytes(b"raw")
    done = run("score", folder, "--crops", 1)
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 2
    assert "left out" in done.stderr and "d.cr2" in done.stderr


def test_the_limit_on_pixels_can_be_raised(folder, monkeypatch):
    monkeypatch.setattr(files, "MAX_PIXELS", 9_999)
    done = run("score", folder, "--crops", 1)
    assert done.exit_code == 2 and done.stderr.count("--max-megapixels") == 2
    assert run("--max-megapixels", 1, "score", folder, "--crops", 1).exit_code == 0


def test_pillow_s_remarks_on_metadata_are_no_line_of_ours(folder):
    Image.new("RGB", (100, 100)).save(folder / "c.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    done = run_process(folder)
    assert done.returncode == 0 and done.stdout.count(b".jpg") == 1 and b"Warning" not in done.stderr


def test_the_table_holds_names_with_commas_and_quotes(folder):
    (folder / "a.png").rename(folder / 'x, "y".png')
    run("score", folder, "--crops", 1, "--csv", folder / "out.csv")
    with (folder / "out.csv").open(newline="") as lines:
        assert [Path(row["path"]).name for row in csv.DictReader(lines)] == ["b.png", 'x, "y".png']
