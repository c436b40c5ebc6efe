"""Which images of a batch show nothing, and should take no part in adapting?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..imaging.checks import check_number

Screen = Callable[[Tensor], Tensor]  # (B, 3, H, W) → (B,), true where an image is left out


@dataclass(frozen=True)
class Blank:
    """Images of one colour, such as black frames of a video, and images of noise, in which no pixel resembles its neighbours.

    They have no quality to speak of, and the moments of a batch that holds them are those of no picture.
    For `Adapter(screen=Blank())`.

    Attributes:
        contrast: of one colour is an image whose grey values, in [0, 1], deviate by less than this from their mean.
        noise: noise is what deviates by more than this, the neighbours being uncorrelated (below 0.1). A dark photograph can
            be as uncorrelated, but deviates little.
    """

    contrast: float = 0.002
    noise: float = 0.1

    def __post_init__(self):
        check_number("contrast", self.contrast, 0)
        check_number("noise", self.noise, 0)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B,), true where an image shows nothing."""
        grey = images.detach().mean(1, dtype=torch.float32)  # (B, H, W)
        grey = grey - grey.mean((1, 2), keepdim=True)
        spread = grey.square().mean((1, 2)).sqrt()
        pairs = [(grey[:, 1:], grey[:, :-1]), (grey[:, :, 1:], grey[:, :, :-1])]
        products = [(one * other).mean((1, 2)) for one, other in pairs if one.numel()]
        likeness = torch.stack(products or [torch.zeros_like(spread)]).mean(0) / spread.square().clamp_min(1e-12)
        return (spread < self.contrast) | ((likeness < 0.1) & (spread > self.noise))
