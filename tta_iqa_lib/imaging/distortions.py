"""Making images worse on purpose: batched, on the device of the images, seeded.

A distortion is `function(images, severity, generator) -> images`: images (B, 3, H, W) in [0, 1], severity (B,) in [0, 1],
one for each image. Severity 0 returns the image, 1 is strong. Nothing loops over images and nothing leaves the device.
Random parts (noise, the direction of motion) are drawn from the generator alone, so severities can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .checks import as_tuple, check_images, check_number, check_range


def _column(values: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, 1), to multiply with images."""
    return values.view(-1, 1, 1, 1)


def _uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)


def _filter(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve image b with kernel b, (B, k, k) with k odd, edges replicated. By FFT: the cost does not depend on k."""
    radius = kernels.shape[-1] // 2
    padded = pad(images, (radius,) * 4, mode="replicate")
    size = padded.shape[-2:]
    # Centre of the kernel at the origin, so that nothing is displaced.
    kernels = pad(kernels, (0, size[1] - kernels.shape[-1], 0, size[0] - kernels.shape[-2]))
    kernels = kernels.roll((-radius, -radius), (-2, -1))
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels)[:, None]
    filtered = torch.fft.irfft2(spectrum, s=size)
    return filtered[..., radius : size[0] - radius, radius : size[1] - radius]


def _offsets(radius: int, like: Tensor) -> Tensor:
    return torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)


MAX_SIGMA = 4.0  # pixels


def gaussian_blur(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Out of focus: Gaussian of σ = 4·severity pixels, kernel radius 3σ."""
    sigma = (MAX_SIGMA * severity).clamp_min(1e-3).view(-1, 1)
    profile = torch.exp(-(_offsets(math.ceil(3 * MAX_SIGMA), images) ** 2) / (2 * sigma**2))
    profile = profile / profile.sum(1, keepdim=True)
    return _filter(images, profile[:, :, None] * profile[:, None, :])


MAX_MOTION = 10.0  # pixels to each side


def motion_blur(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """The camera moved: the mean along a line of 20·severity pixels, its direction random."""
    angle = math.pi * _uniform((len(images), 1, 1), images, generator)
    half = (MAX_MOTION * severity).view(-1, 1, 1)
    grid = _offsets(math.ceil(MAX_MOTION) + 1, images)
    along = grid * torch.cos(angle) + grid[:, None] * torch.sin(angle)
    across = grid[:, None] * torch.cos(angle) - grid * torch.sin(angle)
    # A segment one pixel wide with soft edges.
    weight = (half + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    return _filter(images, weight / weight.sum((1, 2), keepdim=True))


def gaussian_noise(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Sensor noise: independent Gaussian noise of standard deviation 0.2·severity² on each channel."""
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images + 0.2 * _column(severity**2) * noise


def impulse_noise(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Dead pixels: each value is replaced by 0 or 1 with probability 0.2·severity²."""
    chance = _uniform(images.shape, images, generator)
    limit = 0.2 * _column(severity**2)
    return torch.where(chance < limit / 2, 0.0, torch.where(chance < limit, 1.0, images))


# The JPEG standard's example tables (ITU-T T.81, annex K) for quality 50.
_LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
]  # fmt: skip
_CHROMA = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
_TO_RGB = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]


@cache
def _jpeg_tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Luma and chroma table, to luma and chroma, and back: sent to a device once, as a recorded pass can send nothing."""
    with torch.inference_mode(False):
        luma, corner, forth, back = (
            torch.tensor(table, device=device, dtype=dtype) for table in (_LUMA, _CHROMA, _TO_YCC, _TO_RGB)
        )
        chroma = torch.full_like(luma, 99)
        chroma[:4, :4] = corner
    return luma, chroma, forth, back


def dct_matrix(like: Tensor, size: int = 8) -> Tensor:
    """The orthonormal DCT-II as a matrix D: D @ block @ D.T are the frequencies of an 8×8 block."""
    index = torch.arange(size, device=like.device, dtype=like.dtype)
    matrix = torch.cos((2 * index + 1) * index[:, None] * math.pi / (2 * size)) * math.sqrt(2 / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix


def _quantise(plane: Tensor, table: Tensor) -> Tensor:
    """(B, H, W) in grey levels around 0, H and W multiples of 8: DCT, divide by table (B, 8, 8), round, back."""
    batch, height, width = plane.shape
    dct = dct_matrix(plane)
    blocks = plane.view(batch, height // 8, 8, width // 8, 8).transpose(2, 3)  # (B, rows, columns, 8, 8)
    table = table[:, None, None]
    frequencies = torch.round(dct @ blocks @ dct.T / table) * table
    return (dct.T @ frequencies @ dct).transpose(2, 3).reshape(batch, height, width)


def jpeg_compress(images: Tensor, quality: Tensor) -> Tensor:
    """What libjpeg's baseline encoder and decoder do to an image, to about a grey level.

    Colour transform, 4:2:0 chroma subsampling, 8×8 DCT, quantisation. Entropy coding is lossless and left out.

    Args:
        images: (B, 3, H, W) in [0, 1].
        quality: (B,) in [1, 100], libjpeg's scale.
    """
    height, width = images.shape[-2:]
    levels = torch.round(255 * pad(images, (0, -width % 16, 0, -height % 16), mode="replicate"))
    luma, chroma, forth, back = _jpeg_tables(levels.device, levels.dtype)
    ycc = torch.einsum("ij,bjhw->bihw", forth, levels).round()  # chroma around 0
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1)
    luma, chroma = (torch.floor((table * scale + 50) / 100).clamp(1, 255) for table in (luma, chroma))
    y = _quantise(ycc[:, 0] - 128, luma) + 128
    small = interpolate(ycc[:, 1:], scale_factor=0.5, mode="area").round()
    small = _quantise(small.flatten(0, 1), chroma.repeat_interleave(2, 0)).view_as(small)
    chroma_back = interpolate(small.round(), scale_factor=2, mode="bilinear")
    ycc = torch.cat([y[:, None], chroma_back], 1).round()
    rgb = torch.einsum("ij,bjhw->bihw", back, ycc)
    return (rgb[..., :height, :width].round() / 255).clamp(0, 1)


def jpeg(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """JPEG of quality 100 − 95·√severity: from visually lossless to 5."""
    return jpeg_compress(images, 100 - 95 * severity.sqrt())


def _resample_matrix(length: int, ratio: Tensor) -> Tensor:
    """(B,) ratios r ≥ 1 → (B, length, length): box-average over r pixels, then linear interpolation back."""
    cells = torch.arange(length, device=ratio.device, dtype=ratio.dtype)
    ratio = ratio.view(-1, 1, 1)
    start = cells[:, None] * ratio  # coarse pixel j covers [j r, (j + 1) r)
    down = (torch.minimum(start + ratio, cells + 1) - torch.maximum(start, cells)).clamp_min(0)  # (B, coarse, fine)
    total = down.sum(2, keepdim=True)
    down = torch.where(total > 1e-6, down / total.clamp_min(1e-6), 0.0)
    last = torch.ceil(length / ratio - 1e-4) - 1
    position = ((cells[:, None] + 0.5) / ratio - 0.5).clamp_min(0).minimum(last)
    up = (1 - (position - cells).abs()).clamp_min(0)  # (B, fine, coarse)
    return up @ down


def downscale(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Too few pixels: reduced by 1 + 4·severity with a box filter and enlarged again, linearly."""
    ratio = 1 + 4 * severity
    rows, columns = (_resample_matrix(length, ratio)[:, None] for length in images.shape[-2:])
    return rows @ images @ columns.transpose(-1, -2)


def quantise_colours(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Too few colours: each channel is rounded to 256^(1 − 0.85·severity) levels, at most to 2."""
    steps = _column(256 ** (1 - 0.85 * severity) - 1)
    return torch.round(images * steps) / steps


def darken(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Too little light: multiplied by 1 − 0.85·severity."""
    return images * (1 - 0.85 * _column(severity))


def haze(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Fog: mixed with a light grey (0.85), by 0.85·severity."""
    amount = 0.85 * _column(severity)
    return (1 - amount) * images + amount * 0.85


def lower_contrast(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """Flat light: pulled to the image's mean colour by 0.85·severity."""
    amount = 0.85 * _column(severity)
    return (1 - amount) * images + amount * images.mean((2, 3), keepdim=True)


def colour_cast(images: Tensor, severity: Tensor, generator=None) -> Tensor:
    """A wrong white balance, towards tungsten: red stays, green falls by 0.4·severity, blue by 0.8·severity."""
    gain = torch.stack([torch.ones_like(severity), 1 - 0.4 * severity, 1 - 0.8 * severity], 1)
    return images * gain[:, :, None, None]


Distortion = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]

DISTORTIONS: dict[str, Distortion] = {
    "blur": gaussian_blur,
    "jpeg": jpeg,
    "noise": gaussian_noise,
    "downscale": downscale,
    "motion": motion_blur,
    "impulse": impulse_noise,
    "quantise": quantise_colours,
    "dark": darken,
    "haze": haze,
    "contrast": lower_contrast,
    "cast": colour_cast,
}
PHOTOMETRIC = ("dark", "haze", "contrast", "cast")


def distort(
    images: Tensor,
    kind: str | Sequence[str],
    severity: float | Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Distort a batch.

    Args:
        images: (B, 3, H, W), RGB in [0, 1], floating point; half precision is distorted in single precision.
        kind: a name out of `DISTORTIONS`, or B names, one for each image.
        severity: in [0, 1], one number or a (B,) tensor. Where it is 0 the image comes back unchanged.
        generator: on the images' device; the same generator state gives the same result.

    Returns:
        (B, 3, H, W) in [0, 1], a new tensor.

    Raises:
        ValueError: wrong shapes, an unknown kind, images or a severity outside [0, 1].
    """
    check_images(images, smallest=0)
    if images.device.type == "cpu" and len(
        images
    ):  # on a GPU this test would wait for the device, and the one below, too
        check_range(images)
    if images.dtype in (torch.float16, torch.bfloat16):
        return distort(images.float(), kind, severity, generator).to(images.dtype)
    if not isinstance(severity, Tensor):
        check_number("severity", severity, 0, 1)
        severity = images.new_full((len(images),), float(severity))
    elif severity.shape != (len(images),):
        raise ValueError(f"severity must have shape ({len(images)},); got {tuple(severity.shape)}")
    elif severity.device.type == "cpu" and len(severity) and not (severity.min() >= 0 and severity.max() <= 1):
        raise ValueError(f"every severity must lie in [0, 1]; got {severity.tolist()}")
    severity = severity.to(images.device, images.dtype).clamp(0, 1)
    kinds = [kind] * len(images) if isinstance(kind, str) else list(as_tuple("kind", kind))
    if len(kinds) != len(images):
        raise ValueError(f"kind must be one name, or one for each of {len(images)} images; got {len(kinds)} names")
    unknown = [kind for kind in kinds if not (isinstance(kind, str) and kind in DISTORTIONS)]
    if unknown:
        raise ValueError(f"kind: unknown distortion {unknown[0]!r}; there are {', '.join(DISTORTIONS)}")
    if len(set(kinds)) == 1:  # no rows to look up, so that nothing is sent to the device
        return _worse(images, kinds[0], severity, generator)
    result = images.clone()
    for name in sorted(set(kinds)):
        rows = torch.tensor([i for i, k in enumerate(kinds) if k == name], device=images.device)
        result[rows] = _worse(images[rows], name, severity[rows], generator)
    return result


def _worse(images: Tensor, kind: str, severity: Tensor, generator: torch.Generator | None) -> Tensor:
    """All of one kind, (B, 3, H, W) with severities (B,); where these are 0 the images as they are."""
    worse = DISTORTIONS[kind](images, severity, generator).clamp(0, 1)
    return torch.where(_column(severity) > 0, worse, images)
