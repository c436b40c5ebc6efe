"""One run: one method on one target, for given seeds and one batch size."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..adaptation.adapter import Adapter
from ..datasets.tinyshift import Meta, build, tinyshift
from ..metrics import evenly_spaced
from ..models.saving import load_source_model
from .baselines import Stream
from .methods import METHODS, SOURCES
from .seeds import Seeds


def load_target(name: str, images: int | None = None) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images (N, 3, H, W), quality (N,), contents (N,) of a target, or an even selection of them."""
    if name == "source/test-large":  # more crops of source/test's contents, for cells of a thousand images
        pixels, quality, meta = large_source_test()
    else:
        pixels, quality, meta = tinyshift(name)
    if images is None or images >= len(pixels):
        return pixels, quality, meta.content
    rows = evenly_spaced(len(pixels), images)
    return pixels[rows], quality[rows], meta.content[rows]


@cache
def large_source_test() -> tuple[Tensor, Tensor, Meta]:
    """1,000 crops as those of source/test, drawn with another seed."""
    pixels, quality, meta = build("source/test", 1000, seed=1)
    return pixels.float() / 255, quality, meta


def run_one(
    method: str,
    target: str,
    seeds: Seeds,
    batch_size: int,
    images: int | None = None,
    order: str = "shuffled",
    online: bool = False,
) -> list[float]:
    """The scores of one run, in the target's own order, rounded to five decimals.

    Args:
        method, target: names out of `METHODS` and `load_target`.
        images, order, online: see `Grid`.
    """
    pixels, quality, content = load_target(target, images)
    rows = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seeds.order))
    if order == "by-quality":
        rows = rows[quality[rows].argsort(stable=True)]
    elif order == "by-content":
        place = {name: i for i, name in enumerate(dict.fromkeys(content[rows].tolist()))}
        rows = rows[torch.tensor([place[name] for name in content[rows]]).argsort(stable=True)]
    adapter = METHODS[method].adapter(load_source_model(seeds.source % SOURCES), seeds.copies)
    if online and isinstance(adapter, Adapter):
        adapter = Stream(adapter)
    scores = torch.empty(len(pixels))
    scores[rows] = adapter.predict(pixels[rows], batch_size, shuffle=False)
    return [round(float(s), 5) for s in scores]
