"""Training a source model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm, trange

from ..metrics import srcc
from ..store import atomic_write, read_whole
from .quality import QualityModel, ScoringModel
from .saving import load_source_model
from .small import small_model

Augment = Callable[[Tensor, torch.Generator], Tensor]


def as_float(images: Tensor) -> Tensor:
    """uint8 → float32 in [0, 1]; floats stay as they are."""
    return images if images.is_floating_point() else images.float() / 255


def turn_and_mirror(batch: Tensor, generator: torch.Generator) -> Tensor:
    """The batch turned by a random multiple of 90° and mirrored half of the time."""
    turn, mirror = torch.randint(4, (), generator=generator), torch.rand((), generator=generator) < 0.5
    batch = batch.rot90(int(turn), (2, 3))
    return batch.flip(3) if mirror else batch


def crop_and_mirror(size: int) -> Augment:
    """One random square for the whole batch, mirrored half of the time: for photographs, which have an up and a down."""

    def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        y, x = (int(torch.randint(length - size + 1, (), generator=generator)) for length in batch.shape[2:])
        batch = batch[..., y : y + size, x : x + size]
        return batch.flip(3) if torch.rand((), generator=generator) < 0.5 else batch

    return augment


@overload
def score_all(
    model: ScoringModel, images: Tensor, batch_size: int = ..., with_features: Literal[False] = ...
) -> Tensor: ...


@overload
def score_all(
    model: ScoringModel, images: Tensor, batch_size: int = ..., *, with_features: Literal[True]
) -> tuple[Tensor, Tensor]: ...


@torch.no_grad()
def score_all(model: ScoringModel, images: Tensor, batch_size: int = 64, with_features: bool = False):
    """Plain inference over (N, 3, H, W), float or uint8, in evaluation mode, which is left as it was.

    Returns:
        scores (N,), and features (N, D) if asked.
    """
    modes = [
        (module, module.training) for module in model.modules()
    ]  # parts may differ: a frozen layer, a wrapped module
    model.eval()
    try:
        parts = [model(as_float(batch), with_features=with_features) for batch in images.split(batch_size)]
    finally:
        for module, training in modes:
            module.training = training
    if not with_features:
        return torch.cat(parts)
    scores, features = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(features)


def remember_source(model: ScoringModel, images: Tensor) -> None:
    """Store what later methods need of the source: mean and covariance of features, mean and deviation of scores."""
    scores, features = score_all(model, images, with_features=True)
    model.set_moments(
        feature_mean=features.mean(0),
        feature_cov=torch.cov(features.T),
        score_mean=scores.mean(),
        score_std=scores.std(),
    )


def memory_layout(model: nn.Module, multiple: int = 16) -> torch.memory_format:
    """Channels last is twice as fast on a CPU, but PyTorch's backward pass can crash there for odd widths."""
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    return torch.channels_last if all(w % multiple == 0 for w in widths) else torch.contiguous_format


def fit(
    model: QualityModel,
    images: Tensor,
    quality: Tensor,
    epochs: int,
    lr: float = 3e-3,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    after_epoch: Callable[[int, float], None] | None = None,
    augment: Augment = turn_and_mirror,
    checkpoint: Path | None = None,
) -> QualityModel:
    """Train all parameters with Adam, a one-cycle learning rate and squared error.

    Args:
        images, quality: (N, 3, H, W) in [0, 1], or uint8, and (N,).
        epochs, lr, batch_size, seed: of the training; the seed decides order and augmentation.
        after_epoch: called with the epoch and its mean loss.
        augment: (batch, generator) → batch of the same quality.
        checkpoint: a file that keeps each finished epoch, so that an interrupted training goes on from there, to the same
            result (random numbers of the model's own, as dropout draws them, are not kept). A damaged one is named on stderr,
            and the training starts over. Delete it when the model is safe.

    Returns:
        the model, in evaluation mode, with `remember_source` done.

    Raises:
        ValueError: the checkpoint is of a training with other settings.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    layout = memory_layout(model)
    model.train().to(memory_format=layout)
    done, parts = 0, (model, optimizer, schedule)
    settings = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed, "images": len(images)}
    kept = checkpoint and read_whole(checkpoint, lambda file: torch.load(file, map_location="cpu", weights_only=True))
    if kept:
        if kept["settings"] != settings:
            raise ValueError(
                f"'{checkpoint}' is of another training, {kept['settings']}: delete it, or name another file"
            )
        for part, state in zip(parts, kept["parts"], strict=True):
            part.load_state_dict(state)
        generator.set_state(kept["generator"])
        done = kept["done"]
    for epoch in trange(done, epochs, desc="epochs", initial=done, total=epochs, disable=not progress):
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for rows in order[: steps * batch_size].view(steps, batch_size):
            batch = augment(as_float(images[rows]).contiguous(memory_format=layout), generator)
            loss = nn.functional.mse_loss(model(batch), quality[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if after_epoch:
            after_epoch(epoch, total / steps)
        if checkpoint:
            kept = {"done": epoch + 1, "settings": settings, "generator": generator.get_state()}
            with atomic_write(checkpoint) as partial:
                torch.save(kept | {"parts": [part.state_dict() for part in parts]}, partial)
    model.eval()
    remember_source(model, images)
    return model


def train_source(
    seed: int = 0,
    epochs: int = 16,
    size: int | None = None,
    widths: Sequence[int] = (16, 32, 64, 128),
    progress: bool = True,
) -> tuple[QualityModel, dict]:
    """Train a source model on TinyShift's source split.

    Args:
        seed: of the initial weights and the order.
        size: use only the first crops (short trainings in tests and chapters); all by default.

    Returns:
        the model, and a dictionary of its configuration and its SRCC on source/test, as `save_model` stores it.
    """
    from ..datasets.tinyshift import CROP, tinyshift, version

    images, quality, _ = tinyshift("source/train")
    test_images, test_quality, _ = tinyshift("source/test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small_model(widths, crop=CROP, predicts="computed quality (TinyShift), not human opinion")
    fit(model, images[:size], quality[:size], epochs, seed=seed, progress=progress)
    about = {
        "widths": list(widths),
        "crop": CROP,
        "predicts": model.predicts,
        "seed": seed,
        "epochs": epochs,
        "images": len(images[:size]),
        "benchmark": version(),
        "srcc_source_test": round(srcc(score_all(model, test_images), test_quality), 4),
    }
    return model, about


def ceiling(split: str, crops: int = 2000, epochs: int = 4) -> float:
    """What labels would give: SRCC on a target after training on its conditions, with labels, on other contents.

    The first source model is trained further on `crops` new crops of the source's and the development target's contents,
    distorted and shifted as in the target. The development target's own ceiling thus comes from other crops of its contents.
    """
    from ..datasets.tinyshift import DEVELOPMENT, build, contents, tinyshift

    names = contents("source/train") + contents(DEVELOPMENT)
    pixels, quality, _ = build(split, crops, seed=99, names=names)
    model = load_source_model(0).requires_grad_(True)
    fit(model, pixels.float() / 255, quality, epochs, lr=1e-3, seed=99, progress=False)
    images, truth, _ = tinyshift(split)
    return srcc(score_all(model, images), truth)


def write_manifest(path: Path) -> None:
    """Write the benchmark's parameters and, for each target, its role, the ceiling, and the source models' SRCC."""
    from ..datasets.tinyshift import SPLITS, TARGETS, manifest, tinyshift, version

    targets = {}
    for split in tqdm(SPLITS[1:], desc="ceilings"):
        images, truth, _ = tinyshift(split)
        source = [round(srcc(score_all(load_source_model(i), images), truth), 4) for i in range(3)]
        targets[split] = {"source": source}
        if split in TARGETS:
            own = TARGETS[split]
            targets[split] |= {"shifted": own.shifted, "role": own.role, "ceiling": round(ceiling(split), 4)}
    stored = {"version": version(), "parameters": manifest(), "targets": targets}
    path.write_text(json.dumps(stored, indent=1) + "\n")
