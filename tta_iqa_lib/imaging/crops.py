"""Parts and views of a picture: crops at native resolution, mirrored and turned views."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate


def pad_to(image: torch.Tensor, size: int) -> torch.Tensor:
    """(3, H, W) → (3, ≥size, ≥size): what is too small is mirrored at its edges, never stretched."""
    for axis in (1, 2):
        length = image.shape[axis]
        if length < size:
            start = (size - length) // 2
            index = torch.arange(-start, size - start, device=image.device) % (2 * length)
            image = image.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return image


def grid_crops(image: torch.Tensor, size: int, count: int = 4) -> torch.Tensor:
    """(3, H, W) → (count, 3, size, size): crops spread evenly over the image at its native resolution.

    `count` is a square number n²: the centres of an n × n grid. No randomness, so a score can be repeated.

    Raises:
        ValueError: `count` is no square number.
    """
    side = square_side(count)
    image = pad_to(image, size)
    tops, lefts = (crop_starts(length, size, side) for length in image.shape[1:])
    return torch.stack([image[:, y : y + size, x : x + size] for y in tops for x in lefts])


def square_side(count: int) -> int:
    """n of n² crops.

    Raises:
        ValueError: `count` is no square number.
    """
    side = round(max(count, 0) ** 0.5)
    if side * side != count or count < 1:
        raise ValueError(f"count must be a square number (1, 4, 9, …); got {count}")
    return side


def crop_starts(length: int, size: int, side: int) -> list[int]:
    """Where `side` crops begin along an axis; at 0 where there is no room to move."""
    return ((torch.arange(side) + 0.5) / side * max(length - size, 0)).round().int().tolist()


def symmetries(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """(B, 3, H, W) → as it is; with 2, mirrored as well; with 8, both also turned by 90°, 180° and 270° (H = W)."""
    if count not in (1, 2, 8):
        raise ValueError(f"there are 1, 2 or 8 symmetric views; got {count}")
    sides = [images, images.flip(3)][:count]
    if count < 8:
        return sides
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"quarter turns need square images; got {tuple(images.shape[2:])}: use 1 or 2 views")
    return [side.rot90(turn, (2, 3)) for turn in range(4) for side in sides]


def resize_to(image: torch.Tensor, side: int) -> torch.Tensor:
    """(3, H, W) → the same with a shorter side of `side` pixels; the ratio of the sides stays."""
    ratio = side / min(image.shape[1:])
    shape = [max(side, round(ratio * length)) for length in image.shape[1:]]
    return interpolate(image[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)
