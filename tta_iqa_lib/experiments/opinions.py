"""Real opinions: source models that are trained on two subsets of BIQ2021, and the third to test on (chapters 9 and 11).

The images may not be passed on, so neither may weights that were trained on them: what the project ships is this recipe
and the measured numbers. Models are kept in the user's cache folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.databases import Database
from ..datasets.near_duplicates import content_groups, load_images
from ..datasets.official import layout
from ..models.backbones import torchvision_model
from ..models.quality import QualityModel, load_source_model, small_model
from ..models.training import crop_and_mirror, fit, remember_source
from ..store import Store, identity

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

    @cached_property
    def key(self) -> str:
        """Tells these images and opinions from others; see `identity`."""
        return identity([self.images, self.scores, self.subset, self.content])


def load(folder: str | Path, progress: bool = True) -> Opinions:
    """Read the database once; a copy of its reduced images is kept in the cache folder."""
    database: Database = layout("biq2021").read(folder)
    store = Store("opinions", depends_on=["datasets.near_duplicates"], files=database.paths, size=SIZE)
    kept = store.get("images.npz", _read, database, progress)
    images = torch.from_numpy(kept["images"])
    scores = torch.from_numpy(database.scores).float()
    return Opinions(images, scores, database.subset, content_groups(images))


def _read(database: Database, progress: bool) -> dict[str, Tensor]:
    return {"images": load_images(database, SIZE, progress)}


def split(data: Opinions, test_subset: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, rows of the same subsets held out, rows of the subset left out. No content on two sides."""
    test = data.subset == test_subset
    outside = ~test & ~np.isin(data.content, data.content[test])
    contents = np.unique(data.content[outside])
    chosen = np.random.default_rng(seed).permutation(contents)[: round(HELD_OUT * len(contents))]
    held = outside & np.isin(data.content, chosen)
    return np.flatnonzero(outside & ~held), np.flatnonzero(held), np.flatnonzero(test)


def shuffled(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows in the order of a seed; see `Seeds`."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).numpy()]


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
    """The source model of one direction, trained on the other subsets, or read from the cache. Resumes by the epoch.

    A model is found again only under the code that trains it: this module, and what it imports. After a change of that code,
    of the data or of a setting, it is trained anew.
    """
    model = untrained(architecture, seed)
    settings = {"test_subset": test_subset, "seed": seed, "epochs": epochs, "lr": LR, "batch": BATCH}
    settings |= {"size": SIZE, "crop": CROP, "held_out": HELD_OUT, "device": device}
    store = Store("opinions", depends_on=["experiments.opinions"], start=model, data=data.key, **settings)
    checkpoint = store.path("epochs.checkpoint")

    def trained() -> dict[str, Tensor]:
        rows, _, _ = split(data, test_subset)
        images, scores = data.images[rows].to(device), data.scores[rows].to(device)
        options = {"seed": seed, "progress": progress, "augment": crop_and_mirror(CROP)}
        fit(model.to(device), images, scores, epochs, LR, BATCH, checkpoint=checkpoint, **options)
        model.cpu()
        remember_source(model, centre(data.images[rows]))
        return model.state_dict()

    state = {name: torch.from_numpy(array) for name, array in store.get("model.npz", trained).items()}
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    model.set_moments(**{name: state[name] for name in ("feature_mean", "feature_cov", "score_mean", "score_std")})
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)
