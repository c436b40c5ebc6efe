import io
import math

import numpy as np
import pytest
import torch
from helpers import pictures
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from tta_iqa_lib.imaging.distortions import DISTORTIONS, PHOTOMETRIC, distort, jpeg_compress
from tta_iqa_lib.imaging.scenes import PHOTOGRAPHS, photograph

RANDOM = ("noise", "motion", "impulse")
FIXED = tuple(kind for kind in DISTORTIONS if kind not in RANDOM)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centres(height: int, width: int) -> torch.Tensor:
    """The middle of every bundled photograph, (8, 3, height, width)."""
    crops = []
    for name in PHOTOGRAPHS:
        image = photograph(name)
        y, x = ((have - want) // 2 for have, want in zip(image.shape[1:], (height, width), strict=True))
        crops.append(image[:, y : y + height, x : x + width])
    return torch.stack(crops)


def test_there_are_the_promised_kinds():
    promised = {
        "blur",
        "jpeg",
        "noise",
        "motion",
        "downscale",
        "impulse",
        "quantise",
        "dark",
        "haze",
        "contrast",
        "cast",
    }
    assert promised <= set(DISTORTIONS) and set(PHOTOMETRIC) == {"dark", "haze", "contrast", "cast"}


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_severity_zero_is_the_identity(kind):
    images = pictures(3)
    severity = torch.tensor([0.0, 0.6, 0.0])
    assert torch.equal(distort(images, kind, 0.0, generator()), images)
    mixed = distort(images, kind, severity, generator())
    assert torch.equal(mixed[[0, 2]], images[[0, 2]]) and not torch.equal(mixed[1], images[1])


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("shape", [(2, 3, 32, 48), (1, 3, 17, 5), (3, 3, 1, 1)])
def test_the_result_is_a_new_tensor_of_the_same_shape_within_zero_and_one(kind, shape):
    images = torch.rand(shape, generator=generator(), dtype=torch.float64).round(decimals=1)
    before = images.clone()
    worse = distort(images, kind, 1.0, generator())
    assert worse.shape == images.shape and worse.dtype == torch.float64
    assert worse.min() >= 0 and worse.max() <= 1
    worse.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_the_generator_decides_and_nothing_else(kind):
    images = pictures(2)
    torch.manual_seed(0)
    first = distort(images, kind, 0.5, generator(3))
    torch.manual_seed(1)
    assert torch.equal(distort(images, kind, 0.5, generator(3)), first)
    assert torch.equal(distort(images, kind, 0.5, generator(4)), first) == (kind in FIXED)


@pytest.mark.parametrize("kind", RANDOM)
def test_images_of_one_batch_are_distorted_independently(kind):
    images = pictures(1).expand(2, -1, -1, -1)
    first, second = distort(images, kind, 1.0, generator())
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_each_step_of_severity_lowers_the_psnr_of_every_photograph(kind):
    images = centres(192, 192)
    before = torch.full((len(images),), math.inf)
    for severity in (0.25, 0.5, 0.75, 1.0):
        error = (distort(images, kind, severity, generator()) - images).square().mean((1, 2, 3))
        psnr = -10 * torch.log10(error)
        assert torch.isfinite(psnr).all() and (psnr < before - 0.1).all(), (severity, before - psnr)
        before = psnr


@pytest.mark.parametrize("kind", FIXED)
def test_a_severity_for_each_image_equals_one_by_one(kind):
    images, severity = pictures(5), torch.tensor([0.1, 0.9, 0.0, 0.4, 1.0])
    batch = distort(images, kind, severity)
    single = torch.cat([distort(image[None], kind, float(s)) for image, s in zip(images, severity, strict=True)])
    # FFTs and matrix products of a longer batch may round differently; no grey level may tip over.
    assert torch.allclose(batch, single, rtol=0, atol=1e-6)


def test_a_kind_for_each_image_equals_one_by_one():
    kinds = [*FIXED, *reversed(FIXED)]
    images = pictures(len(kinds))
    batch = distort(images, kinds, 0.6)
    single = torch.cat([distort(image[None], kind, 0.6) for image, kind in zip(images, kinds, strict=True)])
    assert torch.allclose(batch, single, rtol=0, atol=1e-6)


def libjpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    buffer = io.BytesIO()
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(buffer)).astype(np.float32) / 255).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(192, 192), (181, 203)])
@pytest.mark.parametrize("quality", [95, 75, 50, 30, 10])
def test_jpeg_agrees_with_libjpeg_to_a_grey_level_on_every_photograph(quality, size):
    images = centres(*size)
    ours = jpeg_compress(images, torch.full((len(images),), float(quality)))
    theirs = torch.stack([libjpeg(image, quality) for image in images])
    difference = 255 * (ours - theirs).abs().mean((1, 2, 3))
    assert difference.max() <= 1, difference
    # The agreement means something only where compression itself costs more than that.
    assert (255 * (theirs - images).abs().mean((1, 2, 3)) > 2 * difference).all() or quality > 75


def test_jpeg_severity_runs_from_quality_100_to_5():
    images, severity = pictures(3), torch.tensor([0.04, 0.25, 1.0])
    assert torch.equal(distort(images, "jpeg", severity), jpeg_compress(images, torch.tensor([81.0, 52.5, 5.0])))


def impulse(size: int = 65, height: float = 0.4) -> torch.Tensor:
    """One brighter pixel in the middle of a grey image."""
    image = torch.full((1, 3, size, size), 0.5, dtype=torch.float64)
    image[..., size // 2, size // 2] += height
    return image


def moments(response: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mass, centre (2,) and covariance (2, 2) in pixels of one channel's response."""
    size = response.shape[-1]
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    grid = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij")).flatten(1)
    mass = response.flatten()
    centre = (grid * mass).sum(1) / mass.sum()
    return mass.sum(), centre, (grid * mass) @ grid.T / mass.sum() - centre[:, None] * centre


@pytest.mark.parametrize("kind", ["blur", "motion"])
@pytest.mark.parametrize("severity", [0.1, 0.5, 1.0])
def test_blur_keeps_the_mean_and_displaces_nothing(kind, severity):
    image = impulse()
    blurred = distort(image, kind, severity, generator(1))
    response = (blurred - 0.5)[0, 0]
    mass, centre, _ = moments(response)
    assert mass == pytest.approx(0.4, abs=1e-9)
    assert centre.abs().max() < 1e-9
    assert torch.allclose(response, response.flip(0, 1), rtol=0, atol=1e-12)
    assert torch.allclose(blurred[0, 0], blurred[0, 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("severity", [0.25, 0.5, 1.0])
def test_blur_is_round_and_has_the_stated_width(severity):
    """σ = 4·severity pixels; the kernel ends at 12 pixels, which takes 2 % off the variance at severity 1."""
    response = (distort(impulse(), "blur", severity) - 0.5)[0, 0]
    assert torch.allclose(response, response.T, rtol=0, atol=1e-12)
    assert torch.allclose(response, response.flip(0), rtol=0, atol=1e-12)
    _, _, covariance = moments(response)
    assert covariance[0, 0] == pytest.approx((4 * severity) ** 2, rel=0.03)
    assert covariance[0, 1].abs() < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_motion_blur_is_a_line_of_20_pixels(seed):
    """Variance of a uniform line of length L: L² / 12 along it; across, less than a pixel."""
    response = (distort(impulse(), "motion", 1.0, generator(seed)) - 0.5)[0, 0]
    across, along = torch.linalg.eigvalsh(moments(response)[2])
    assert along == pytest.approx(20**2 / 12, rel=0.1)
    assert across < 0.5


def test_edges_are_continued_not_darkened():
    """A constant image has nothing to blur, up to its border."""
    image = torch.full((1, 3, 9, 20), 0.7)
    for kind in ("blur", "motion", "downscale"):
        assert torch.allclose(distort(image, kind, 1.0, generator()), image, rtol=0, atol=1e-6), kind


def test_downscale_by_two_is_a_box_average_and_linear_enlargement():
    images = pictures(2, 32)
    expected = interpolate(avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(distort(images, "downscale", 0.25), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("severity", [0.3, 0.7, 1.0])
def test_noise_has_the_stated_deviation_and_no_bias(severity):
    """On mid-grey, where clipping to [0, 1] at 2.5 σ or more takes little. 49,152 values: 2 % is six standard errors."""
    image = torch.full((1, 3, 128, 128), 0.5)
    noise = distort(image, "noise", severity, generator()) - image
    assert noise.std() == pytest.approx(0.2 * severity**2, rel=0.02)
    assert noise.mean().abs() < 0.004
    channels = torch.corrcoef(noise[0].flatten(1)) - torch.eye(3)
    assert channels.abs().max() < 0.04  # independent on each channel


@pytest.mark.parametrize("severity", [0.5, 1.0])
def test_impulse_noise_replaces_the_stated_share_by_black_and_white(severity):
    image = torch.full((1, 3, 128, 128), 0.5)
    worse = distort(image, "impulse", severity, generator())
    assert sorted(worse.unique().tolist()) == [0, 0.5, 1]
    for value in (0, 1):
        assert (worse == value).double().mean() == pytest.approx(0.1 * severity**2, rel=0.08)


def test_colour_quantisation_leaves_few_values():
    ramp = torch.linspace(0, 1, 4096).view(1, 1, 64, 64).expand(1, 3, -1, -1)
    counts = [len(distort(ramp, "quantise", s)[0, 0].unique()) for s in (0.25, 0.5, 0.75, 1.0)]
    levels = [256 ** (1 - 0.85 * s) for s in (0.25, 0.5, 0.75, 1.0)]
    assert all(abs(count - level) <= 1 for count, level in zip(counts, levels, strict=True))


PHOTOMETRY = {
    "dark": lambda x, s: (1 - 0.85 * s) * x,
    "haze": lambda x, s: x + 0.85 * s * (0.85 - x),
    "contrast": lambda x, s: x + 0.85 * s * (x.mean((2, 3), keepdim=True) - x),
    "cast": lambda x, s: x * torch.stack([1 + 0 * s, 1 - 0.4 * s, 1 - 0.8 * s], 1),
}


@pytest.mark.parametrize("kind", PHOTOMETRIC)
def test_photometric_shifts_follow_their_formula(kind):
    images, severity = pictures(3), torch.tensor([0.2, 0.5, 1.0])
    expected = PHOTOMETRY[kind](images, severity.view(3, 1, 1, 1) if kind != "cast" else severity.view(3, 1, 1))
    assert torch.allclose(distort(images, kind, severity), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(3, 8, 8), "blur", 0.5), r"\(B, 3, H, W\).*\(3, 8, 8\)"),
        ((torch.rand(2, 1, 8, 8), "blur", 0.5), r"\(2, 1, 8, 8\)"),
        ((torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "blur", 0.5), "uint8"),
        ((torch.rand(2, 3, 8, 8), "fog", 0.5), "unknown distortion 'fog'; there are blur"),
        ((torch.rand(2, 3, 8, 8), ["blur", "fog"], 0.5), "unknown distortion 'fog'"),
        ((torch.rand(2, 3, 8, 8), ["blur"], 0.5), "one for each of 2 images; got 1 names"),
        ((torch.rand(2, 3, 8, 8), "blur", 1.1), r"\[0, 1\]; got 1.1"),
        ((torch.rand(2, 3, 8, 8), "blur", math.nan), r"\[0, 1\]"),
        ((torch.rand(2, 3, 8, 8), "blur", torch.tensor([0.5, -0.1])), r"\[0, 1\]"),
        ((torch.rand(2, 3, 8, 8), "blur", torch.tensor([0.5])), r"shape \(2,\); got \(1,\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        distort(*arguments)


def test_an_empty_batch_stays_empty():
    assert distort(torch.rand(0, 3, 8, 8), "blur", 0.5).shape == (0, 3, 8, 8)
