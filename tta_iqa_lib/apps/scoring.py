"""Scoring files on disk: any images, at their native resolution, in crops (chapter 11)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..adaptation.adapter import Adapter, balanced_batches
from ..experiments.baselines import Average
from ..imaging.files import ImageError, grid_crops, read_image, resize_to
from ..models.quality import ScoringModel


@dataclass(frozen=True)
class Row:
    """One file: its score and the source model's, or why there is none."""

    path: Path
    score: float = float("nan")
    source_score: float = float("nan")
    error: str = ""


def score_files(
    model: ScoringModel,
    files: list[Path],
    adapt: bool = False,
    batch_size: int = 32,
    crops: int = 4,
    seed: int = 0,
    skip: int = 0,
) -> Iterator[list[Row]]:
    """Score files batch by batch; only one batch is in memory. Yields the rows of each batch, unreadable files among them.

    Args:
        adapt: adapt to the crops of each batch with the default `Adapter`; batches are drawn in a seeded shuffle.
        crops: a square number; an image's score is the mean over its crops and the model's symmetric views.
        skip: leave out so many batches at the start.
    """
    adapter = Adapter(model, seed=seed, crops=crops)
    size = model.crop or 224
    for batch in balanced_batches(len(files), batch_size, seed if adapt else None)[skip:]:
        rows, pixels, readable = [], [], []
        for path in (files[i] for i in batch):
            try:
                image = read_image(path)
                if model.side and min(image.shape[1:]) > model.side:
                    image = resize_to(image, model.side)
                pixels.append(grid_crops(image, size, crops))
                readable.append(path)
            except ImageError as error:
                rows.append(Row(path, error=str(error)))
        if readable:
            stacked = torch.cat(pixels)
            if adapt:
                result = adapter.run(stacked)
                new, old = result.scores, result.source_scores
            else:
                new = old = Average(model, model.views).predict(stacked)
            means = (s.view(len(readable), crops).mean(1).tolist() for s in (new, old))
            rows += [Row(path, a, b) for path, a, b in zip(readable, *means, strict=True)]
        yield rows
