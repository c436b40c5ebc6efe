"""Reading images, cutting crops, and the images that need no download (chapters 1 and 2).

Everything downstream sees one format: RGB, float32, values in [0, 1], shape (3, H, W) or (B, 3, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn.functional import interpolate

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


class ImageError(ValueError):
    """A file could not be read as an image; the message names the file and the reason. Chapter 11."""


def read_image(path: str | Path) -> torch.Tensor:
    """Any image file → (3, H, W) float32, RGB in [0, 1]. Chapter 11.

    EXIF orientation is applied. Transparency is laid over white. Grey images are repeated over the channels.
    16-bit grey keeps its precision; 16-bit colour is read at 8 bits. Of an animation the first frame is read.

    Raises:
        ImageError: missing, empty, truncated, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"cannot read '{path}': no such file")
    if path.stat().st_size == 0:
        raise ImageError(f"cannot read '{path}': the file is empty")
    try:
        with Image.open(path) as opened:
            pixels = _to_array(ImageOps.exif_transpose(opened))
    except Exception as error:  # decoders raise all sorts of errors on damaged files, TypeError among them
        reason = "not an image, or one of an unknown kind" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ImageError(f"cannot read '{path}': {reason}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _to_array(image: Image.Image) -> np.ndarray:
    """PIL image → (H, W, 3) float32 in [0, 1]."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and 32-bit grey
        grey = np.asarray(image, dtype=np.float32)
        top = 65535.0 if image.mode.startswith("I") else max(1.0, float(grey.max()))
        return np.repeat((grey / top).clip(0, 1)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files are kept as they are; folders give their images, recursively and sorted; a file named twice is listed once.

    Chapter 11.

    Raises:
        ImageError: a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            found.update(dict.fromkeys(files))
        elif path.exists():
            found[path] = None
        else:
            raise ImageError(f"no such file or folder: '{path}'")
    return list(found)


def resize_to(image: torch.Tensor, side: int) -> torch.Tensor:
    """(3, H, W) → the same with a shorter side of `side` pixels; the ratio of the sides stays. Chapter 11."""
    ratio = side / min(image.shape[1:])
    shape = [max(side, round(ratio * length)) for length in image.shape[1:]]
    return interpolate(image[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)


def pad_to(image: torch.Tensor, size: int) -> torch.Tensor:
    """(3, H, W) → (3, ≥size, ≥size): what is too small is mirrored at its edges, never stretched. Chapter 11."""
    for axis in (1, 2):
        length = image.shape[axis]
        if length < size:
            start = (size - length) // 2
            index = torch.arange(-start, size - start, device=image.device) % (2 * length)
            image = image.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return image


def grid_crops(image: torch.Tensor, size: int, count: int = 4) -> torch.Tensor:
    """(3, H, W) → (count, 3, size, size): crops spread evenly over the image at its native resolution. Chapter 11.

    `count` is a square number n²: the centres of an n × n grid. No randomness, so a score can be repeated.
    """
    side = round(max(count, 0) ** 0.5)
    if side * side != count or count < 1:
        raise ValueError(f"count must be a square number (1, 4, 9, …); got {count}")
    image = pad_to(image, size)
    spots = [(torch.arange(side) + 0.5) / side for _ in range(2)]
    tops, lefts = (
        (spot * (length - size)).round().int().tolist() for spot, length in zip(spots, image.shape[1:], strict=True)
    )
    return torch.stack([image[:, y : y + size, x : x + size] for y in tops for x in lefts])


def symmetries(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """(B, 3, H, W) → as it is; with 2, mirrored as well; with 8, both also turned by 90°, 180° and 270° (H = W).

    Chapter 8.
    """
    if count not in (1, 2, 8):
        raise ValueError(f"there are 1, 2 or 8 symmetric views; got {count}")
    sides = [images, images.flip(3)][:count]
    if count < 8:
        return sides
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"quarter turns need square images; got {tuple(images.shape[2:])}: use 1 or 2 views")
    return [side.rot90(turn, (2, 3)) for turn in range(4) for side in sides]


# The natural colour photographs that installed packages carry, with their authors' licences in data/README.md.
PHOTOGRAPHS = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "coffee": ("skimage.data", "coffee.png"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
}


@cache
def photograph(name: str) -> torch.Tensor:
    """A photograph that an installed package carries, (3, H, W) in [0, 1]. Names: `PHOTOGRAPHS`. Do not write into it."""
    if name not in PHOTOGRAPHS:
        raise KeyError(f"no photograph '{name}'; there are {', '.join(PHOTOGRAPHS)}")
    package, file = PHOTOGRAPHS[name]
    with resources.as_file(resources.files(package) / file) as path:
        return read_image(path)


def _palette(generator: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) colours around a muted tint: like a scene, not like confetti."""
    tint = generator.uniform(0.3, 0.7) + generator.normal(0, 0.07, 3)
    return (tint + generator.normal(0, 0.2, (count, 1)) + generator.normal(0, 0.07, (count, 3))).clip(0.02, 0.98)


def _texture(generator: np.random.Generator, size: int, slope: float = 1.0) -> np.ndarray:
    """(size, size) noise of unit variance whose amplitude falls as 1 / frequency^slope, as in natural scenes."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.normal(size=(size, size))) / frequency**slope
    field = np.fft.irfft2(spectrum, s=(size, size))
    return field / field.std()


def dead_leaves(seed: int, size: int = 256, leaves: int = 900, shape: str = "disc") -> torch.Tensor:
    """The dead-leaves model of natural scenes: textured shapes of many sizes that hide one another [lee2001deadleaves].

    Chapter 3.

    Args:
        seed: decides everything.
        size: height and width in pixels.
        leaves: number of shapes; radii follow a power law, r⁻³.
        shape: "disc" or "square" (turned squares).

    Returns:
        (3, size, size) in [0, 1].
    """
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    canvas = np.ones((size, size, 3)) * _palette(generator, 1)[0]
    textures = [_texture(generator, size, slope) for slope in (0.6, 1.0, 1.4)]
    low, high = 4.0, size / 3
    radii = 1 / np.sqrt(generator.uniform(1 / high**2, 1 / low**2, leaves))
    for radius, colour in zip(radii, _palette(generator, leaves), strict=True):
        y, x = generator.uniform(-0.1 * size, 1.1 * size, 2)
        angle, contrast, slant = (
            generator.uniform(0, np.pi),
            generator.exponential(0.05),
            0.08 * generator.normal(),
        )
        texture = textures[generator.integers(3)]
        box = tuple(slice(max(0, int(c - 1.3 * radius)), max(0, int(c + 1.3 * radius) + 2)) for c in (y, x))
        down, right = rows[box] - y, columns[box] - x
        if shape == "disc":
            inside = np.hypot(down, right) < radius
        else:
            turned = (
                down * np.cos(angle) + right * np.sin(angle),
                right * np.cos(angle) - down * np.sin(angle),
            )
            inside = np.maximum(np.abs(turned[0]), np.abs(turned[1])) < radius * 0.9
        shading = contrast * texture[box] + slant * (down + right) / radius
        canvas[box][inside] = colour + shading[inside][:, None]
    return torch.from_numpy(canvas.clip(0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()


def clouds(seed: int, size: int = 256) -> torch.Tensor:
    """Soft 1/f fields cut by contour lines and stripes: landscapes and cloth. (3, size, size) in [0, 1]. Chapter 3."""
    generator = np.random.default_rng(seed)
    field = _texture(generator, size, generator.uniform(1.9, 2.4))
    grain = _texture(generator, size, 0.7)
    levels = np.quantile(field, np.sort(generator.uniform(0.05, 0.95, 7)))
    regions = np.digitize(field, levels)
    colours = _palette(generator, 8)
    canvas = (
        colours[regions]
        + 0.05 * field[..., None]
        + generator.exponential(0.04, 8)[regions][..., None] * grain[..., None]
    )
    rows, columns = np.mgrid[:size, :size] / size
    angle, frequency = generator.uniform(0, np.pi), generator.uniform(8, 30)
    stripes = np.sin(2 * np.pi * frequency * (rows * np.sin(angle) + columns * np.cos(angle) + 0.05 * field))
    striped = np.isin(regions, generator.choice(8, 3, replace=False))
    canvas += (0.12 * np.tanh(3 * stripes) * striped)[..., None]
    return torch.from_numpy(canvas.clip(0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()
