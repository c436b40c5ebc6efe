"""One result out of several: of groups that were adapted to one by one, and of images that took no part."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .state import Result


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
