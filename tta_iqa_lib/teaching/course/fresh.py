"""Fresh data for checkers that run a real model: crops that the chapters do not show, in a haze of their own."""

import torch

from ...datasets.tinyshift import tinyshift
from ...imaging.distortions import distort
from ...models.quality import QualityModel
from ...models.saving import load_source_model


def source_model() -> QualityModel:
    """The source model; building it leaves the reader's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        return load_source_model()


def hazy_crops(count: int, seed: int, severity: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of the source's test photographs in haze (count, 3, S, S), and their computed quality in clear air (count,)."""
    images, quality, _ = tinyshift("source/test")
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return distort(images[rows], "haze", severity), quality[rows]
