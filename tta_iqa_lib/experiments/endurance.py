"""Does an adapter last? Long streams in the six settings of the field, with images in them that are broken.

A stream is a row of stretches, and what is learned is carried from each to the next. Every stretch is compared with the source
model on the same images. The pictures are small, and so is the model: it is the streams that are tested here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..adaptation.adapter import Adapter
from ..adaptation.copies import Pair
from ..adaptation.gates import Drifted
from ..adaptation.losses import ScoreOrder
from ..adaptation.rules import Ema
from ..adaptation.screens import Blank
from ..adaptation.state import Result
from ..datasets.tinyshift import fingerprint, tinyshift
from ..imaging.checks import check_choice, check_count
from ..imaging.distortions import distort
from ..metrics import srcc
from ..models.quality import QualityModel
from ..models.small import small_model
from ..models.training import crop_and_mirror, fit
from ..store import Store

# How domains follow one another: from the source again at each, or carried on; rising and falling within each; all at once; the
# worst images of each first, so that every batch is one-sided; and both.
SETTINGS = ("reset", "continual", "gradual", "mixed", "correlated", "mixed and correlated")
DOMAINS = (
    "clear",
    "haze",
    "dark",
    "broken",
    "contrast",
    "cast",
)  # "broken": half of its images are black, white or noise
MARGIN = 0.02  # SRCC; a stretch that is no further below the source counts as no worse
SIDE, BATCH = 32, 64


@dataclass(frozen=True)
class Pool:
    """The N images of a stream, before they are put in order.

    Attributes:
        images: (N, 3, H, W) in [0, 1].
        quality: (N,); NaN of a broken image.
        domain: (N,), indices into `DOMAINS`. severity: (N,) in [0, 1], of the domain's shift.
    """

    images: Tensor
    quality: Tensor
    domain: Tensor
    severity: Tensor


@dataclass(frozen=True)
class Stretch:
    """Images that follow one another: their rows in the pool. `reset`: the stream starts from the source here."""

    domain: str
    rows: Tensor
    reset: bool = False


@dataclass(frozen=True)
class Contestant:
    """Settings of an `Adapter`, and when its stream restarts."""

    settings: dict = field(default_factory=dict)
    restart: Callable[[Result], bool] | None = None


_MOMENTS = {"statistics": Ema(0.1)}
_ORDER = _MOMENTS | {"losses": (ScoreOrder(copies=Pair(kinds=("blur",))),), "steps": 1}
_MATCHED, _SCREENED = {"match_source": True}, {"screen": Blank()}
# What the library offers for safety: scores on the source's scale; images that show nothing left out; a restart where the order
# is no longer the source's.
CONTESTANTS = {
    "default": Contestant(),
    "default, matched": Contestant(_MATCHED),
    "default, matched, screened": Contestant(_MATCHED | _SCREENED),
    "running moments": Contestant(_MOMENTS),
    "score order": Contestant(_ORDER),
    "score order, guarded": Contestant(_ORDER | _MATCHED, Drifted()),
    "score order, guarded, screened": Contestant(_ORDER | _MATCHED | _SCREENED, Drifted()),
}


def draw_pool(count: int, seed: int = 0) -> Pool:
    """So many images, the domains in equal shares: squares of source/test of TinyShift, each shifted as its domain says.

    A shift does not change what an image's quality is taken to be (chapter 2, eq-order-of-events).

    Raises:
        ValueError: not a whole number, or fewer images than domains.
    """
    check_count("count", count, len(DOMAINS))
    crops, quality, _ = tinyshift("source/test")
    tiles = crops.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)  # (M, 3, rows, columns, SIDE, SIDE)
    tiles = tiles.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # (M, squares, 3, SIDE, SIDE)
    generator = torch.Generator().manual_seed(seed)
    chosen, square = (torch.randint(n, (count,), generator=generator) for n in tiles.shape[:2])
    images, truth = tiles[chosen, square], quality[chosen].clone()
    domain = torch.arange(count) % len(DOMAINS)
    severity = 0.3 + 0.7 * torch.rand(count, generator=generator)
    for i, name in enumerate(DOMAINS):
        rows = (domain == i).nonzero()[:, 0]
        if name == "broken":
            rows = rows[::2]
            black, white, noise = rows[::3], rows[1::3], rows[2::3]
            images[black], images[white] = 0.0, 1.0
            images[noise] = torch.rand(images[noise].shape, generator=generator)
            truth[rows] = torch.nan
        elif name == "clear":
            severity[rows] = 0.0
        else:
            images[rows] = distort(images[rows], name, severity[rows], generator)
    return Pool(images, truth, domain, severity)


def stretches(setting: str, pool: Pool, seed: int = 0) -> list[Stretch]:
    """A pool in the order of one of `SETTINGS`: each of its images once.

    Raises:
        ValueError: no such setting.
    """
    check_choice("setting", setting, SETTINGS)
    order = torch.randperm(len(pool.domain), generator=torch.Generator().manual_seed(seed))
    if setting.startswith("mixed"):
        parts = [("all", rows) for rows in order.tensor_split(len(DOMAINS))]
    else:
        parts = [(name, order[pool.domain[order] == i]) for i, name in enumerate(DOMAINS)]
    if setting == "gradual":
        ranked = [(name, rows[pool.severity[rows].argsort(stable=True)]) for name, rows in parts]
        parts = [(name, torch.cat([rows[::2], rows[1::2].flip(0)])) for name, rows in ranked]
    if setting.endswith("correlated"):
        parts = [(name, rows[pool.quality[rows].argsort(stable=True)]) for name, rows in parts]
    return [Stretch(name, rows, setting == "reset" or i == 0) for i, (name, rows) in enumerate(parts)]


def endure(model: QualityModel, contestant: Contestant, pool: Pool, settings: Sequence[str] = SETTINGS) -> list[dict]:
    """A stream through the pool in each setting, from the source.

    Returns:
        for each stretch a dictionary of "setting", "domain", "images", the SRCC of "source" and "adapted" over its images that
        are not broken, "restarts" of the stream, and batches that were "undone": scores, statistics or a step.
    """
    adapter, found = Adapter(model, **contestant.settings), []
    with ExitStack() as streams:
        parts = [(setting, part) for setting in settings for part in stretches(setting, pool)]
        for setting, part in tqdm(parts, desc="stretches", disable=None):
            if part.reset:
                streams.close()
                streams.enter_context(adapter.online(restart=contestant.restart))
            results = [adapter.run(pool.images[rows]) for rows in part.rows.split(BATCH)]
            quality = pool.quality[part.rows]
            whole = quality.isfinite()
            scores, source = (torch.cat([getattr(r, n) for r in results]) for n in ("scores", "source_scores"))
            found.append(
                {
                    "setting": setting,
                    "domain": part.domain,
                    "images": len(part.rows),
                    "source": round(srcc(source[whole], quality[whole]), 4),
                    "adapted": round(srcc(scores[whole], quality[whole]), 4),
                    "restarts": sum("stream" in result.skipped for result in results),
                    "undone": sum(bool({"scores", "step"} & result.skipped.keys()) for result in results),
                }
            )
    return found


def small_source(epochs: int = 8) -> QualityModel:
    """A model of a few thousand parameters for images of 32 × 32 pixels, trained on source/train in seconds."""
    images, quality, _ = tinyshift("source/train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_model((8, 16), crop=SIDE, predicts="computed quality (TinyShift), not human opinion")
    return fit(model, images, quality, epochs, progress=False, augment=crop_and_mirror(SIDE)).requires_grad_(False)


def run_endurance(count: int = 100_000) -> dict:
    """Every contestant through streams of about `count` images in all, an equal share in each setting.

    Gives what it is about, and the runs: the dictionaries of `endure`, each with its method. What is done is kept.
    """
    pool, model = draw_pool(count // len(SETTINGS)), small_source()
    store = Store("endurance", depends_on=["experiments.endurance"], benchmark=fingerprint(), model=model, count=count)
    runs = []
    for name, contestant in CONTESTANTS.items():
        rows = store.get(f"{name}.json", endure, model, contestant, pool)
        runs += [{"method": name, **row} for row in rows]
    about = {
        "images": len(pool.images) * len(SETTINGS),
        "batch_size": BATCH,
        "margin": MARGIN,
        "methods": {name: _told(contestant) for name, contestant in CONTESTANTS.items()},
        "torch": torch.__version__.split("+")[0],
    }
    return {"about": about, "runs": runs}


def _told(contestant: Contestant) -> dict[str, str]:
    settings = contestant.settings | ({"restart": contestant.restart} if contestant.restart else {})
    return {name: repr(value) for name, value in settings.items()}


def worst(results: dict, method: str, setting: str) -> tuple[float, str]:
    """The stretch that comes off worst: adapted minus source, SRCC, and its domain."""
    rows = [run for run in results["runs"] if (run["method"], run["setting"]) == (method, setting)]
    return min((run["adapted"] - run["source"], run["domain"]) for run in rows)


def table(results: dict) -> str:
    """By method and setting: the stretch that comes off worst, adapted minus source, marked where it is beyond the margin."""
    lines = [f"{'SRCC, adapted − source':32s}" + "".join(f"{setting:>22s}" for setting in SETTINGS)]
    for method in dict.fromkeys(run["method"] for run in results["runs"]):
        line = f"{method:32s}"
        for setting in SETTINGS:
            change, domain = worst(results, method, setting)
            beyond = "*" if change < -results["about"]["margin"] else " "
            line += f"{f'{change:+.3f}{beyond} {domain:8s}':>22s}"
        lines.append(line)
    return "\n".join(lines)
