"""When not to adapt: decide batch by batch, without labels, whose scores to return (chapter 10)."""

from __future__ import annotations

from dataclasses import dataclass

from .loop import Result


@dataclass(frozen=True)
class ShiftGate:
    """Adapt only where the first BatchNorm layer sees a shift that chance does not explain.

    The first layer is linear in the pixels: its channel means follow the light of a scene and hardly its quality. Their
    squared displacement from the source's, over what it would be by chance in a batch of this size, is about 1 where nothing
    has shifted, for one-sided batches too. A model without BatchNorm measures nothing, and is left to adapt.

    Attributes:
        threshold: adapt from so many times the displacement by chance.
    """

    threshold: float = 6.0

    def __call__(self, result: Result) -> str:
        """ "adapted" or "source"."""
        if not result.shift:
            return "adapted"
        distance, noise = next(iter(result.shift.values()))
        return "adapted" if distance >= self.threshold * noise else "source"
