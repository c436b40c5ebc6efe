"""A rule after AQR: channels with the quantiles of the source, where others match means and variances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...adaptation.batches import balanced_batches
from ...adaptation.moments import Moments
from ...adaptation.normalisation import normalise
from ...adaptation.shadow import Shadow
from ...models.quality import ScoringModel

LEVELS = tuple((i + 0.5) / 16 for i in range(16))
MOST = 2048  # values of a channel that its quantiles are taken from, drawn at random


def channel_quantiles(x: Tensor) -> Tensor:
    """Quantiles of each channel over the images and positions, at `LEVELS`: (B, C, …) → (C, levels)."""
    values = x.transpose(0, 1).flatten(1).float()
    if values.shape[1] > MOST:
        draw = torch.randint(values.shape[1], (MOST,), generator=torch.Generator().manual_seed(0))
        values = values[:, draw.to(x.device)]
    ordered = values.sort(dim=1).values  # `torch.quantile` takes no more than 16 million values
    place = torch.tensor(LEVELS, device=x.device) * (values.shape[1] - 1)
    below = place.long()
    return torch.lerp(ordered[:, below], ordered[:, below + 1 if values.shape[1] > 1 else below], place - below)


def match_quantiles(x: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
    """Map each channel so that its quantiles `own` become those `wanted`; monotone, in straight pieces.

    Beyond the outermost quantiles it goes on with the slope of the whole range. A channel that is constant becomes the median
    of what is wanted.

    Args:
        x: (B, C, …), without gradients.
        own, wanted: (C, levels), in ascending order.
    """
    channels = x.transpose(0, 1)
    values, knots, heights = (part.cpu().numpy() for part in (channels.flatten(1).float(), own, wanted))
    mapped = np.empty_like(values)
    for to, these, knot, height in zip(mapped, values, knots, heights, strict=True):
        width, rise = knot[-1] - knot[0], height[-1] - height[0]
        if width == 0:
            to[:] = np.median(height)
            continue
        ends = np.array([min(these.min(), knot[0]), max(these.max(), knot[-1])])
        beyond = height[[0, -1]] + rise / width * (ends - knot[[0, -1]])
        to[:] = np.interp(these, [ends[0], *knot, ends[1]], [beyond[0], *height, beyond[1]])
    return torch.from_numpy(mapped).to(x).view(channels.shape).transpose(0, 1)


@torch.no_grad()
def source_quantiles(model: ScoringModel, images: Tensor, batch_size: int = 32) -> dict[str, Tensor]:
    """Of what enters each BatchNorm layer, by its name: (C, levels) each, means over batches of source images.

    Means over batches as large as those of the test, since the outer quantiles of few images lie nearer to the middle.

    Args:
        images: (N, 3, H, W) in [0, 1], that the model was trained on.
    """
    found: dict[str, list[Tensor]] = {}

    def measure(name: str, layer, copy, x: Tensor) -> Tensor:
        found.setdefault(name, []).append(channel_quantiles(x))
        return _as_trained(layer, copy, x)

    module = Shadow(model, measure, _run).module
    for rows in balanced_batches(len(images), batch_size):
        module(images[rows])
    return {name: torch.stack(batches).mean(0) for name, batches in found.items()}


@dataclass(frozen=True)
class QuantileMatching:
    """After AQR [mehrbod2025aqr]: what enters a BatchNorm layer takes on the source's quantiles, channel by channel.

    Then the layer normalises with its source's moments. No loss and no gradient; each batch by itself. The original also treats
    models with other normalisation layers, and calibrates the tails by the size of the batch in a way of its own; here
    the tails go on in straight lines, and the quantiles come from some of the positions.

    Attributes:
        model: the source model.
        quantiles: of the source, from `source_quantiles`.
    """

    model: ScoringModel
    quantiles: Mapping[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,)."""

        def match(name: str, layer, copy, x: Tensor) -> Tensor:
            return _as_trained(layer, copy, match_quantiles(x, channel_quantiles(x), self.quantiles[name]))

        module, scores = Shadow(self.model, match, _run).module, images.new_empty(len(images))
        for rows in balanced_batches(len(images), batch_size):
            scores[rows] = module(images[rows])
        return scores


def _as_trained(layer, copy, x: Tensor) -> Tensor:
    return normalise(x, Moments(layer.running_mean, layer.running_var), copy.weight, copy.bias, layer.eps)


def _run(copy, forward, *args, **kwargs):
    return forward(*args, **kwargs)
