"""TinyShift: a benchmark of shifts that is built from what is installed.

Crops of photographs that installed packages carry and of procedural scenes are distorted; their label, called *quality*,
is computed by full-reference metrics. It is not a human opinion. Contents, shifts, numbers and roles are fixed in `TARGETS`
and in data/tinyshift.json; they were fixed before any adapted score was seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..imaging import scenes
from ..imaging.distortions import distort
from ..store import Store

CROP = 96
SOURCE_PHOTOGRAPHS = ("astronaut", "china", "coffee", "motorcycle")
TARGET_PHOTOGRAPHS = ("cat", "flower", "hopper", "rocket")
SOURCE_KINDS = ("blur", "jpeg", "noise", "downscale")
UNSEEN_KINDS = ("motion", "impulse", "quantise")
TRAIN_SIZE, TEST_SIZE = 4000, 400
SOURCE_SCENES = 120
MIN_DETAIL = 0.02


@dataclass(frozen=True)
class Target:
    """One target distribution. Chapter 4; its two orders of events: chapter 2, eq-order-of-events.

    Attributes:
        shift: photometric shifts (kind, severity) that all images share.
        order: "after": distort, label against the pristine crop, then shift (labels do not change);
            "before": shift the scene, then distort, label against the shifted crop (as in a camera).
        kinds: the distortions that make quality vary.
        shifted: does it count as a shift in the headline mean?
        role: "reported", or "development" (its contents occur in no other split).
    """

    shift: tuple[tuple[str, float], ...] = ()
    order: str = "after"
    kinds: tuple[str, ...] = SOURCE_KINDS
    shifted: bool = True
    role: str = "reported"


TARGETS = {
    "target/scenes": Target(shifted=False),
    "target/haze": Target((("haze", 0.7),)),
    "target/haze-strong": Target((("haze", 0.9),)),
    "target/dark": Target((("dark", 0.7),)),
    "target/dark-strong": Target((("dark", 0.9),)),
    "target/contrast": Target((("contrast", 0.85),)),
    "target/cast": Target((("cast", 1.0),)),
    "target/haze-physical": Target((("haze", 0.85),), "before"),
    "target/dark-physical": Target((("dark", 0.8),), "before"),
    "target/unseen": Target(kinds=UNSEEN_KINDS),
    "target/unseen-haze": Target((("haze", 0.85),), kinds=UNSEEN_KINDS),
    "target/unseen-dark": Target((("dark", 0.85),), kinds=UNSEEN_KINDS),
    "target/dusk": Target((("dark", 0.7), ("cast", 0.7)), role="development"),
}
SPLITS = ("source/train", "source/test", *TARGETS)
DEVELOPMENT = next(name for name, target in TARGETS.items() if target.role == "development")


@dataclass(frozen=True)
class Meta:
    """What is known of each of N crops: content (N,) names, kind (N,) of the first distortion, severity (N,) of it."""

    content: np.ndarray
    kind: np.ndarray
    severity: np.ndarray


def procedural(seed: int) -> Tensor:
    """Scene number `seed`: discs, squares or clouds in turn. (3, 256, 256) in [0, 1]."""
    makers: tuple[Callable[[int], Tensor], ...] = (
        scenes.dead_leaves,
        lambda s: scenes.dead_leaves(s, shape="square"),
        scenes.clouds,
    )
    return makers[seed % 3](seed)


@cache
def content(name: str) -> Tensor:
    """A photograph by its name, or the procedural scene of "scene-17". (3, H, W)."""
    return procedural(int(name[6:])) if name.startswith("scene-") else scenes.photograph(name)


def contents(split: str) -> list[str]:
    """The contents of a split. Source and targets share neither photograph nor seed; the development target stands alone."""
    if split.startswith("source/"):
        return [*SOURCE_PHOTOGRAPHS, *(f"scene-{i}" for i in range(1000, 1000 + SOURCE_SCENES))]
    if TARGETS[split].role == "development":
        return [f"scene-{i}" for i in range(200, 224)]
    return [*TARGET_PHOTOGRAPHS, *(f"scene-{i}" for i in range(100, 120))]


def quality(distorted: Tensor, reference: Tensor) -> Tensor:
    """The computed label: the mean of SSIM, VIF (pixel domain) and HaarPSI [wang2004ssim, sheikh2006vif, reisenhofer2018haarpsi].

    Args:
        distorted, reference: (B, 3, H, W) in [0, 1].

    Returns:
        (B,) in [0, 1]; 1 = identical. Computed, not human.
    """
    import piq  # here, as it brings torchvision: more than a second

    metrics: tuple[Callable[..., Tensor], ...] = (piq.ssim, piq.vif_p, piq.haarpsi)  # type: ignore[assignment]
    pairs = zip(distorted.split(50), reference.split(50), strict=True)  # what fits a CPU's cache; the bits are the same
    return torch.cat([torch.stack([m(*pair, reduction="none").clamp(0, 1) for m in metrics]).mean(0) for pair in pairs])


def _region(image: Tensor, split: str) -> Tensor:
    """Training crops come from the left five eighths of a source image, test crops from the rest."""
    border = image.shape[2] * 5 // 8
    return {"source/train": image[..., :border], "source/test": image[..., border:]}.get(split, image)


def detail(crop: Tensor) -> float:
    """Mean absolute difference of neighbouring luma pixels: what there is to be spoiled in a crop (3, H, W)."""
    luma = crop.mean(0)
    return float(luma.diff(dim=0).abs().mean() + luma.diff(dim=1).abs().mean()) / 2


def _crop(name: str, split: str, generator: np.random.Generator) -> Tensor:
    """A random crop, (3, 96, 96). Photographs are taken at half to full size. Crops with nothing to judge are drawn anew."""
    region = _region(content(name), split)
    best, most = region, -1.0
    for _ in range(20):
        zoom = 1.0 if name.startswith("scene-") else generator.uniform(1, min(2, min(region.shape[1:]) / CROP))
        side = int(CROP * zoom)
        y, x = (generator.integers(0, length - side + 1) for length in region.shape[1:])
        crop = region[:, y : y + side, x : x + side]
        if side != CROP:
            crop = interpolate(crop[None], (CROP, CROP), mode="bilinear", antialias=True)[0].clamp(0, 1)
        found = detail(crop)
        if found > most:
            best, most = crop, found
        if found >= MIN_DETAIL:
            break
    return best.flip(2) if generator.random() < 0.5 else best


def _crops(names: list[str], split: str, generator: np.random.Generator) -> Tensor:
    """One random crop of each named content. (B, 3, 96, 96)."""
    return torch.stack([_crop(name, split, generator) for name in names])


def _shift(batch: Tensor, target: Target) -> Tensor:
    for kind, severity in target.shift:
        batch = distort(batch, kind, severity)
    return batch


def to_bytes(batch: Tensor) -> Tensor:
    """[0, 1] floats → uint8: what a file would hold."""
    return (batch * 255).round().to(torch.uint8)


def build(split: str, size: int | None = None, seed: int | None = None, target: Target | None = None, names=None):
    """Make a split from scratch. `tinyshift` is the cached way to call it.

    Args:
        split: out of `SPLITS`.
        size: number of crops; the benchmark's own by default (targets: 20 of each photograph, 8 of each scene).
        seed: of crops and distortions; the split's own by default. Another seed gives other crops of the same contents.
        target, names: other conditions or contents than the split's own (used for ceilings).

    Returns:
        images uint8 (N, 3, 96, 96), quality (N,) float32, `Meta`.
    """
    if split not in SPLITS:
        raise ValueError(f"no split '{split}'; there are {', '.join(SPLITS)}")
    target = target or TARGETS.get(split, Target(shifted=False))
    names = names or contents(split)
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(split.encode()).digest()[:4], "big")
    generator, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    if size is None and split.startswith("target/"):
        chosen = [name for name in names for _ in range(8 if name.startswith("scene-") else 20)]
    else:
        size = size or (TRAIN_SIZE if split == "source/train" else TEST_SIZE)
        photograph = np.array([not name.startswith("scene-") for name in names])
        weight = np.where(
            photograph, 1 / 4 / max(1, photograph.sum()), 3 / 4 / max(1, (~photograph).sum())
        )  # a quarter are photographs
        chosen = generator.choice(names, size, p=weight / weight.sum()).tolist()
    kinds = generator.choice(target.kinds, len(chosen))
    severity = generator.uniform(0, 1, len(chosen)).astype(np.float32)
    # A third of the crops gets a second, weaker distortion, as real images do.
    second_kinds = generator.choice(target.kinds, len(chosen))
    second = np.where(generator.random(len(chosen)) < 1 / 3, generator.uniform(0, 0.5, len(chosen)), 0).astype(
        np.float32
    )
    pixels, labels = [], []
    for start in range(0, len(chosen), 250):
        part = slice(start, start + 250)
        reference = _crops(chosen[part], split, generator)
        if target.order == "before":
            reference = _shift(reference, target)
        worse = distort(reference, kinds[part].tolist(), torch.from_numpy(severity[part]), noise)
        worse = distort(worse, second_kinds[part].tolist(), torch.from_numpy(second[part]), noise)
        labels.append(quality(worse, reference))
        pixels.append(to_bytes(_shift(worse, target) if target.order == "after" else worse))
    return torch.cat(pixels), torch.cat(labels), Meta(np.array(chosen), kinds, severity)


def _store() -> Store:
    photographs = {name: to_bytes(scenes.photograph(name)) for name in scenes.PHOTOGRAPHS}
    return Store("tinyshift", depends_on=["datasets.tinyshift"], photographs=photographs)


def fingerprint() -> str:
    """A hash over the code, the parameters and the input photographs that decide the benchmark: the key of its store."""
    return str(_store().key)


def manifest() -> dict:
    """The benchmark's parameters as plain data; data/tinyshift.json holds the committed copy."""
    return {
        "crop": CROP,
        "source": {"train": TRAIN_SIZE, "test": TEST_SIZE, "kinds": SOURCE_KINDS, "contents": contents("source/train")},
        "min_detail": MIN_DETAIL,
        "targets": {name: asdict(target) | {"contents": contents(name)} for name, target in TARGETS.items()},
    }


def version() -> str:
    """A short name of the benchmark's parameters, the same on every machine."""
    return hashlib.sha256(json.dumps(manifest(), sort_keys=True).encode()).hexdigest()[:12]


def _arrays(split: str) -> dict[str, Tensor | np.ndarray]:
    pixels, labels, meta = build(split)
    return {"pixels": pixels, "quality": labels, **vars(meta)}


def tinyshift(split: str = DEVELOPMENT) -> tuple[Tensor, Tensor, Meta]:
    """A split of TinyShift, built at its first use (seconds) and cached outside the repository.

    Args:
        split: "source/train", "source/test" or one of `TARGETS` ("target/haze", …).

    Returns:
        images (N, 3, 96, 96) float32 in [0, 1]; quality (N,), computed, higher = better; `Meta`.
    """
    kept = _store().get(f"{split}.npz", _arrays, split)
    meta = Meta(kept["content"], kept["kind"], kept["severity"])
    return torch.from_numpy(kept["pixels"]).float() / 255, torch.from_numpy(kept["quality"]), meta
