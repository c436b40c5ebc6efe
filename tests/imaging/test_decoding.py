"""What the numbers in a picture file mean: depth, transparency, orientation, colours."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from tta_iqa_lib.imaging.files import ImageError, read_crops, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) grey levels → what `read_image` should give."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


def assert_is_rgb(image: torch.Tensor, height: int = 20, width: int = 30) -> None:
    assert image.shape == (3, height, width) and image.dtype == torch.float32 and image.is_contiguous()


def test_grey_png_is_repeated_over_the_channels(tmp_path):
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), as_tensor(COLOURS[..., [0, 0, 0]]))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bit_grey_keeps_its_precision(tmp_path, name):
    Image.fromarray(WIDE).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert_is_rgb(image)
    assert torch.equal(image, torch.from_numpy(WIDE.astype(np.float32) / 65535).expand(3, -1, -1))


def test_black_and_white_png_spans_zero_to_one(tmp_path):
    bits = COLOURS[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(bits).float().expand(3, -1, -1))


def over_white(colours: np.ndarray, alpha: np.ndarray) -> torch.Tensor:
    """α·colour + (1 − α)·white."""
    share = alpha[..., None] / 255
    return torch.from_numpy(share * colours / 255 + (1 - share)).permute(2, 0, 1).float()


def test_rgba_is_laid_over_white(tmp_path):
    """Right to 1/255: Pillow composites in whole grey levels."""
    alpha = np.random.default_rng(2).integers(0, 256, (20, 30), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert_is_rgb(image)
    assert (image - over_white(COLOURS, alpha)).abs().max() <= 1 / 255
    assert torch.equal(image[:, 0], torch.ones(3, 30)) and torch.equal(image[:, 1], as_tensor(COLOURS)[:, 1])


def test_grey_with_alpha_is_laid_over_white(tmp_path):
    grey, alpha = COLOURS[..., 0], COLOURS[..., 1]
    Image.fromarray(np.dstack([grey, alpha]), mode="LA").save(tmp_path / "a.png")
    expected = over_white(COLOURS[..., [0, 0, 0]], alpha)
    assert (read_image(tmp_path / "a.png") - expected).abs().max() <= 1 / 255


def test_transparent_palette_colour_becomes_white(tmp_path):
    palette = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8) % 3, mode="P")
    palette.putpalette([10, 20, 30, 200, 100, 0, 0, 255, 7])
    palette.save(tmp_path / "a.png", transparency=1)
    table = np.array([[10, 20, 30], [255, 255, 255], [0, 255, 7]])
    assert torch.equal(read_image(tmp_path / "a.png"), as_tensor(table[np.asarray(palette)]))
    palette.save(tmp_path / "b.png")
    table[1] = [200, 100, 0]
    assert torch.equal(read_image(tmp_path / "b.png"), as_tensor(table[np.asarray(palette)]))


@pytest.mark.parametrize(("orientation", "turn"), [(6, lambda a: np.rot90(a, -1)), (8, np.rot90), (2, np.fliplr)])
def test_exif_orientation_is_applied(tmp_path, orientation, turn):
    """6 means: turn by 90° clockwise to see it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png"), as_tensor(turn(COLOURS)))


def test_exif_orientation_of_a_jpeg_is_applied(tmp_path):
    """The right half is bright; after a turn clockwise it is at the bottom."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert_is_rgb(image, 64, 32)
    assert image[:, :30].max() < 0.1 and image[:, 34:].min() > 0.9


# Grey of other depths


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(path, bits: int, rows: bytes, transparent: tuple[int, ...]) -> Path:
    """8 × 4 pixels, grey or (with three transparent numbers) colour, as no program writes them by default."""
    kind = 2 if len(transparent) == 3 else 0
    head = struct.pack(">IIBBBBB", 8, 4, bits, kind, 0, 0, 0)
    parts = (
        (b"IHDR", head),
        (b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        (b"IDAT", zlib.compress(rows)),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts) + chunk(b"IEND", b""))
    return path


RAMP = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (4, 1))


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (RAMP.astype(np.uint32) * 65537, {}),
        (65535 - RAMP, {"photometric": "miniswhite"}),
        ((RAMP // 257).astype(np.uint8), {}),
        (255 - (RAMP // 257).astype(np.uint8), {"photometric": "miniswhite"}),
        ((RAMP / 65535).astype(np.float32), {}),
        ((1 - RAMP / 65535).astype(np.float32), {"photometric": "miniswhite"}),
        (RAMP.astype(">u2"), {"byteorder": ">"}),
    ],
    ids=["32 bits", "white is zero", "8 bits", "8 bits, white is zero", "float", "float, white is zero", "big endian"],
)
def test_grey_tiffs_of_every_depth_run_from_black_to_white(tmp_path, values, options):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    image = read_image(tmp_path / "a.tif")
    assert_is_rgb(image, 4, 64)
    assert (image - torch.from_numpy(RAMP / 65535)).abs().max() < (1 / 255 if values.itemsize == 1 else 1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_is_white_whatever_the_depth(tmp_path, bits):
    """The left half has the level that is to be transparent, about two thirds of white; the right half is black."""
    level = {1: 1, 2: 2, 4: 10, 8: 170, 16: 43690}[bits]
    ones = "".join(f"{level if i < 4 else 0:0{bits}b}" for i in range(8))
    row = b"\0" + int(ones, 2).to_bytes(bits, "big")
    image = read_image(png(tmp_path / "a.png", bits, row * 4, (level,)))
    assert_is_rgb(image, 4, 8)
    assert (image[..., :4] == 1).all() and (image[..., 4:] == 0).all()


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path):
    """At 8 bits, as colour is read, it would be many colours."""
    file = png(tmp_path / "a.png", 16, (b"\0" + bytes(48)) * 4, (1, 2, 3))
    with pytest.raises(ImageError, match=r"a\.png.*transparent colour of 16 bits"):
        read_image(file)


def test_16_bit_grey_with_alpha_is_laid_over_white(tmp_path):
    values = np.stack([RAMP, 65535 - RAMP], -1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = (b"IHDR", struct.pack(">IIBBBBB", 64, 4, 16, 4, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    grey = torch.from_numpy(RAMP / 65535)
    assert (read_image(tmp_path / "a.png") - (grey * (1 - grey) + grey)).abs().max() < 1.5 / 255


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.5, np.nan]], np.float32), "not finite"),
        (np.array([[0.5, np.inf]], np.float32), "not finite"),
        (np.array([[0.0, 4095.0]], np.float32), "from 0 to 4095, not from 0 to 1"),
        (np.array([[-3.0, 1.0]], np.float32), "from -3 to 1, not"),
        (np.array([[0, 100]], np.int8), "signed"),
        (np.array([[0, 30000]], np.int16), "signed"),
        (np.array([[0, 70000]], np.int32), "signed"),
    ],
)
def test_numbers_of_unknown_meaning_are_refused(tmp_path, values, reason):
    tifffile.imwrite(tmp_path / "a.tif", values)
    for read in (read_image, lambda path: read_crops(path, 1, 1)):
        with pytest.raises(ImageError, match=rf"a\.tif.*{reason}"):
            read(tmp_path / "a.tif")


# Metadata that is broken


def test_metadata_that_cannot_be_read_leave_the_picture_alone(tmp_path):
    for name, exif in (("a.png", b"Exif\0\0no such thing"), ("a.jpg", b"Exif\0\0MM\0*\xff\xff\xff\xff")):
        Image.new("RGB", (30, 20), "white").save(tmp_path / name, exif=exif)
        assert torch.equal(read_image(tmp_path / name), torch.ones(3, 20, 30))


def test_the_orientation_counts_beside_a_tag_of_the_wrong_kind(tmp_path):
    """A GPS altitude below the sea, as a signed number; written back it is an error."""
    turn = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    gps = struct.pack("<HHHIIIii", 1, 6, 10, 1, 56, 0, -5, 3)
    block = struct.pack("<H", 2) + turn + struct.pack("<HHII", 0x8825, 4, 1, 38) + struct.pack("<I", 0) + gps
    exif = b"Exif\0\0II*\0\x08\0\0\0" + block
    Image.new("RGB", (30, 20), "white").save(tmp_path / "a.jpg", exif=exif)
    assert_is_rgb(read_image(tmp_path / "a.jpg"), 30, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert torch.equal(read_image(tmp_path / "a.png"), as_tensor(expected))


# Colours


def srgb_profile() -> tuple[bytearray, dict[bytes, slice]]:
    """A profile of sRGB, and where the positions and sizes of its parts stand in it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack(">I", profile[128:132])
    return profile, {bytes(profile[i : i + 4]): slice(i + 4, i + 12) for i in range(132, 132 + 12 * count, 12)}


def swapped_profile() -> bytes:
    """Red and green change places: what is said to be red is green."""
    profile, parts = srgb_profile()
    red, green = parts[b"rXYZ"], parts[b"gXYZ"]
    profile[red], profile[green] = profile[green], profile[red]
    return bytes(profile)


def nearly_srgb() -> bytes:
    """Green is lighter by a thousandth, as rounded numbers of other makers have it."""
    profile, parts = srgb_profile()
    (start, _size) = struct.unpack(">2I", profile[parts[b"gXYZ"]])
    place = slice(start + 12, start + 16)
    profile[place] = struct.pack(">i", round(1.001 * struct.unpack(">i", profile[place])[0]))
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_applied(tmp_path, mode):
    picture = Image.new("RGB", (30, 20), (200, 40, 90)).convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=swapped_profile())
    picture.save(tmp_path / "plain.png")
    expected = read_image(tmp_path / "plain.png")[[1, 0, 2]]
    image = read_image(tmp_path / "a.png")
    assert_is_rgb(image)
    assert (image - expected).abs().max() <= 2 / 255
    assert (read_crops(tmp_path / "a.png", 8, 1) - expected[:, 6:14, 11:19]).abs().max() <= 2 / 255


def test_srgb_under_any_name_changes_nothing(tmp_path):
    for profile in (bytes(srgb_profile()[0]), nearly_srgb()):
        Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=profile)
        assert torch.equal(read_image(tmp_path / "a.png"), as_tensor(COLOURS))


@pytest.mark.parametrize("profile", [b"junk", swapped_profile()[:200]])
@pytest.mark.parametrize("pixels", [COLOURS, COLOURS[..., 0]], ids=["colour", "grey"])
def test_a_profile_that_is_broken_or_does_not_fit_is_passed_over(tmp_path, profile, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    assert torch.equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "plain.png"))


def linear_grey() -> bytes:
    """A profile of grey whose values are proportional to light: header, white point, a curve of no entries."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"wtpt": white, b"kTRC": b"curv" + bytes(8)}
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">2I", offset + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + table + data
    head = bytearray(128)
    head[8:12], head[12:24], head[36:40] = b"\x02\x10\0\0", b"mntrGRAYXYZ ", b"acsp"
    head[:4], head[68:80] = struct.pack(">I", 128 + len(body)), struct.pack(">3i", 63190, 65536, 54061)
    return bytes(head) + body


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_that_is_proportional_to_light_becomes_srgb(tmp_path, depth):
    light = RAMP / 65535
    Image.fromarray(RAMP if depth == 16 else (RAMP // 257).astype(np.uint8)).save(
        tmp_path / "a.png", icc_profile=linear_grey()
    )
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    error = (read_image(tmp_path / "a.png") - torch.from_numpy(expected)).abs()
    assert error[..., 4:].max() < 2 / 255
