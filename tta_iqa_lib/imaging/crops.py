"""Parts and views of a picture: crops at native resolution, mirrored and turned views."""

from __future__ import annotations

from numbers import Integral

import torch
from torch.nn.functional import interpolate

from .checks import check_choice, check_count, check_image

VIEWS = (1, 2, 8)  # how many symmetric views of a picture there are: itself; mirrored, too; turned, too


def pad_to(image: torch.Tensor, size: int) -> torch.Tensor:
    """(3, H, W) → (3, ≥size, ≥size): what is too small is mirrored at its edges, never stretched."""
    check_image(image)
    check_count("size", size, 1)
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
    whole = isinstance(count, Integral) and not isinstance(count, bool) and count > 0
    side = round(count**0.5) if whole else 0
    if not side or side * side != count:
        raise ValueError(f"count must be a square number (1, 4, 9, …); got {count!r}")
    return side


def crop_starts(length: int, size: int, side: int) -> list[int]:
    """Where `side` crops begin along an axis; at 0 where there is no room to move."""
    return ((torch.arange(side) + 0.5) / side * max(length - size, 0)).round().int().tolist()


def symmetries(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """(B, 3, H, W) → as it is; with 2, mirrored as well; with 8, both also turned by 90°, 180° and 270° (H = W)."""
    check_choice("count", count, VIEWS)
    if count == 1:
        return [images]
    sides = [images, images.flip(3)]
    if count == 2:
        return sides
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"quarter turns need square images; got {tuple(images.shape[2:])}: use 1 or 2 views")
    return [side.rot90(turn, (2, 3)) for turn in range(4) for side in sides]


def resize_to(image: torch.Tensor, side: int) -> torch.Tensor:
    """(3, H, W) → the same with a shorter side of `side` pixels; the ratio of the sides stays."""
    check_image(image)
    check_count("side", side, 1)
    ratio = side / min(image.shape[1:])
    shape = [max(side, round(ratio * length)) for length in image.shape[1:]]
    return interpolate(image[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)
