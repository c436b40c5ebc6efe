"""`tta-iqa score`, option by option, with a tiny model of one's own."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tta_iqa_lib.apps import scoring
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.scorers import Scorer

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--model", "helpers:tiny_scorer", "--crops", "1")


def run(*arguments, **options):
    return CliRunner().invoke(app, ["score", *map(str, arguments), *TINY], **options)


def table(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_has_a_line_in_the_table_and_the_decision_and_its_reason_stand_there(twelve, tmp_path):
    done = run(twelve, "--adapt", "--batch-size", 5, "--out", tmp_path / "t.csv")
    rows = table(tmp_path / "t.csv")
    assert [Path(row["path"]).name for row in rows] == sorted(path.name for path in twelve.iterdir())
    assert done.exit_code == 1 and "1 of 13 files could not be scored" in done.stderr
    (bad,) = [row for row in rows if row["error"]]
    assert bad["path"].endswith("05b.png") and bad["score"] == bad["decision"] == "" and "not an image" in bad["error"]
    decisions = {row["decision"] for row in rows} - {""}
    assert decisions <= {"adapted", "source"} and all(bool(r["reason"]) == (r["decision"] == "source") for r in rows)


def test_how_many_batches_were_adapted_is_said_and_why_the_others_were_not(twelve):
    done = run(twelve, "--adapt", "--batch-size", 3)
    assert (
        "recipe: adapted to 0 of 5 batches; 5 left to the source model: fewer than 4 pictures in the batch"
        in done.stderr
    )
    assert "adapted to 5 of 5 batches\n" in run(twelve, "--method", "bn-blend", "--batch-size", 3).stderr
    assert "adapted to" not in run(twelve).stderr


def test_json_lines_on_standard_output_say_what_the_table_says(twelve, tmp_path):
    done = run(twelve, "--adapt", "--json", "--out", tmp_path / "t.jsonl")
    assert done.stdout == (tmp_path / "t.jsonl").read_text()
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 13 and [row["score"] for row in rows if row["error"]] == [None]


def test_a_line_is_written_as_soon_as_those_before_it_are(twelve, monkeypatch):
    """Batch by batch where images do not influence one another."""
    lines = []
    monkeypatch.setattr("tta_iqa_lib.apps.cli.output.print_lines", lambda new: lines.append(len(list(new))) or True)
    run(twelve, "--batch-size", 5)
    assert lines == [4, 4, 4]


def test_nobody_reads_on_and_the_work_stops(twelve, monkeypatch):
    """Without a table there is nobody left to work for."""
    calls, true = [], Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda self, rows: calls.append(1) or true(self, rows))
    monkeypatch.setattr("tta_iqa_lib.apps.cli.output.print_lines", lambda _lines: False)
    assert run(twelve, "--batch-size", 3).exit_code == 0 and len(calls) == 1


@pytest.mark.parametrize("method", ["recipe", "rank+gc", "ema", "memo", "views", "reference"])
def test_readers_in_the_background_change_nothing(twelve, tmp_path, method):
    for workers in (0, 3):
        run(twelve, "--method", method, "--batch-size", 5, "--workers", workers, "--out", tmp_path / f"{workers}.csv")
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()


def test_pictures_are_read_while_the_model_computes(twelve, monkeypatch):
    """The whole of the second batch is there before the first one is scored."""
    files, read, second = sorted(twelve.glob("??.png")), [], threading.Event()
    true = scoring.read_crops

    def reading(path, *how):
        read.append(path)
        if len(read) == 12:
            second.set()
        return true(path, *how)

    monkeypatch.setattr(scoring, "read_crops", reading)
    from helpers import tiny_scorer

    batches = scoring.score_batches(Scorer(tiny_scorer()), [files[:6], files[6:]], workers=2)
    next(batches)
    assert second.wait(10)
    in_turn = scoring.score_batches(Scorer(tiny_scorer()), [files[:6], files[6:]])
    read.clear()
    next(in_turn)
    assert len(read) == 6


def test_a_reader_that_fails_ends_the_run_and_hangs_nothing(twelve, monkeypatch):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(scoring, "read_crops", broken)
    assert isinstance(run(twelve, "--workers", 2).exception, MemoryError)


@pytest.mark.parametrize("arguments", [["--adapt"], ["--method", "rank+gc"]])
def test_a_run_that_is_killed_goes_on_where_it_stopped(twelve, tmp_path, arguments):
    """SIGKILL in the middle, in a process of its own; then the table of an uninterrupted run, byte for byte."""
    options = [str(twelve), *arguments, "--batch-size", "2", *TINY]
    run(*options, "--out", tmp_path / "whole.csv")
    program = "import sys, time\nfrom tta_iqa_lib.apps import scorers\ntrue = scorers.Scorer.__call__\n"
    program += "scorers.Scorer.__call__ = lambda self, rows: time.sleep(0.3) or true(self, rows)\n"
    program += "from tta_iqa_lib.apps.cli import app\napp()"
    command = [sys.executable, "-c", program, "score", *options, "--out", str(tmp_path / "killed.csv")]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    journal = tmp_path / "killed.csv.journal"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed.csv").exists()
    done = run(*options, "--out", tmp_path / "killed.csv")
    assert "of 7 batches are done" in done.stderr
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes() and not journal.exists()


def test_a_page_is_written_beside_the_lines(twelve, tmp_path):
    done = run(twelve, "--method", "bn-blend", "--sheet", tmp_path / "s.html")
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert (
        len(done.stdout.splitlines()) == 12 and "bn-blend: adapted to 1 of 1 batches" in text and "Moved most" in text
    )


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--method", "nothing"), "no method 'nothing'"),
        (("--device", "cuda:99"), "no 'cuda:99' here"),
        (("--precision", "int8"), "float32"),
        (("--sheet", "s.txt"), "must end in .htm"),
        (("--out", "s.xlsx"), "must end in .csv"),
        (("--method", "stream-order-2"), "several times"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_work_begins(twelve, option, reason, monkeypatch):
    monkeypatch.chdir(twelve)
    done = run(twelve, *option)
    assert done.exit_code == 2 and done.stdout == "" and reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_tab_completes_models_and_methods():
    def complete(words: str) -> set[str]:
        environment = {
            "_TTA_IQA_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        return set(CliRunner().invoke(app, [], prog_name="tta-iqa", env=environment).stdout.split())

    assert complete("tta-iqa score --model ph") == {"photographs"}
    assert {"rank+gc", "rotation"} & complete("tta-iqa score --method r") == {"rank+gc"}


def one_size():
    """A network for pictures of 3 × 3 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(27, 1))


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_model_that_fails_on_the_pictures_ends_the_run_in_one_line(twelve, tmp_path, command):
    table = tmp_path / "t.csv"
    table.write_text("path,score\n" + "".join(f"twelve/{i:02d}.png,{i}\n" for i in range(12)))
    done = CliRunner().invoke(app, [command, str(table), "--model", "test_score:one_size", "--method", "views"])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit) and done.stdout == ""
    assert "tta-iqa: the method 'views' fails on 48 crops of 224 × 224: RuntimeError: " in done.stderr
