"""Source models of human opinions, several independent ones of each kind: trained once, then read from their files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ...datasets.near_duplicates import split_contents
from ...metrics import evenly_spaced, srcc
from ...models.backbones import backbone_model
from ...models.fine_tuning import Settings, fine_tune
from ...models.quality import QualityModel
from ...models.saving import load_source_model, read_about, save_model
from ...models.training import remember_source, score_all
from .pack import SIDE, Pack

SOURCES = {"live": ("live",), "no-ss01": ("ss02", "ss03"), "no-ss02": ("ss01", "ss03"), "no-ss03": ("ss01", "ss02")}
SHARES = 0.7, 0.1, 0.2  # of the contents: training, choice of the epoch, test without shift
BACKBONE = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class Scale:
    """How large the experiment is.

    Attributes:
        name: says so in every file.
        crop: pixels of the squares that the models see, cut from those of the pack.
        training: at most so many images to train on, of each part alike; None: all.
        images: at most so many of each target.
        epochs: of the training.
        seeds: independent trainings of each kind of source.
    """

    name: str
    crop: int
    training: int | None
    images: int
    epochs: int
    seeds: dict[str, int]


SCALES = {
    scale.name: scale
    for scale in (
        Scale("full", 224, None, 400, 14, dict.fromkeys(SOURCES, 3)),
        Scale("medium", 224, None, 160, 14, dict.fromkeys(SOURCES, 3)),
        Scale("reduced", 160, 1000, 96, 10, dict.fromkeys(SOURCES, 1) | {"live": 3}),
    )
}


def parts_of(pack: Pack, source: str) -> list[np.ndarray]:
    """Rows for training, for the choice of the epoch, and for the test without shift: the same for every seed.

    No content is in two of them, nor in a part of the pack that the source is not trained on.
    """
    own = pack.rows(*SOURCES[source])
    others = np.setdiff1d(np.arange(len(pack.files)), own)
    own = own[~np.isin(pack.content[own], pack.content[others])]
    return [own[rows] for rows in split_contents(pack.content[own], SHARES)]


def training_rows(pack: Pack, source: str, scale: Scale) -> np.ndarray:
    """Rows that a source is trained on, of each part alike many if the scale takes but some."""
    train = parts_of(pack, source)[0]
    if scale.training is None:
        return train
    of_parts = [train[pack.part[train] == part] for part in SOURCES[source]]
    most = scale.training // len(of_parts)
    return np.concatenate([rows[evenly_spaced(len(rows), min(len(rows), most))] for rows in of_parts])


def source_file(folder: Path, source: str, seed: int, scale: Scale) -> Path:
    """Where a source model lies."""
    return folder / f"{source}-{seed}-{scale.name}.safetensors"


def train_source(
    pack: Pack, source: str, seed: int, scale: Scale, folder: Path, device: str = "cpu", progress: bool = True
) -> QualityModel:
    """A source model: read from its file, or trained and written there. An interrupted training goes on.

    Raises:
        ValueError: the file is of a training with other settings or images.
    """
    file = source_file(folder, source, seed, scale)
    settings = Settings(BACKBONE, side=SIDE, crop=scale.crop, epochs=scale.epochs, patience=scale.epochs, seed=seed)
    how = {"settings": asdict(settings), "training": scale.training, "pack": pack.key, "parts": list(SOURCES[source])}
    if file.is_file():
        about = read_about(file)
        if different := [key for key in how if about.get(key) != how[key]]:
            raise ValueError(
                f"'{file}' is of another training ({different[0]} differs): delete it, or name another folder"
            )
        return load_source_model(file).to(device)
    torch.manual_seed(seed)
    predicts = f"human opinion ({', '.join(SOURCES[source])})"
    model = backbone_model(BACKBONE, crop=scale.crop, views=2, side=SIDE, predicts=predicts).to(device)
    train, (_, validation, test) = training_rows(pack, source, scale), parts_of(pack, source)
    data = [(pack.images(rows), torch.from_numpy(pack.scores[rows]).float()) for rows in (train, validation, test)]
    checkpoint = file.with_suffix(".checkpoint")
    file.parent.mkdir(parents=True, exist_ok=True)
    fine_tune(model, *data[0], data[1], settings, checkpoint, progress)
    remember_source(model, centre(data[0][0], scale.crop).to(device))
    found = srcc(score_all(model, centre(data[2][0], scale.crop).to(device)), data[2][1])
    about = how | {
        "backbone": BACKBONE,
        "hidden": 0,
        "crop": scale.crop,
        "views": 2,
        "side": SIDE,
        "predicts": predicts,
    }
    save_model(model.cpu(), file, about | {"images": len(train), "test_srcc": round(found, 4)}, half=True)
    checkpoint.unlink(missing_ok=True)
    return load_source_model(file).to(device)


def centre(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle square of (N, 3, H, W)."""
    y, x = ((length - size) // 2 for length in images.shape[2:])
    return images[..., y : y + size, x : x + size]
