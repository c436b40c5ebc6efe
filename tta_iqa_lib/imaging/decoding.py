"""What the numbers in a picture file mean: any picture that Pillow opens → RGB in [0, 1].

Pillow gives the numbers as they are stored. Which of them is white, which way up they are and in whose colours depends on
tags, chunks and profiles beside them. What cannot be told is refused: a guess would pass for a score.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # of a TIFF
_SIGNED = 2  # among its sample formats
_UNKNOWN = "its grey levels are signed numbers, and which of them is white is unknown"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """A freshly opened picture as it is to be looked at. Grey of more than 8 bits comes in mode F, in [0, 1].

    Raises:
        ValueError: what its numbers mean cannot be told.
    """
    if isinstance(image, PngImageFile) and "transparency" in image.info:
        _mend_transparency(image)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED:
        raise ValueError(_UNKNOWN)
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata that cannot be read: the pixels are sound all the same
        turn = None
    if image.mode.startswith("I") or image.mode == "F":
        image = _deep_grey(image)
    return image if turn is None else image.transpose(turn)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """What `upright` gave, or a part of it → (3, H, W) float32, RGB in [0, 1]."""
    if image.mode == "F":
        return torch.from_numpy(np.array(image)).expand(3, -1, -1).contiguous()
    pixels = torch.from_numpy(np.array(_over_white(image)))
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)


def _deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or floating-point grey → mode F, 0 = black, 1 = white."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite")
        if values.min() < -0.01 or values.max() > 1.01:
            raise ValueError(f"its values run from {values.min():.4g} to {values.max():.4g}, not from 0 to 1")
        grey = values.clip(0, 1)
    else:
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        if tags.get(_SAMPLE_FORMAT, (1,))[0] != 1 or image.format not in ("PNG", "PPM", "TIFF", "JPEG2000"):
            raise ValueError(_UNKNOWN)
        if bits == 32:
            values = values.view(np.uint32)
        grey = (values / (2.0**bits - 1)).astype(np.float32) if bits > 16 else values.astype(np.float32) / (2**bits - 1)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns 8 bits over, but not these
        grey = 1 - grey
    if transform := _transform_to_srgb(image.info.get("icc_profile"), "L"):
        curve = np.asarray(ImageCms.applyTransform(_RAMP, transform), dtype=np.float32)[0].mean(1) / 255
        grey = np.interp(grey, np.linspace(0, 1, 256), curve).astype(np.float32)
    if isinstance(hidden := image.info.get("transparency"), int):
        grey = np.where(values == hidden, np.float32(1), grey)
    return Image.fromarray(grey)


def _mend_transparency(image: PngImageFile) -> None:
    """Pillow spreads grey of 2 or 4 bits over 8, but not the value that is to be transparent."""
    layout = image.tile[0][3]  # known until the pixels are loaded
    if layout in ("L;2", "L;4"):
        image.info["transparency"] *= 255 // (2 ** int(layout[2:]) - 1)
    elif layout == "RGB;16B":
        raise ValueError("a transparent colour of 16 bits: save it with 8, or with an alpha channel")


def _over_white(image: Image.Image) -> Image.Image:
    """A picture of 8 bits, whatever its mode → mode RGB, in sRGB; transparency is laid over white."""
    if image.mode.endswith("a"):  # premultiplied
        image = image.convert(image.mode.upper())
    colours = _to_srgb(image)
    if not image.has_transparency_data:
        return colours
    alpha = image.convert("RGBA").getchannel("A")
    colours = colours.convert("RGBA")
    colours.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    mode = "CMYK" if image.mode == "CMYK" else "L" if image.getbands()[0] in ("1", "L") else "RGB"
    transform = _transform_to_srgb(image.info.get("icc_profile"), mode)
    return transform.apply(image.convert(mode)) if transform else image.convert("RGB")


_RAMP = Image.fromarray(np.arange(256, dtype=np.uint8)[None])


def _colour_chart() -> Image.Image:
    """9 × 9 × 9 colours."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours in `mode` to sRGB; None where nothing is to be done.

    A profile that cannot be read, or is of another kind than the picture, is passed over, as browsers do. So is one that
    moves no colour by more than two grey levels: it is sRGB under one of its names.
    """
    if not profile:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    chart = _RAMP if mode == "L" else _colour_chart()
    before, after = (
        np.asarray(shown, dtype=int) for shown in (chart.convert("RGB"), ImageCms.applyTransform(chart, transform))
    )
    return transform if abs(after - before).max() > 2 else None
