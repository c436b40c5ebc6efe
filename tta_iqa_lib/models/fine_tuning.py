"""From a pretrained network and people's opinions to a source model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss
from tqdm.auto import tqdm

from ..imaging.crops import grid_crops, symmetries
from ..metrics import srcc
from ..store import atomic_write, identity
from .quality import QualityModel
from .training import as_float, memory_layout, score_all


@dataclass(frozen=True)
class Settings:
    """What decides a training, its data apart.

    Attributes:
        backbone, hidden, weights: see `backbone_model`.
        side: pixels of the shorter side that pictures are brought to; their middle square is used.
        crop: of the random crops; None: as the network was trained.
        epochs, batch_size: passes over the training images, and images a step.
        lr, head_lr: the highest learning rate of the network and of the regressor.
        weight_decay: of AdamW.
        patience: epochs without a better validation SRCC after which the training ends.
        seed: of the split, the regressor's first weights, order, crops.
    """

    backbone: str = "tf_efficientnet_lite0"
    hidden: int = 0
    weights: str | None = None
    side: int = 384
    crop: int | None = None
    epochs: int = 14
    batch_size: int = 32
    lr: float = 2e-4
    head_lr: float = 1e-3
    weight_decay: float = 0.05
    patience: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve: mean loss of the training, SRCC on the validation contents."""

    loss: float
    srcc: float


def crop_and_mirror_each(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) → (B, 3, size, size): of each a random square at its own scale, mirrored half of the time.

    Neither changes what people think of a photograph. Drawn from PyTorch's global generator.
    """
    spots = [torch.randint(length - size + 1, (len(images),)).tolist() for length in images.shape[2:]]
    mirrored = (torch.rand(len(images)) < 0.5).tolist()
    squares = [image[:, y : y + size, x : x + size] for image, y, x in zip(images, *spots, strict=True)]
    return torch.stack([s.flip(2) if m else s for s, m in zip(squares, mirrored, strict=True)])


def opinion_loss(scores: Tensor, opinions: Tensor) -> Tensor:
    """Huber's loss and one minus Pearson's correlation: how high, and in which order. (B,), (B,) → ()."""
    centred = torch.stack([scores - scores.mean(), opinions - opinions.mean()])
    a, b = nn.functional.normalize(centred, dim=1, eps=1e-6)
    return huber_loss(scores, opinions) + 1 - (a * b).sum()


def score_pictures(model: QualityModel, images: Tensor, crops: int = 1, batch_size: int = 32) -> Tensor:
    """Plain inference as `tta-iqa score` does it: the mean over crops and over the symmetric views of the model.

    Args:
        images: (N, 3, H, W), float or uint8, on any device.
        crops: a square number.

    Returns:
        (N,) on the CPU.

    Raises:
        ValueError: the model has no crop.
    """
    device, size, parts = model.mean.device, crop_of(model), []
    for batch in images.split(batch_size):
        squares = torch.cat([grid_crops(image, size, crops) for image in as_float(batch.to(device))])
        views = [score_all(model, view) for view in symmetries(squares, model.views)]
        parts.append(torch.stack(views).mean(0).view(len(batch), crops).mean(1).cpu())
    return torch.cat(parts)


def fine_tune(
    model: QualityModel,
    images: Tensor,
    opinions: Tensor,
    validation: tuple[Tensor, Tensor],
    settings: Settings,
    checkpoint: Path | None = None,
    progress: bool = True,
    after_step: Callable[[int], None] | None = None,
) -> list[Epoch]:
    """Train all parameters: AdamW, one cycle of the learning rate, `opinion_loss` of standardised opinions.

    The model is left with the weights of the epoch of the best validation SRCC; its scores are in the opinions' own unit.
    Every step draws its crops (and the network its dropout) from a seed of its own. So a training that goes on from a
    checkpoint comes to the same weights, bit for bit on the same CPU. On a GPU the network runs in mixed precision (bfloat16).

    Args:
        images, opinions: (N, 3, S, S) uint8 and (N,).
        validation: the same of other contents.
        checkpoint: a file that keeps the state after each epoch and once a minute. Delete it when the model is safe.
        after_step: called with the number of steps done.

    Returns:
        the learning curve.

    Raises:
        ValueError: fewer images than a batch, all opinions alike, a model without a crop, or the checkpoint is of a training
            with other settings or data.
    """
    steps = len(images) // settings.batch_size
    mean, std = opinions.mean(), opinions.std()
    if steps == 0 or not std > 0:
        raise ValueError(
            f"cannot train on {len(images)} images in batches of {settings.batch_size} with opinions that differ by {std:.3g}"
        )
    device, size, total = model.mean.device, crop_of(model), settings.epochs * steps
    last = model.regressor[-1] if isinstance(model.regressor, nn.Sequential) else model.regressor
    assert isinstance(last, nn.Linear)
    layout = memory_layout(model, 8)
    model.to(memory_format=layout)
    groups = [{"params": model.features.parameters()}, {"params": model.regressor.parameters()}]
    optimizer = torch.optim.AdamW(groups, settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [settings.lr, settings.head_lr], total_steps=total)
    parts = (model, optimizer, schedule)
    curve, losses, best, done = [], [], {}, 0
    same = asdict(settings)
    if checkpoint:
        same["data"] = identity([images, opinions, *validation])

    if checkpoint and checkpoint.is_file():
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        if different := [key for key in same if kept["settings"].get(key) != same[key]]:
            raise ValueError(
                f"'{checkpoint}' is of another training ({different[0]} differs): delete it, or name another file"
            )
        for part, state in zip(parts, kept["parts"], strict=True):
            part.load_state_dict(state)
        curve = [Epoch(*point) for point in kept["curve"]]
        losses, best, done = kept["losses"], kept["best"], kept["done"]

    def keep(checkpoint: Path) -> None:
        kept = {"settings": same, "done": done, "best": best, "losses": losses}
        kept |= {"curve": [(point.loss, point.srcc) for point in curve]}
        with atomic_write(checkpoint) as partial:
            torch.save(kept | {"parts": [part.state_dict() for part in parts]}, partial)

    def order(epoch: int) -> Tensor:
        return torch.randperm(len(images), generator=torch.Generator().manual_seed(settings.seed * 1000 + epoch))

    bar = tqdm(total=total, initial=done, desc="training", unit="step", disable=not progress)
    saved = time.monotonic()
    with torch.random.fork_rng():
        while done < total and len(curve) - 1 - _best(curve) < settings.patience:
            epoch, place = divmod(done, steps)
            rows = order(epoch)[place * settings.batch_size :][: settings.batch_size]
            torch.manual_seed(settings.seed * 1_000_000 + done)
            batch = crop_and_mirror_each(images[rows], size).to(device)
            batch = as_float(batch).contiguous(memory_format=layout)
            model.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                scores = model(batch)
            loss = opinion_loss(scores.float(), ((opinions[rows] - mean) / std).to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            done += 1
            bar.update()
            if done % steps == 0:
                value = srcc(score_pictures(model, validation[0]), validation[1])
                curve.append(Epoch(sum(losses) / steps, -1.0 if math.isnan(value) else value))
                losses = []
                if _best(curve) == len(curve) - 1:
                    best = {name: value.clone() for name, value in model.state_dict().items()}
                bar.set_postfix(epoch=len(curve), loss=f"{curve[-1].loss:.3f}", validation=f"{curve[-1].srcc:.3f}")
            if checkpoint and (done % steps == 0 or time.monotonic() - saved > 60):
                keep(checkpoint)
                saved = time.monotonic()
            if after_step:
                after_step(done)
    bar.close()
    model.load_state_dict(best)
    with torch.no_grad():
        last.weight.mul_(std)
        last.bias.mul_(std).add_(mean)
    model.to(memory_format=torch.contiguous_format).eval()
    return curve


def crop_of(model: QualityModel) -> int:
    """The side of its crops.

    Raises:
        ValueError: it does not say.
    """
    if model.crop is None:
        raise ValueError("the model does not say how large its crops are: give it a crop=")
    return model.crop


def _best(curve: list[Epoch]) -> int:
    """The first epoch of the best validation SRCC; −1 before there is one."""
    return max(range(len(curve)), key=lambda i: curve[i].srcc, default=-1)
