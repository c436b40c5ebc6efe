"""Many photographs scored with --adapt, killed in the middle and started again: the table of a run that was left alone.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/apps/interrupted.py FOLDER 10000 --side 256

A measurement, not a test. The photographs of FOLDER, their shorter sides scaled to 256, are copied into a temporary folder until
there are so many; it is removed at the end. The model is the default one, of human opinions.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from tta_iqa_lib.imaging import list_images

PROGRAM = "from tta_iqa_lib.apps.cli import app; app()"


def begin(pictures: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "score", str(pictures), "--adapt", "--crops", "1", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def batches(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def reach(process: subprocess.Popen, journal: Path, count: int) -> None:
    """Wait until so many batches are in the journal."""
    while batches(journal) < count:
        assert process.poll() is None
        time.sleep(0.5)


def peak(process: subprocess.Popen) -> float:
    """The most memory that it has had so far, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def wait(process: subprocess.Popen) -> float:
    """Peak memory in MB."""
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_maxrss / 1024


def gather(folder: Path, count: int, side: int | None, pictures: Path) -> None:
    pictures.mkdir()
    for i, photograph in enumerate(islice(cycle(list_images([folder])), count)):
        copy = pictures / f"{i:06d}{photograph.suffix}"
        if side is None:
            shutil.copy(photograph, copy)
            continue
        with Image.open(photograph) as picture:
            scale = side / min(picture.size)
            picture.convert("RGB").resize([round(scale * s) for s in picture.size], Image.Resampling.LANCZOS).save(copy)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--side", type=int, help="of the photographs, in pixels; without it, as they are")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures, whole, cut = Path(name, "pictures"), Path(name, "whole.csv"), Path(name, "cut.csv")
        gather(options.folder, options.count, options.side, pictures)
        alone, journal = begin(pictures, whole), whole.with_name("whole.csv.journal")
        reach(alone, journal, options.count // 320)
        print(f"{options.count} photographs, left alone: {peak(alone):.0f} MB at most in the first tenth", flush=True)
        print(f"{wait(alone):.0f} MB at most in all", flush=True)
        killed, journal = begin(pictures, cut), cut.with_name("cut.csv.journal")
        reach(killed, journal, options.count // 64)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        done = batches(journal)
        memory = wait(begin(pictures, cut))
        assert cut.read_bytes() == whole.read_bytes() and not journal.exists()
        print(f"killed after {done} batches of 32 and started again: the same bytes, {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
