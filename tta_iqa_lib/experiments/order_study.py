"""Does the check without opinions tell the truth? Its verdicts on batches of rated pictures, beside the true change in SRCC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..adaptation.adapter import Adapter
from ..datasets.databases import Database
from ..imaging.distortions import distort
from ..imaging.files import read_crops
from ..metrics import Interval, bootstrap, srcc
from ..models.quality import QualityModel
from ..store import Store
from .opinions.targets import CONDITIONS
from .order_check import order_check

LIGHTS = ("as it is", "haze", "dark", "contrast")
WAYS = {"held": False, "together": True}  # of `order_check`


@dataclass(frozen=True)
class Batches:
    """Which pictures: of each database, or each of its subsets, `batches` times `size`, drawn at random, in every light.

    Attributes:
        size: of a batch. batches: of each part.
        crop: pixels of the middle square. views: of the recipe. Fewer of both than the model declares take a quarter of the time.
    """

    size: int = 32
    batches: int = 3
    crop: int = 160
    views: int = 1


def parts(databases: Mapping[str, Database]) -> dict[str, Database]:
    """The databases by name; one with subsets as so many parts, named as the subsets are."""
    found = {}
    for name, database in databases.items():
        for subset in dict.fromkeys(database.subset.tolist()):
            found[subset or name] = database.select(database.subset == subset)
    return found


def run_study(
    model: QualityModel, databases: Mapping[str, Database], plan: Batches | None = None, progress: bool = True
) -> dict:
    """Score, adapt and check every batch. What is done is kept in the cache.

    Returns:
        "about"; "summary" as of `summarise`; "runs", one a batch: "part", "light", "batch", SRCC with the opinions of "source"
        and "adapted" scores, and for each of `WAYS` the difference that `order_check` found, [value, low, high].

    Raises:
        ValueError: no part is large enough for one batch.
    """
    plan, found = plan or Batches(), parts(databases)
    adapter, runs = Adapter(model, views=plan.views), []
    work = list(_batches(found, plan))
    if not work:
        raise ValueError(f"no part has {plan.size} pictures for a batch; there are {', '.join(found)}")
    for part, batch, files, opinions in tqdm(work, desc="batches", disable=not progress):
        how = {"model": model, "crop": plan.crop, "views": plan.views, "files": list(files)}
        store = Store("order-study", ["experiments.order_study"], **how)
        pictures: list[Tensor] = []

        def compute(light: str, files=files, opinions=opinions, pictures=pictures) -> dict:
            if not pictures:
                pictures.append(torch.cat([read_crops(file, plan.crop, 1, model.side) for file in files]))
            change = CONDITIONS[light]
            return _run(adapter, distort(pictures[0], *change) if change else pictures[0], opinions)

        for light in LIGHTS:
            kept = store.get(f"{light}.json", compute, light)
            runs.append({"part": part, "light": light, "batch": batch, **kept})
    about = {"plan": asdict(plan), "parts": {name: len(part) for name, part in found.items()}}
    return {"about": about, "summary": summarise(runs), "runs": runs}


def _batches(found: Mapping[str, Database], plan: Batches) -> Iterator[tuple[str, int, Sequence[Path], np.ndarray]]:
    for batch in range(plan.batches):
        for name, part in found.items():
            rows = np.random.default_rng(0).permutation(len(part))[batch * plan.size : (batch + 1) * plan.size]
            if len(rows) == plan.size:
                chosen = part.select(rows)
                yield name, batch, chosen.paths, chosen.scores


def _run(adapter: Adapter, images: Tensor, opinions: np.ndarray) -> dict:
    result = adapter.run(images)
    changes = {way: order_check(adapter, images, together=together).difference for way, together in WAYS.items()}
    return {
        "source": round(srcc(result.source_scores, opinions), 4),
        "adapted": round(srcc(result.scores, opinions), 4),
        **{way: [round(number, 4) for number in (d.value, d.low, d.high)] for way, d in changes.items()},
    }


def summarise(runs: Sequence[dict], count: int = 1000) -> list[dict]:
    """What following the check would bring. Intervals draw the sets of pictures, each with all its lights.

    Gives lines with what, way, value, low and high. What is the "correlation" (SRCC, over the batches) of the check's
    difference with the true gain; and the mean gain of adapting "always", "where better" (its interval lies above zero)
    and "unless worse".
    """
    gain = np.array([run["adapted"] - run["source"] for run in runs])
    sets = [f"{run['part']} {run['batch']}" for run in runs]

    def interval(statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap(statistic, len(runs), sets, count)

    lines = [_line("always", "", interval(lambda rows: gain[rows].mean()))]
    for way in WAYS:
        value, low, high = np.array([run[way] for run in runs]).T
        lines += [
            _line("correlation", way, interval(lambda rows, value=value: srcc(value[rows], gain[rows]))),
            _line("where better", way, interval(lambda rows, low=low: (gain * (low > 0))[rows].mean())),
            _line("unless worse", way, interval(lambda rows, high=high: (gain * (high >= 0))[rows].mean())),
        ]
    return lines


def _line(what: str, way: str, found: Interval) -> dict:
    return {"what": what, "way": way, **{key: round(value, 4) for key, value in asdict(found).items()}}


def text_table(results: dict) -> str:
    """The summary as plain text."""
    lines = [f"{'':30}{'value':>8} {'95 % interval':>18}"]
    for line in results["summary"]:
        name = ", ".join(filter(None, (line["what"], line["way"])))
        lines.append(f"{name:30}{line['value']:+8.3f} [{line['low']:+.3f}, {line['high']:+.3f}]")
    return "\n".join(lines)
