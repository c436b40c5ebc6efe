"""Scoring files on disk: any images, at their native resolution, in crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..adaptation.adapter import Adapter, balanced_batches
from ..experiments.baselines import Average
from ..imaging.crops import grid_crops, resize_to
from ..imaging.files import ImageError, read_crops, read_image
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
) -> Iterator[list[Row]]:
    """Score files batch by batch; only one batch is in memory. Yields the rows of each batch, unreadable files among them.

    Args:
        adapt: adapt to the crops of each batch with the default `Adapter`; batches are drawn in a seeded shuffle.
        crops: a square number; an image's score is the mean over its crops and the model's symmetric views.
    """
    for batch in balanced_batches(len(files), batch_size, seed if adapt else None):
        yield score_batch(model, [files[i] for i in batch], adapt, crops, seed)


def score_batch(model: ScoringModel, files: list[Path], adapt: bool, crops: int, seed: int) -> list[Row]:
    """Score files as one batch; see `score_files`. One row a file, in the order of the files."""
    size, pixels, rows = model.crop or 224, {}, {}
    for place, path in enumerate(files):
        try:
            pixels[place] = _crops(model, path, size, crops)
        except ImageError as error:
            rows[place] = Row(path, error=str(error))
    if pixels:
        stacked = torch.cat(list(pixels.values()))
        if adapt:
            result = Adapter(model, seed=seed, crops_per_image=crops).run(stacked)
            new, old = result.scores, result.source_scores
        else:
            new = old = Average(model, model.views).predict(stacked)
        means = (s.view(len(pixels), crops).mean(1).tolist() for s in (new, old))
        rows |= {place: Row(files[place], a, b) for place, a, b in zip(pixels, *means, strict=True)}
    return [rows[place] for place in range(len(files))]


def _crops(model: ScoringModel, path: Path, size: int, count: int) -> torch.Tensor:
    """(count, 3, size, size) of a file; of a picture larger than those the model was trained on, reduced to their side."""
    if not model.side:
        return read_crops(path, size, count)
    image = read_image(path)
    if min(image.shape[1:]) > model.side:
        image = resize_to(image, model.side)
    return grid_crops(image, size, count)
