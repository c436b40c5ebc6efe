"""Many photographs scored with --adapt, killed in the middle and started again: the table of a run that was left alone.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/apps/interrupted.py FOLDER 10000

A measurement, not a test. The photographs of FOLDER are copied into a temporary folder until there are so many; it is removed
at the end. The model is the default one, of human opinions.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from tta_iqa_lib.imaging import list_images

PROGRAM = "from tta_iqa_lib.apps.cli import app; app()"


def begin(pictures: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "score", str(pictures), "--adapt", "--crops", "1", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait(process: subprocess.Popen) -> float:
    """Peak memory in MB."""
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures, whole, cut = Path(name, "pictures"), Path(name, "whole.csv"), Path(name, "cut.csv")
        pictures.mkdir()
        for i, photograph in enumerate(islice(cycle(list_images([options.folder])), options.count)):
            shutil.copy(photograph, pictures / f"{i:06d}{photograph.suffix}")
        print(f"{options.count} photographs, left alone: {wait(begin(pictures, whole)):.0f} MB at most", flush=True)
        killed, journal = begin(pictures, cut), cut.with_name("cut.csv.journal")
        while not journal.exists() or journal.read_bytes().count(b"\n") < options.count // 64:
            assert killed.poll() is None
            time.sleep(0.1)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        done = journal.read_bytes().count(b"\n")
        memory = wait(begin(pictures, cut))
        assert cut.read_bytes() == whole.read_bytes() and not journal.exists()
        print(f"killed after {done} batches of 32 and started again: the same bytes, {memory:.0f} MB at most")


if __name__ == "__main__":
    main()
