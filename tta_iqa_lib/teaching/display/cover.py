"""The picture on the cover: pictures in ever thicker haze, and who still puts them in order."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from ...adaptation.adapter import Adapter
from ...imaging.distortions import distort
from ...imaging.scenes import photograph
from ...metrics import srcc
from ...models.saving import load_source_model
from .figures import COLOURS

INK, PAPER = "#0b3c46", "#fdfcf9"  # of the pages (tta.css)
PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket")
HAZE = tuple(i / 15 * 0.9 for i in range(16))
LEVELS = 8  # of blur, for each photograph
SHOWN = (0, 2, 4, 7)  # the levels on the wall


def cover():
    """Draw it.

    Each column is a batch under one haze, 32 pictures: four photographs at eight levels of blur, of which the wall shows four.
    The lines are the rank correlations of its scores with the blur, by the source model and after adaptation.

    Returns:
        The matplotlib figure, and by method ("source", "recipe") one correlation for each of `HAZE`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap

    crops = torch.stack([_square(photograph(name)) for name in PHOTOGRAPHS])
    blur = torch.linspace(0, 1, LEVELS).repeat_interleave(len(crops))
    batch = distort(crops.repeat(LEVELS, 1, 1, 1), "blur", blur)
    adapter = Adapter(load_source_model())
    found: dict[str, list[float]] = {"source": [], "recipe": []}
    columns = []
    for i, severity in enumerate(HAZE):
        hazy = distort(batch, "haze", severity)
        result = adapter.run(hazy)
        found["source"].append(srcc(result.source_scores, -blur))
        found["recipe"].append(srcc(result.scores, -blur))
        tiles = [hazy[level * len(crops) + (row + i) % len(crops)].mean(0) for row, level in enumerate(SHOWN)]
        columns.append(np.concatenate([np.pad(tile.numpy(), 3, constant_values=1.0) for tile in tiles]))

    figure, (wall, lines) = plt.subplots(2, 1, figsize=(6, 2.9), height_ratios=[2, 1.1], facecolor=PAPER)
    width = len(HAZE)
    extent = (-0.5, width - 0.5, 0, len(SHOWN))
    wall.imshow(
        np.concatenate(columns, 1),
        LinearSegmentedColormap.from_list("ink", [INK, PAPER]),
        vmin=0,
        vmax=1,
        extent=extent,
    )
    for method, label in (("source", "as it was"), ("recipe", "adapted")):
        lines.plot(found[method], "o-", lw=1.5, ms=4, color=COLOURS[method])
        lines.text(
            width - 0.4, found[method][-1], label, va="center", fontsize=12, weight="bold", color=COLOURS[method]
        )
    for axis in (wall, lines):
        axis.axis("off")
        axis.set_xlim(-0.5, width + 2.9)
    return figure, found


def _square(image: torch.Tensor, size: int = 96) -> torch.Tensor:
    """The middle square of (3, H, W), reduced to (3, size, size)."""
    side = min(image.shape[1:])
    y, x = ((length - side) // 2 for length in image.shape[1:])
    middle = image[None, :, y : y + side, x : x + side]
    return interpolate(middle, (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)
