"""Many synthetic thumbnails from plan to table: time and memory of each step. A measurement, not a test.

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/apps/thumbnails.py 100000

Thumbnails are written below a new temporary folder, 4,000 to a folder; it is removed at the end. Peak memory of a step
stands below that of the step for a tenth of the images: where both agree, memory does not grow with the images.

The tenth is scored twice, by one worker and by all, and with --compare so are all; the tables must agree. Efficiency is what
one worker takes over what all take together: by the clock, which means something where nobody else uses the cores, and in
processor time, which leaves out the waiting for others. A worker is a process with one thread. Starting it counts, about three
seconds, so that many pictures tell more of the work than few.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

MODEL = ["--model", "source-0", "--crops", "1", "--method", "bn-batch"]  # statistics alone: minutes, not hours
WATCH = """
import json, resource, subprocess, sys
program = "from tta_iqa_lib.apps.cli import app; app()"
code = subprocess.call([sys.executable, "-c", program, *sys.argv[1:]], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(code)
"""


def draw(folder: Path, count: int, side: int) -> None:
    """Soft noise in two colours: what they show does not matter."""
    generator = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"{i // 4000:04d}"
        place.mkdir(exist_ok=True)
        small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(place / f"{i:07d}.jpg", quality=80)


def run(label: str, *commands: list[str]) -> tuple[float, float]:
    """Commands side by side, each in a process that is watched alone: seconds by the clock, and of processors in sum."""
    start = time.perf_counter()
    watched = [sys.executable, "-c", WATCH]
    running = [subprocess.Popen([*watched, *c], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for c in commands]
    printed = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running), commands
    seconds, (used, memory) = time.perf_counter() - start, zip(*map(json.loads, printed), strict=True)
    print(f"{label:30s}{seconds:9.1f} s {sum(used):9.1f} s of processors {max(memory):8.0f} MB at most", flush=True)
    return seconds, sum(used)


def score(plan: Path, count: int, workers: int) -> tuple[bytes, float, float]:
    """The table, and what the workers took."""
    out = plan.with_suffix(".csv")
    parts = [["shard", str(plan), "--workers", "0", "--part", f"{i}/{workers}"] for i in range(workers)]
    took = run(f"{count:7d} shard, {workers} workers", *parts)
    run(f"{count:7d} merge", ["merge", str(plan), "--out", str(out)])
    shutil.rmtree(plan.with_suffix(".parts"))
    table = out.read_bytes()
    assert table.count(b"\n") == count + 1
    return table, *took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--compare", action="store_true", help="one worker scores all of them, too, not only a tenth")
    options = parser.parse_args()
    for count in (options.count // 10, options.count):
        with tempfile.TemporaryDirectory() as name:
            folder, plan = Path(name, "pictures"), Path(name, "plan.jsonl")
            folder.mkdir()
            draw(folder, count, options.side)
            run(f"{count:7d} plan", ["plan", str(folder), "--out", str(plan), *MODEL])
            table, *all_took = score(plan, count, options.workers)
            if count < options.count or options.compare:
                alone, *one_took = score(plan, count, 1)
                assert table == alone
                clock, used = (one / all for one, all in zip(one_took, all_took, strict=True))
                print(
                    f"efficiency: {clock / options.workers:.0%} by the clock, {used:.0%} in processor time", flush=True
                )


if __name__ == "__main__":
    main()
