"""What a machine does to long work: kills it, fills its disk, shuts its folders, takes a worker, starts it twice.

Nothing is lost, nothing half-written stands under a name, no lock stays behind. The processes are real, and so are the kills and
the full disks. Kills of `score`, of the store, of a grid and of a training, and lost workers stand with the tests of these.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from helpers import tiny_scorer
from PIL import Image

from tta_iqa_lib.apps.journals import Journal
from tta_iqa_lib.apps.resuming import score_open
from tta_iqa_lib.apps.scorers import Scorer
from tta_iqa_lib.apps.scoring import Row

ROOT = Path(__file__).resolve().parents[1]
CLI = [sys.executable, "-c", "from tta_iqa_lib.apps.cli import app; app()"]
TINY = ["--model", "helpers:tiny_scorer", "--crops", "1"]


def environment(**more) -> dict:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "teaching" / "kit")))
    return (
        os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in more.items()}
    )


def start(command, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [*map(str, command)], env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(command, **more) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], env=environment(**more), capture_output=True, text=True, timeout=300)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


def quiet(error: str) -> bool:
    return "Traceback" not in error


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        Image.effect_noise((40, 40), 20 + 10 * i).convert("RGB").save(folder / f"{i}.png")
    return folder


# A disk of its own, which is full or read-only: a mount that only the process sees.


def has_mounts() -> bool:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True).returncode == 0


own_disk = pytest.mark.skipif(not has_mounts(), reason="this system mounts no disk for a test")


def on_own_disk(folder: Path, size: str, steps: str, **more) -> subprocess.CompletedProcess:
    """Shell commands, `cli` among them, with a disk of this size in `folder`."""
    head = f"set -u\ncli() {{ {sys.executable} -c 'from tta_iqa_lib.apps.cli import app; app()' \"$@\"; }}\n"
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder} && cd {folder} || exit 99\n"
    return finish(["unshare", "-rm", "sh", "-c", head + mount + textwrap.dedent(steps)], **more)


@own_disk
def test_a_store_on_a_full_or_read_only_disk_costs_the_keeping_and_not_the_work(tmp_path):
    steps = f"""
    {sys.executable} - <<'END'
    import os, subprocess
    import numpy as np
    from tta_iqa_lib.store import Store
    store = Store("tests", ["metrics"])
    store.put("small.json", 1)
    for i in range(3):
        assert len(store.get("large.json", lambda: list(range(300_000)))) == 300_000
        assert store.get("large.npz", lambda: {{"a": np.zeros(300_000)}})["a"].shape == (300_000,)
    assert [p.name for p in store.folder.iterdir()] == ["small.json"], list(store.folder.iterdir())
    subprocess.run(["mount", "-o", "remount,size=20m", "."], check=True)  # somebody has made room
    store.put("large.json", [2])
    assert store.find("large.json") == [2]
    subprocess.run(["mount", "-o", "remount,ro", "."], check=True)
    assert Store("other", ["metrics"]).get("a.json", lambda: 3) == 3 and store.find("small.json") == 1
    END
    """
    done = on_own_disk(tmp_path, "1m", textwrap.dedent(steps), TTA_IQA_CACHE=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and "No space left" in lines[0] and "Read-only file system" in lines[1]


@own_disk
def test_a_writer_in_another_language_has_the_same_word_for_a_full_disk(tmp_path):
    """PyTorch says "unexpected pos", safetensors has an error of its own."""
    steps = f"""
    {sys.executable} - <<'END'
    import os
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from tta_iqa_lib.store import atomic_write
    large = {{"a": torch.zeros(1_000_000)}}
    for write in (lambda p: torch.save(large, p), lambda p: save_file(large, p)):
        Path("model").write_text("old")
        try:
            with atomic_write(Path("model")) as partial:
                write(partial)
        except OSError as error:
            print(error.strerror)
        assert os.listdir() == ["model"] and Path("model").read_text() == "old"
    END
    """
    done = on_own_disk(tmp_path, "1m", textwrap.dedent(steps))
    assert done.returncode == 0 and done.stdout == 2 * "No space left on device\n", done.stderr


@own_disk
def test_scores_on_a_full_disk_go_to_standard_output_and_the_next_run_goes_on(pictures, tmp_path):
    """The disk has room for the journal's first batches, not for all: once for none at all, once for one page."""
    (tmp_path / "disk").mkdir()
    command = f"cli score {pictures} --method rank+gc --batch-size 2 {' '.join(TINY)} --out out.csv"
    steps = f"""
    cp {pictures}/0.png . && dd if=/dev/zero of=filler bs=4k count=10000 2>/dev/null
    {command} > scores; echo "exit $?"
    ls
    rm filler
    {command} > again 2> said; echo "exit $?"
    ls; wc -l < out.csv; wc -l < again
    """
    for size in ("64k", "68k"):
        done = on_own_disk(tmp_path / "disk", size, steps.replace("> scores", ""))
        lines = done.stdout.splitlines()
        scores = [line for line in lines if "\t" in line]
        rest = [line for line in lines if "\t" not in line]
        assert len(scores) == 8 and rest[0] == "exit 2", done.stdout + done.stderr
        assert "could not be written: No space left" in done.stderr and quiet(done.stderr)
        assert rest[rest.index("exit 0") + 1 :] == ["0.png", "again", "out.csv", "said", "9", "8"]


@own_disk
def test_a_read_only_folder_is_noticed_before_the_work_begins(pictures, tmp_path):
    source = ROOT / "book" / "assignments" / "source" / "a2_rank" / "a2_rank.ipynb"
    (tmp_path / "in").mkdir()
    (tmp_path / "disk").mkdir()
    shutil.copy(ROOT / "book" / "assignments" / "release" / "a2_rank" / "a2_rank.ipynb", tmp_path / "in" / "anna.ipynb")
    steps = f"""
    mount -o remount,ro .
    cli score {pictures} {" ".join(TINY)} --out out.csv; echo "exit $?"
    cli plan {pictures} {" ".join(TINY)} --out plan.jsonl; echo "exit $?"
    cli train --epochs 1 --out deep/model.safetensors; echo "exit $?"
    cli course grade {source} {tmp_path}/in --out grades; echo "exit $?"
    cli course release {source} --out release; echo "exit $?"
    """
    done = on_own_disk(tmp_path / "disk", "1m", steps)
    assert done.stdout.splitlines() == ["exit 2"] * 5
    assert done.stderr.count("Read-only file system") == 5 and quiet(done.stderr) and "epochs" not in done.stderr


# Kills


def test_a_part_of_a_plan_that_is_killed_goes_on_and_its_twin_does_no_harm(pictures, tmp_path):
    """Two processes do the same part at once; one is killed. What both have done is one table, that of a run left alone."""
    plan, table = tmp_path / "plan.jsonl", tmp_path / "table.csv"
    options = ["--method", "rank+gc", "--batch-size", "2", *TINY]
    assert finish([*CLI, "score", pictures, *options, "--out", tmp_path / "whole.csv"]).returncode == 0
    assert finish([*CLI, "plan", pictures, *options, "--out", plan]).returncode == 0
    slow = """
    import time
    from tta_iqa_lib.apps import scorers
    true = scorers.Scorer.__call__
    scorers.Scorer.__call__ = lambda self, rows: time.sleep(0.5) or true(self, rows)
    from tta_iqa_lib.apps.cli import app
    app()
    """
    twins = [start([*program(slow), "shard", plan, "--part", "0/1", "--workers", "0"]) for _ in range(2)]
    journal = tmp_path / "plan.parts" / "0-of-1.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert twins[0].poll() is None, twins[0].stderr.read()
        time.sleep(0.02)
    twins[0].kill()
    assert twins[0].wait(60) == -signal.SIGKILL
    assert twins[1].wait(120) == 0
    assert [path.name for path in journal.parent.iterdir()] == ["0-of-1.jsonl"]
    again = finish([*CLI, "shard", plan])
    assert again.returncode == 0 and "4 of them are done" in again.stderr
    assert finish([*CLI, "merge", plan, "--out", table]).returncode == 0
    assert table.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_grading_that_is_killed_leaves_no_process_and_no_half_grade_and_goes_on(tmp_path):
    """In the middle: one student's function sleeps, and would do so for a long time."""
    prepare = f"""
    from pathlib import Path
    from handed_in import assignment, handed_in
    from tta_iqa_lib.teaching.kit.source import write_notebook
    sleeps = "import os, time\\n\\ndef pull(a, b):\\n    time.sleep(19)"
    for name, answers in (("anna", {{}}), ("ben", {{"pull": sleeps}})):
        write_notebook(handed_in(assignment("a2_rank"), answers), Path({str(tmp_path / "in")!r}, name, "x.ipynb"))
    """
    assert finish(program(prepare)).returncode == 0
    source = ROOT / "book" / "assignments" / "source" / "a2_rank" / "a2_rank.ipynb"
    command = [*CLI, "course", "grade", source, tmp_path / "in", "--out", tmp_path / "grades"]
    process = start(command, FAULTS=tmp_path)  # by which its descendants are known
    kept = tmp_path / "grades" / ".grades" / "a2_rank"
    while not (kept / "anna.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    assert len(descendants(process.pid)) >= 3
    family = descendants(process.pid)
    process.kill()
    process.wait(60)
    end = time.monotonic() + 15
    while any(map(alive, family)) and time.monotonic() < end:
        time.sleep(0.1)
    assert [one for one in family if alive(one)] == []
    before = (kept / "anna.json").stat().st_mtime_ns
    assert not list((tmp_path / "grades").glob("*.csv"))
    (tmp_path / "in" / "ben" / "x.ipynb").write_text((tmp_path / "in" / "anna" / "x.ipynb").read_text())
    done = finish(command)
    assert done.stdout == "18\tanna\n18\tben\n" and (kept / "anna.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in kept.iterdir()) == ["anna.json", "ben.json"]


def descendants(process: int) -> list[int]:
    """All processes that a process has started, directly or not."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        found.append((int(place.name), parent))
    family = [process]
    for one in family:
        family += [child for child, parent in found if parent == one]
    return family[1:]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Two runs on one output


def test_a_run_of_other_settings_never_writes_into_a_journal(pictures, tmp_path):
    """It takes the name; whoever held it before goes on in a file that is gone, and takes nothing away at its end."""
    files, path = sorted(pictures.iterdir()), tmp_path / "out.csv.journal"
    first, second = Journal(path, "first"), Journal(path, "second")
    first.add(0, [Row(file, 1.0, 1.0) for file in files[:4]])
    second.add(0, [Row(file, 2.0, 2.0) for file in files[:4]])
    first.add(1, [Row(file, 1.0, 1.0) for file in files[4:]])
    second.add(1, [Row(file, 2.0, 2.0) for file in files[4:]])
    first.remove()
    kept = Journal(path, "second")
    assert sorted(kept.done) == [0, 1] and [row.score for row in kept.rows(1, files[4:])] == [2.0] * 4
    second.remove()
    assert list(tmp_path.iterdir()) == [pictures]


def test_two_runs_of_the_same_settings_share_a_journal(pictures, tmp_path):
    """However their batches come one upon the other, each is there, and found."""
    files, scorer = sorted(pictures.iterdir()), Scorer(tiny_scorer(), "rank+gc", crops=1)
    batches = [files[i : i + 2] for i in range(0, 8, 2)]
    journals = [Journal(tmp_path / "j", "k") for _ in range(2)]
    runs = [score_open(scorer, batches, journal) for journal in journals]
    both = [found for pair in zip(*runs, strict=True) for found in pair]
    assert str(both[::2]) == str(both[1::2])
    for journal in (*journals, Journal(tmp_path / "j", "k")):
        assert {n: str(journal.rows(n, batches[n])) for n in journal.done} == {n: str(rows) for n, rows in both[::2]}


def test_two_runs_into_one_table_leave_one_whole_table_and_nothing_else(pictures, tmp_path):
    table = tmp_path / "out.csv"
    command = [*CLI, "score", pictures, "--method", "rank+gc", "--batch-size", "2", *TINY, "--out", table]
    runs = [start(command) for _ in range(2)]
    done = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], done
    assert done[0][0] == done[1][0] and len(table.read_text().splitlines()) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "pictures"]
