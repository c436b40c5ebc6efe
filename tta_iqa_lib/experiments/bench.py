"""What adapting costs: ratios to a plain forward pass, to the passes that a recipe cannot do without, and to the published way.

Every figure is a ratio within one run, in which the contestants take turns. One thread of a CPU is timed by the processor time
that it used, which other work on the machine hardly changes; more threads, and a GPU, by the clock: leave that machine alone.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
from tqdm.auto import tqdm

from ..store import Store
from .contestants import RECIPES, Setting, contestants

FOLDED = 8  # episodes
WARM = 5.0  # seconds: a pass that takes longer needs no turn to warm up


def measure(setting: Setting, repeats: int = 3) -> dict:
    """The setting, and for each contestant its time in plain forward passes: the best of `repeats` turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    # A saturated loss gives gradients that underflow, above all with random weights; a CPU takes several times as long for those.
    torch.set_flush_denormal(True)
    try:
        runs = contestants(setting)
        turns: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats + 1):
            for name, run in runs.items():
                if len(turns[name]) < repeats or turns[name][0] < WARM:
                    turns[name].append(_time(run, setting))
        seconds = {name: min(found[found[0] < WARM :]) for name, found in turns.items()}
        memory = {name: peak_memory(run, setting.device) for name, run in runs.items() if name in ("forward", "ours")}
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
    found = {name: round(value / seconds["forward"], 3) for name, value in seconds.items() if name != "forward"}
    ratio = memory["ours"] / memory["forward"] if memory["forward"] else None
    return (
        asdict(setting)
        | found
        | {"memory": ratio and round(ratio, 2), "forward_ms": round(1000 * seconds["forward"], 1)}
    )


def _time(run: Callable[[], object], setting: Setting) -> float:
    """Seconds of one run."""
    clock = time.process_time if (setting.device, setting.threads) == ("cpu", 1) else time.perf_counter
    _wait(setting.device)
    begin = clock()
    run()
    _wait(setting.device)
    return clock() - begin


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_memory(run: Callable[[], object], device: str) -> int:
    """The most bytes of tensors that a run holds at once beyond what lay there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ["KINETO_LOG_LEVEL"] = "9"  # the profiler keeps its diary to itself
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue] (torch's stub lacks it)
        peak = max(peak, held)
    return peak


def settings_of(
    networks: Iterable[str],
    batches: Iterable[int],
    device: str = "cpu",
    threads: Iterable[int] = (1,),
    recipes: Iterable[str] = tuple(RECIPES),
    precisions: Iterable[str] = ("float32", "bfloat16"),
) -> list[Setting]:
    """Every combination; on CUDA eager and captured, and of batches of 8 with the published losses eight in one pass."""
    modes = ("eager", "captured") if device == "cuda" else ("eager",)
    return [
        Setting(network, recipe, batch, device, count, precision, mode, episodes)
        for network in networks
        for batch in batches
        for count in (threads if device == "cpu" else (1,))
        for mode in modes
        for precision in precisions
        for recipe in recipes
        for episodes in ((1, FOLDED) if (device, batch, recipe) == ("cuda", 8, "rank + gc") else (1,))
    ]


def run_bench(settings: list[Setting], repeats: int = 3, fresh: bool = False, progress: bool = True) -> dict:
    """All settings, and what machine they ran on. What an interrupted run has measured is not measured again, unless `fresh`."""
    name = torch.cuda.get_device_name() if settings and settings[0].device == "cuda" else _processor()
    about = {"machine": name, "torch": torch.__version__.split("+")[0], "repeats": repeats}
    store = Store("bench", depends_on=["experiments.bench"], about=about)
    runs = []
    for setting in tqdm(settings, desc="bench", disable=not progress):
        entry = " ".join(map(str, asdict(setting).values())) + ".json"
        kept = None if fresh else store.find(entry)
        runs.append(kept or store.put(entry, measure(setting, repeats)))
    return {"about": about, "runs": runs}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def table(results: dict) -> str:
    """One line a setting: ours, floor, their ratio (captured to captured), the published way, memory."""
    names = ("ours", "floor", "captured floor", "ratio", "published", "memory")
    head = f"{'network':24s}{'batch':>6s}{'threads':>8s} {'precision':10s}{'mode':10s}{'recipe':18s}"
    head += "".join(f"{name:>{max(10, len(name) + 1)}s}" for name in names)
    lines = [head]
    for run in results["runs"]:
        known = run | {"ratio": run["ours"] / run.get("captured floor", run["floor"])}
        numbers = (
            f"{known[name]:{max(10, len(name) + 1)}.2f}" if known.get(name) else " " * max(10, len(name) + 1)
            for name in names
        )
        batch = f"{run['episodes']}×{run['batch']}" if run.get("episodes", 1) > 1 else str(run["batch"])
        place = f"{run['network']:24s}{batch:>6s}{run['threads']:8d} {run['precision']:10s}{run['mode']:10s}"
        lines.append(f"{place}{run['recipe']:18s}" + "".join(numbers))
    return "\n".join(lines)
