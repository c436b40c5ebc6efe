"""Which images are adapted to together, and one result out of several."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from ..imaging.checks import as_tuple, check_count
from .state import Result


def balanced_batches(count: int, batch_size: int, seed: int | None = None) -> list[list[int]]:
    """Cut 0 … count − 1 into ⌈count / batch_size⌉ lists that differ by at most one in length; shuffled if a seed is given."""
    check_count("batch_size", batch_size, 1)
    order = list(range(count))
    if seed is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    parts = math.ceil(count / batch_size)
    edges = [round(i * count / parts) for i in range(parts + 1)]
    return [order[a:b] for a, b in pairwise(edges)]


def rows_by_group(groups: Sequence | Tensor, count: int) -> dict[Hashable, list[int]]:
    """The rows of each label, in the order in which labels first stand in `groups`.

    Raises:
        ValueError: not one label for each of `count` images, or a NaN.
    """
    labels: list = getattr(groups, "tolist", lambda: list(as_tuple("groups", groups)))()
    if any(isinstance(label, list) or label != label for label in labels):  # NaN is not even equal to itself
        raise ValueError(f"groups must be one label an image, shape (B,), none of them NaN; got {groups!r}")
    if len(labels) != count:
        raise ValueError(f"{len(labels)} group labels for {count} images")
    members: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        members.setdefault(label, []).append(i)
    return members


def of_groups(results: Mapping[Hashable, Result], rows: Sequence[Sequence[int]]) -> Result:
    """The result of a batch from those of its groups, by label, and the rows that each has in the batch."""
    order = torch.tensor([i for group in rows for i in group]).argsort()

    def gathered(name: str) -> Tensor:
        return torch.cat([getattr(result, name) for result in results.values()])[order]

    decisions = {result.decision for result in results.values()}
    return Result(
        gathered("scores"),
        gathered("source_scores"),
        gathered("initial_scores"),
        trace=[{"group": label, "steps": result.trace} for label, result in results.items()],
        skipped={f"{k}: {name}": why for k, result in results.items() for name, why in result.skipped.items()},
        shift={f"{k}: {name}": value for k, result in results.items() for name, value in result.shift.items()},
        pictures=sum(result.pictures for result in results.values()),
        decision=decisions.pop() if len(decisions) == 1 else "mixed",
    )


def with_left_out(result: Result | None, alone: Result, out: Tensor) -> Result:
    """The result of a batch from that of the images that took part, None if none did, and the source's of those that did not.

    Args:
        out: (B,), true where an image took no part.
    """
    told = {"images": f"{int(out.sum())} of {len(out)} images show nothing: they have the source's scores"}
    if result is None:
        return replace(alone, skipped=told, decision="source")

    def joined(name: str) -> Tensor:
        parts = getattr(result, name), getattr(alone, name)
        values = parts[0].new_empty(len(out))
        for rows, part in zip((~out, out), parts, strict=True):
            values[rows.to(values.device)] = part
        return values

    return replace(
        result,
        scores=joined("scores"),
        source_scores=joined("source_scores"),
        initial_scores=joined("initial_scores"),
        skipped=result.skipped | told,
        pictures=result.pictures + alone.pictures,
    )
