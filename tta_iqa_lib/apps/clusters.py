"""A plan on engines that exist: torchrun, Slurm arrays, Ray Data.

Each only says who does which batches. What comes of a batch stands in the plan.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from .journals import from_cells, to_cells
from .parts import open_batches, part_journal
from .plans import Plan, PlanError
from .results import Row
from .shards import Worker


def own_part(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Which part of how many falls to this process: (index, count), by what its engine has put into the environment.

    `torchrun` and `srun` number their processes, a Slurm array its tasks; an array of them numbers both. Alone: (0, 1).

    Raises:
        PlanError: an array with gaps, such as one of some tasks that failed, does not say which part is whose.
    """
    environment = os.environ if environment is None else environment  # no default: pages would show it
    index, count = 0, 1
    if "SLURM_ARRAY_TASK_ID" in environment:
        first, step = (
            int(environment.get(f"SLURM_ARRAY_TASK_{name}", default)) for name, default in (("MIN", 0), ("STEP", 1))
        )
        index, rest = divmod(int(environment["SLURM_ARRAY_TASK_ID"]) - first, step)
        count = int(environment["SLURM_ARRAY_TASK_COUNT"])
        if rest or index >= count:
            raise PlanError("the Slurm array has gaps: say --part INDEX/COUNT")
    if "RANK" in environment and "WORLD_SIZE" in environment:  # torchrun
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    elif "SLURM_STEP_ID" in environment:  # srun
        rank, size = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    else:
        rank, size = 0, 1
    return index * size + rank, count * size


def own_device(plan: Plan, environment: Mapping[str, str] | None = None) -> str:
    """The plan's device; of several GPUs the one that is this process's by its number on the machine."""
    environment = os.environ if environment is None else environment  # no default: pages would show it
    local = environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID", "0"))
    if plan.device != "cuda":
        return plan.device
    return f"cuda:{int(local) % max(torch.cuda.device_count(), 1)}"


class _Actor:
    """A `Worker` as Ray Data calls it: numbers of batches in, their rows out, or what keeps it from scoring them."""

    def __init__(self, path: str):
        self.path, self.worker = path, None

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        numbers = block["number"]
        try:
            self.worker = self.worker or Worker(Plan(self.path))
            found = [(json.dumps(to_cells(rows)), "") for _, rows in self.worker.score(numbers.tolist())]
        except (OSError, ValueError) as error:  # as data: Ray would wrap it, or start such an actor for ever
            found = [("", str(error))] * len(numbers)
        rows, errors = map(np.array, zip(*found, strict=True))
        return {"number": numbers, "rows": rows, "error": errors}


# What comes of a block is kept when all of it is done; so many for each actor, as the engine slows down with very many.
BLOCKS = 200


def run_on_ray(plan: Plan, actors: int) -> Iterator[tuple[int, list[Row]]]:
    """What is open of a plan, by Ray Data; each actor holds the model. Ray replaces actors that die.

    Yields number and rows of each batch when it is kept.

    Raises:
        ImportError: Ray Data is not installed.
        PlanError: as `parts.journals`; or what stopped an actor, as `shards.Worker`.
    """
    import ray.data  # pyright: ignore[reportMissingImports] (an extra)

    numbers = open_batches(plan, range(plan.batches))
    journal = part_journal(plan, "ray")
    if not numbers:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False  # whoever takes the rows has one
    blocks = min(len(numbers), BLOCKS * actors)
    items = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=blocks)
    done = items.map_batches(
        _Actor,
        fn_constructor_args=(str(plan.path),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=int(plan.device.startswith("cuda")),
    )
    for row in done.iter_rows():
        if row["error"]:
            raise PlanError(row["error"])
        number = int(row["number"])
        rows = from_cells(json.loads(row["rows"]), [path for _, path in plan.batch(number)])
        journal.add(number, rows)
        yield number, rows
