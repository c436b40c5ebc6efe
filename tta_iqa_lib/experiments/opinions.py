"""Real opinions: source models that are trained on two subsets of BIQ2021, and the third to test on (chapters 9 and 11).

The images may not be passed on, so neither may weights that were trained on them: what the project ships is this recipe
and the measured numbers. Models are kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.databases import Database, biq2021
from ..datasets.near_duplicates import content_groups, load_images
from ..models.backbones import torchvision_model
from ..models.quality import QualityModel, load_source_model, small_model
from ..models.training import crop_and_mirror, fit, remember_source
from ..store import cache_folder, whole_file

SUBSETS = ("ss01", "ss02", "ss03")
SIZE, CROP = 256, 192  # pictures are reduced to 256 pixels; the model sees squares of 192
EPOCHS, LR, BATCH = 16, 2e-3, 16
HELD_OUT = 0.1  # share of the training subsets' contents that is kept for a test without shift


@dataclass(frozen=True)
class Opinions:
    """BIQ2021 in memory: images uint8 (N, 3, 256, 256), opinions (N,), subset (N,), content group (N,)."""

    images: Tensor
    scores: Tensor
    subset: np.ndarray
    content: np.ndarray


def load(folder: str | Path, progress: bool = True) -> Opinions:
    """Read the database once; a copy of its reduced images is kept in the cache folder."""
    database: Database = biq2021(folder)
    key = hashlib.sha256(json.dumps([SIZE, [p.name for p in database.paths]]).encode()).hexdigest()[:16]
    file = cache_folder() / "opinions" / f"images-{key}.npy"
    if not file.is_file():
        with whole_file(file) as partial:
            np.save(partial, load_images(database, SIZE, progress).numpy())
    images = torch.from_numpy(np.load(file))
    scores = torch.from_numpy(database.scores).float()
    return Opinions(images, scores, database.subset, content_groups(images))


def split(data: Opinions, test_subset: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, rows of the same subsets held out, rows of the subset left out. No content on two sides."""
    test = data.subset == test_subset
    outside = ~test & ~np.isin(data.content, data.content[test])
    contents = np.unique(data.content[outside])
    chosen = np.random.default_rng(seed).permutation(contents)[: round(HELD_OUT * len(contents))]
    held = outside & np.isin(data.content, chosen)
    return np.flatnonzero(outside & ~held), np.flatnonzero(held), np.flatnonzero(test)


def shuffled(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows in the order of a seed."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1000 + seed)).numpy()]


def centre(images: Tensor, size: int = CROP) -> Tensor:
    """The middle square of (N, 3, H, W)."""
    y, x = ((length - size) // 2 for length in images.shape[2:])
    return images[..., y : y + size, x : x + size]


def untrained(architecture: str, seed: int) -> QualityModel:
    """A network that never saw an opinion.

    "small" (0.3 million parameters) starts from a TinyShift source model: its first stage has learned to tell synthetic
    distortions. A torchvision ResNet, by its name, starts from scratch.
    """
    about = {"crop": CROP, "predicts": "opinions (BIQ2021)", "views": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture != "small":
            return torchvision_model(architecture, pretrained=False, **about)
        model = small_model(**about)
    model.features.load_state_dict(load_source_model(seed % 3).features.state_dict())
    return model


def train_source(
    data: Opinions,
    test_subset: str,
    seed: int = 0,
    architecture: str = "small",
    epochs: int = EPOCHS,
    device: str = "cpu",
    progress: bool = True,
) -> QualityModel:
    """The source model of one direction, trained on the other subsets, or read from the cache. Resumes by the epoch."""
    settings = [architecture, test_subset, seed, epochs, LR, BATCH, SIZE, CROP, len(data.images)]
    name = "-".join(map(str, settings))
    file = cache_folder() / "opinions" / f"{name}.pt"
    model = untrained(architecture, seed)
    if not file.is_file():
        rows, _, _ = split(data, test_subset)
        images, scores = data.images[rows].to(device), data.scores[rows].to(device)
        options = {"seed": seed, "progress": progress, "augment": crop_and_mirror(CROP)}
        checkpoint = file.with_suffix(".checkpoint")
        fit(model.to(device), images, scores, epochs, LR, BATCH, checkpoint=checkpoint, **options)
        model.cpu()
        remember_source(model, centre(data.images[rows]))
        with whole_file(file) as partial:
            torch.save(model.state_dict(), partial)
        checkpoint.unlink(missing_ok=True)
    state = torch.load(file, weights_only=True)
    model.set_moments(**{name: state[name] for name in ("feature_mean", "feature_cov", "score_mean", "score_std")})
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
