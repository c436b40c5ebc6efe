"""The image turned: what some losses compare it with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Turns:
    """Maker of copies: the image turned by one, two and three quarters, as "turn1", "turn2", "turn3": as damaged as before.

    Attributes:
        count: so many of them.
        mirror: mirrored as well.
    """

    count: int = 3
    mirror: bool = False

    def __call__(self, images: Tensor, scorer, generator: torch.Generator) -> dict[str, Tensor]:
        base = images.flip(3) if self.mirror else images
        return {f"turn{turn}": base.rot90(turn, (2, 3)) for turn in range(1, self.count + 1)}
