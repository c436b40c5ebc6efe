"""A source model of a database's opinions: trained, measured on contents of its own, described."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..datasets.databases import Database
from ..datasets.near_duplicates import find_contents, load_images, split_contents
from ..imaging.crops import grid_crops, resize_to
from ..imaging.scenes import PHOTOGRAPHS, photograph
from ..metrics import evaluate
from ..store import atomic_write
from .backbones import backbone_model
from .fine_tuning import Epoch, Settings, crop_of, fine_tune, score_pictures
from .quality import QualityModel
from .training import remember_source

RECIPE = "three-normalisations"  # that did best for such models (chapter 9)
CROPS = 4  # of each picture whose score is reported, as `tta-iqa score` takes them


def train_on_opinions(
    database: Database,
    settings: Settings,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    progress: bool = True,
) -> tuple[QualityModel, dict, list[Epoch]]:
    """A pretrained network, trained on four fifths of a database's contents.

    A tenth of the contents chooses the epoch (validation), the last tenth is only measured on (test). The model is that
    of its file: its matrices are rounded to half precision before anything is measured.

    Returns:
        the model; a dictionary of what it is and how well it does, as `save_model` stores it; the learning curve.

    Raises:
        ValueError: as `backbone_model`, `split_contents` and `fine_tune`.
        ConnectionError, FileNotFoundError: as `backbone_model`.
    """
    about = {"views": 2, "side": settings.side, "predicts": f"human opinion ({database.name})", "recipe": RECIPE}
    if settings.crop:
        about["crop"] = settings.crop
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = backbone_model(settings.backbone, weights=settings.weights, hidden=settings.hidden, **about)
    crop = crop_of(model)
    if crop > settings.side:
        raise ValueError(f"crops of {crop} pixels cannot be cut from pictures of {settings.side}; give a larger side")
    images = load_images(database, settings.side, progress)
    opinions = torch.from_numpy(database.scores).float()
    content = find_contents(database, images)
    parts = train, _, test = split_contents(content, seed=settings.seed)
    data = [(images[rows], opinions[rows]) for rows in parts]
    curve = fine_tune(model.to(device), *data[0], data[1], settings, checkpoint, progress)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    squares = torch.cat([grid_crops(image, crop, 1) for image in images[train]])
    remember_source(model.cpu(), squares)
    about |= {
        "backbone": settings.backbone,
        "hidden": settings.hidden,
        "crop": crop,
        "settings": asdict(settings) | {"weights": settings.weights and Path(settings.weights).name},
        "database": database.name,
        "opinions": {"lowest": float(opinions.min()), "highest": float(opinions.max())},
        "images": dict(zip(("train", "validation", "test"), map(len, parts), strict=True)),
        "epochs": len(curve),
        "validation_srcc": [round(point.srcc, 4) for point in curve],
        "test": measure(model, *data[2], content[test]),
        "photographs": score_photographs(model),
        "torch": torch.__version__,
    }
    return model, about, curve


def measure(model: QualityModel, images: Tensor, opinions: Tensor, content) -> dict[str, list[float]]:
    """SRCC and PLCC, each with its 95 % interval by content: [value, low, high].

    Args:
        images, opinions, content: (N, 3, H, W), (N,) and (N,).
    """
    found = evaluate(score_pictures(model, images, CROPS), opinions, content)
    return {
        name: [round(bound, 4) for bound in (interval.value, interval.low, interval.high)]
        for name, interval in (("srcc", found.srcc), ("plcc", found.plcc))
    }


def score_photographs(model: QualityModel) -> dict[str, float]:
    """The scores of the bundled photographs, by name: whoever has the file can check that it still gives them."""
    assert model.side is not None
    scores = {}
    for name in PHOTOGRAPHS:
        image = resize_to(photograph(name), model.side)
        scores[name] = round(score_pictures(model, image[None], CROPS).item(), 3)
    return scores


def draw_curve(curve: list[Epoch], path: str | Path, title: str = "") -> None:
    """The learning curve as a picture: loss of the training and validation SRCC by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    left = figure.subplots()
    epochs = range(1, len(curve) + 1)
    lines = left.plot(epochs, [point.loss for point in curve], "o-", color="tab:gray", label="loss (training)")
    right = left.twinx()
    lines += right.plot(epochs, [point.srcc for point in curve], "s-", color="tab:blue", label="SRCC (validation)")
    left.set(xlabel="epoch", ylabel="loss", title=title)
    left.locator_params(axis="x", integer=True)
    right.set(ylabel="SRCC")
    left.legend(handles=lines, loc="center right")
    with atomic_write(Path(path)) as partial:
        figure.savefig(partial, format="png", dpi=120)
