"""Pictures that need no download: photographs that installed packages carry, and scenes made by chance."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .checks import check_choice, check_count

# The natural colour photographs that installed packages carry, with their authors' licences in data/README.md.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


@cache
def photograph(name: str) -> torch.Tensor:
    """A photograph that an installed package carries, (3, H, W) in [0, 1]. Names: `PHOTOGRAPHS`. Do not write into it.

    The values are those of the file: "rocket" is in Adobe RGB, and the benchmark takes it as it stands.

    Raises:
        KeyError: no photograph of that name.
    """
    if name not in PHOTOGRAPHS:
        raise KeyError(f"no photograph '{name}'; there are {', '.join(PHOTOGRAPHS)}")
    package, file = PHOTOGRAPHS[name]
    # Found, not imported: scikit-learn alone takes a second.
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    with Image.open(Path(spec.origin).parent / file) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


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

    Args:
        seed: decides everything.
        size: height and width in pixels, 12 or more.
        leaves: number of shapes; radii follow a power law, r⁻³.
        shape: "disc" or "square" (turned squares).

    Returns:
        (3, size, size) in [0, 1].
    """
    check_choice("shape", shape, ("disc", "square"))
    check_count("size", size, 12)
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
    """Soft 1/f fields cut by contour lines and stripes: landscapes and cloth. (3, size, size) in [0, 1]."""
    check_count("size", size, 2)
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
