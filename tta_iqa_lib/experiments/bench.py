"""What adapting costs: ratios to a plain forward pass, to the passes that a recipe cannot do without, and to the published way.

Every figure is a ratio within one run, in which the contestants take turns. One thread of a CPU is timed by the processor time
that it used, which other work on the machine hardly changes; more threads, and a GPU, by the clock: leave that machine alone.
"""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..adaptation.adapter import Adapter
from ..adaptation.losses import GroupContrastive, RelativeRank
from ..adaptation.normalisation import batchnorm_layers, norm_affine
from ..adaptation.recipes import recipe_of
from ..adaptation.replays import Replays
from ..adaptation.rules import Batch, Source
from ..imaging.crops import symmetries
from ..imaging.scenes import dead_leaves
from ..models.quality import QualityModel
from ..models.saving import load_source_model
from ..store import Store
from .methods import SAVINGS
from .published import Published

NETWORKS = {"small": 96, "resnet18": 224, "resnet50": 224, "tf_efficientnet_lite0": 224}  # and the side of its images
SHIPPED: dict[str, int | str] = {"small": 0, "tf_efficientnet_lite0": "photographs"}
RECIPES: dict[str, dict] = {
    "no adaptation": {"losses": (), "statistics": Source()},
    "statistics only": {"losses": (), "statistics": Batch()},
    "default": {},
    "rank": {"losses": (RelativeRank(),), "statistics": Source()},
    "gc": {"losses": (GroupContrastive(),), "statistics": Source()},
} | {name: {**options, "statistics": Source()} for name, options in SAVINGS.items()}
STEPS, CANDIDATES = 3, 6
WARM = 5.0  # seconds: a pass that takes longer needs no turn to warm up


@dataclass(frozen=True)
class Setting:
    """One line of the table.

    Attributes:
        network: a key of `NETWORKS`. recipe: of `RECIPES`.
        batch: images.
        device: "cpu" or "cuda". threads: of the CPU.
        precision: "float32", or "bfloat16" for autocast with moments in float32.
        mode: "eager", or "captured": on CUDA, replayed from recordings.
    """

    network: str
    recipe: str
    batch: int
    device: str = "cpu"
    threads: int = 1
    precision: str = "float32"
    mode: str = "eager"


def network_of(name: str) -> QualityModel:
    """A shipped model where there is one, else the network with random weights and a linear regressor, in evaluation mode."""
    if name in SHIPPED:
        return load_source_model(SHIPPED[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        import timm

        body = timm.create_model(name, num_classes=0)
        width: int = vars(body)["num_features"]  # timm declares it nowhere
        return QualityModel(body, nn.Linear(width, 1)).eval().requires_grad_(False)


@cache
def images_of(side: int, count: int) -> Tensor:
    """(count, 3, side, side) in [0, 1]: dead leaves at dusk, so that the default recipe's gate opens."""
    scenes = [dead_leaves(seed)[:, :side, :side] for seed in range(count)]
    return 0.3 * torch.stack(scenes)


def floor_of(setting: Setting, model: QualityModel, images: Tensor) -> Callable[[], object]:
    """The passes that the recipe cannot do without, on tensors that lie ready, in plain PyTorch.

    The source's scores; with statistics, one more pass (the default recipe: one for each of its normalisations, and all in each
    symmetric view of the model); with losses, three steps (on the images, and for rank on two copies of each) and the final
    scores; with rank, the scores of six candidate copies. The cheaper forms are held against the full one.
    """
    plain = copy.deepcopy(model)
    renewed = copy.deepcopy(model)
    for layer in batchnorm_layers(renewed).values():
        layer.train()
        layer.momentum = 0.0
    rank = "rank" in setting.recipe or setting.recipe in SAVINGS
    steps = STEPS if rank or "gc" in setting.recipe else 0
    params = [plain.get_parameter(name).requires_grad_(steps > 0) for name in norm_affine(plain)]
    rows = torch.cat([images] * 3) if rank else images
    candidates = torch.cat([images] * CANDIDATES) if rank else None

    views = symmetries(images, model.views if setting.recipe == "default" else 1)
    how = recipe_of(model).inference
    rules = {"statistics only": [Batch()], "default": [how.statistics, *how.ensemble]}.get(setting.recipe, [])
    renewals = sum(rule != Source() for rule in rules)

    def run() -> None:
        with torch.no_grad():
            for view in views:
                plain(view)
            if candidates is not None:
                plain(candidates)
        for _ in range(steps):
            torch.autograd.grad(plain(rows).sum(), params)
        with torch.no_grad():
            for view in views * renewals:
                renewed(view)
            if steps:
                plain(images)

    return run


def contestants(setting: Setting) -> dict[str, Callable[[], object]]:
    """A plain forward pass, the floor, the library's loop and, for the published method, a loop as the published one."""
    device = torch.device(setting.device)
    model, side = network_of(setting.network).to(device), NETWORKS[setting.network]
    images = images_of(side, setting.batch).to(device)
    adapter = Adapter(model, **RECIPES[setting.recipe], capture=setting.mode == "captured")
    found: dict[str, Callable[[], object]] = {
        "forward": torch.no_grad()(lambda: model(images)),
        "floor": floor_of(setting, model, images),
        "ours": lambda: adapter.run(images),
    }
    if setting.recipe == "rank + gc":
        found["published"] = lambda: Published(model).predict(images, setting.batch)
    if setting.mode == "captured":
        found["captured forward"] = _captured(torch.no_grad()(lambda: model(images)))
        found["captured floor"] = _captured(found["floor"])
    return {name: _in_precision(run, setting) for name, run in found.items()}


def _captured(run: Callable[[], object]) -> Callable[[], object]:
    """The same from a CUDA graph."""
    replays, nothing = Replays(), torch.zeros(1, device="cuda")
    return lambda: replays("bench", lambda _: run(), nothing)


def _in_precision(run: Callable[[], object], setting: Setting) -> Callable[[], object]:
    def precisely() -> object:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bfloat16"):
            return run()

    return precisely


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
    """Every combination; on CUDA eager and captured."""
    modes = ("eager", "captured") if device == "cuda" else ("eager",)
    return [
        Setting(network, recipe, batch, device, count, precision, mode)
        for network in networks
        for batch in batches
        for count in (threads if device == "cpu" else (1,))
        for mode in modes
        for precision in precisions
        for recipe in recipes
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
    """One line a setting: ours, floor, their ratio, the published way, memory."""
    names = ("ours", "floor", "ratio", "published", "memory")
    head = f"{'network':24s}{'batch':>6s}{'threads':>8s} {'precision':10s}{'mode':10s}{'recipe':18s}"
    head += "".join(f"{name:>10s}" for name in names)
    lines = [head]
    for run in results["runs"]:
        known = run | {"ratio": run["ours"] / run["floor"]}
        numbers = (f"{known[name]:10.2f}" if known.get(name) else f"{'':10s}" for name in names)
        place = f"{run['network']:24s}{run['batch']:6d}{run['threads']:8d} {run['precision']:10s}{run['mode']:10s}"
        lines.append(f"{place}{run['recipe']:18s}" + "".join(numbers))
    return "\n".join(lines)
