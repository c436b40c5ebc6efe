"""Figures of the book: one palette, one style, pictures as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

# One colour per method in every figure of the book, from the Okabe-Ito palette (told apart by colour-blind readers).
COLOURS = {
    "source": "#444444",
    "views": "#888888",
    "bn-batch": "#56B4E9",
    "bn-blend": "#0072B2",
    "bn-adaptive": "#B8A100",
    "rank": "#E69F00",
    "gc": "#CC79A7",
    "rank+gc": "#D55E00",
    "rank+gc-frozen": "#999999",
    "order": "#A6761D",
    "published": "#7F3C8D",
    "reference": "#000000",
    "recipe-open": "#66C2A5",
    "recipe": "#009E73",
}
MARKERS = {
    "source": "o",
    "bn-batch": "v",
    "bn-blend": "s",
    "bn-adaptive": "X",
    "rank": "^",
    "gc": "D",
    "rank+gc": "P",
    "recipe": "*",
}


def style():
    """Matplotlib's pyplot with the settings of the book: `plt = display.style()`, once at the top of a notebook."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e3e3e3",
            "axes.axisbelow": True,
            "legend.frameon": False,
        }
    )
    return plt


def picture(image: torch.Tensor, scale: int = 1) -> bytes:
    """(3, H, W) in [0, 1] → PNG, enlarged by whole pixels."""
    pixels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return _png(Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)))


def frame(figure, colours: int = 64) -> bytes:
    """A matplotlib figure → PNG with a small palette; the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    plt.close(figure)
    return _png(Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def show(images: torch.Tensor, titles: Sequence[str] | None = None, columns: int = 6, width: float = 8.0):
    """Pictures (B, 3, H, W) in a grid; returns the matplotlib figure."""
    import matplotlib.pyplot as plt

    rows = int(np.ceil(len(images) / columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, width / columns * rows * (1.18 if titles else 1)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, axis in zip(range(len(images)), axes.flat, strict=False):
        axis.imshow(images[i].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        if titles:
            axis.set_title(titles[i], fontsize=9)
    return figure


def strip_chart(axis, rows: Sequence[str], values: dict[str, Sequence[float]], labels: dict[str, str]) -> None:
    """One line a target, one marker a method: where does each land? `values`: method → one number a row."""
    offsets = np.linspace(-0.18, 0.18, len(values))
    for offset, (method, numbers) in zip(offsets, values.items(), strict=True):
        axis.plot(
            numbers,
            np.arange(len(rows)) + offset,
            MARKERS.get(method, "o"),
            color=COLOURS.get(method),
            markersize=10 if MARKERS.get(method) == "*" else 6.5,
            label=labels[method],
            linestyle="none",
        )
    for i in range(len(rows)):
        ends = [numbers[i] for numbers in values.values()]
        axis.plot([min(ends), max(ends)], [i, i], color="#cccccc", zorder=0)
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
