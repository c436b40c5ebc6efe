"""Many synthetic thumbnails from plan to table: time and memory of each step. A measurement, not a test.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/apps/thumbnails.py 100000 --workers 2

Thumbnails are written below a new temporary folder, 4,000 to a folder; it is removed at the end. Peak memory of a step
stands below that of the step for a tenth of the images: where both agree, memory does not grow with the images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAM = "from tta_iqa_lib.apps.cli import app\napp()"
MODEL = ["--model", "source-0", "--crops", "1", "--adapt"]


def draw(folder: Path, count: int, side: int) -> None:
    """Soft noise in two colours: what they show does not matter."""
    generator = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"{i // 4000:04d}"
        place.mkdir(exist_ok=True)
        small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(place / f"{i:07d}.jpg", quality=80)


def run(*commands: list[str]) -> tuple[float, float]:
    """Seconds of commands side by side, and the peak memory of the largest in MB; each in a process that is watched alone."""
    watch = f"import resource, subprocess, sys; code = subprocess.call([sys.executable, '-c', {PROGRAM!r}, *sys.argv[1:]]); "
    watch += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    start = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, "-c", watch, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    printed = [process.communicate()[0].split() for process in running]
    assert not any(process.returncode for process in running), commands
    return time.perf_counter() - start, max(int(words[-1]) for words in printed) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--side", type=int, default=96)
    options = parser.parse_args()
    for count in (options.count // 10, options.count):
        with tempfile.TemporaryDirectory() as name:
            folder, plan, out = Path(name, "pictures"), str(Path(name, "plan.jsonl")), str(Path(name, "out.csv"))
            folder.mkdir()
            draw(folder, count, options.side)
            parts = [["shard", plan, "--part", f"{i}/{options.workers}"] for i in range(options.workers)]
            steps = {"plan": [["plan", str(folder), "--out", plan, *MODEL]], "shards": parts}
            steps["merge"] = [["merge", plan, "--out", out]]
            for step, commands in steps.items():
                seconds, memory = run(*commands)
                print(f"{count:8d} {step:8s}{seconds:9.1f} s {memory:8.0f} MB", flush=True)
            lines = Path(out).read_bytes().count(b"\n") - 1
            assert lines == count, lines


if __name__ == "__main__":
    main()
