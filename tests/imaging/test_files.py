import numpy as np
import pytest
import torch
from PIL import Image

from tta_iqa_lib.imaging.files import (
    PHOTOGRAPHS,
    ImageError,
    clouds,
    dead_leaves,
    grid_crops,
    list_images,
    pad_to,
    photograph,
    read_image,
    resize_to,
    symmetries,
)

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) grey levels → what `read_image` should give."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


def assert_is_rgb(image: torch.Tensor, height: int = 20, width: int = 30) -> None:
    assert image.shape == (3, height, width) and image.dtype == torch.float32 and image.is_contiguous()


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True}), ("a.tiff", {}), ("a.ppm", {}), ("A.PNG", {})],
)
def test_lossless_files_come_back_exactly(tmp_path, name, options):
    Image.fromarray(COLOURS).save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert_is_rgb(image)
    assert torch.equal(image, as_tensor(COLOURS))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_files_come_back_to_two_grey_levels(tmp_path, name):
    """On a smooth image at the highest quality; a swap of channels or axes would be off by dozens."""
    rows, columns = np.mgrid[:48, :64]
    smooth = np.stack([2 * rows + 40, 3 * columns + 20, 200 - rows - columns], 2).astype(np.uint8)
    options = {"subsampling": 0} if name == "a.jpg" else {}
    Image.fromarray(smooth).save(tmp_path / name, quality=100, **options)
    image = read_image(str(tmp_path / name))  # a string will do
    assert_is_rgb(image, 48, 64)
    error = (image - as_tensor(smooth)).abs()
    assert error.mean() < 2 / 255 and error.max() < 8 / 255


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


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert torch.equal(read_image(tmp_path / "a.webp"), torch.ones(3, 20, 30))


def broken(tmp_path, kind: str):
    path = tmp_path / f"holiday {kind}.png"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no image at all")
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        Image.fromarray(COLOURS).save(path, format=kind)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    return path


KINDS = ["missing", "empty", "text", "folder", "JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable_file_gives_an_error_that_names_it(tmp_path, kind):
    path = broken(tmp_path, kind)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    reasons = {
        "missing": "no such file",
        "folder": "no such file",
        "empty": "the file is empty",
        "text": "not an image",
    }
    assert str(path) in str(caught.value) and reasons.get(kind, "") in str(caught.value)
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_no_cut_through_a_file_gives_any_other_error(tmp_path, kind):
    """Decoders raise OSError, SyntaxError, struct.error, TypeError, …: all become one."""
    Image.fromarray(COLOURS).save(tmp_path / "whole", format=kind)
    content = (tmp_path / "whole").read_bytes()
    failed = 0
    for length in [*range(1, 120, 3), *range(120, len(content) - 20, 151)]:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ImageError, match="cut"):
            read_image(tmp_path / "cut")
        failed += 1
    assert failed > 40


def test_an_error_of_any_kind_in_the_decoder_becomes_an_image_error(tmp_path, monkeypatch):
    """A damaged TIFF made Pillow raise TypeError."""

    def damaged(*_args):
        raise TypeError("'float' object cannot be interpreted as an integer")

    Image.fromarray(COLOURS).save(tmp_path / "a.tiff")
    monkeypatch.setattr(Image, "open", damaged)
    with pytest.raises(ImageError, match=r"a\.tiff.*float"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize(("height", "width", "size"), [(5, 9, 7), (1, 3, 10), (4, 4, 23)])
def test_padding_mirrors_at_the_edges_as_often_as_needed(height, width, size):
    """NumPy's "symmetric" padding; the greater part goes to the far side."""
    image = torch.arange(3.0 * height * width).view(3, height, width)
    missing = [max(0, size - length) for length in (height, width)]
    widths = [(0, 0), *((m // 2, m - m // 2) for m in missing)]
    assert np.array_equal(pad_to(image, size), np.pad(image.numpy(), widths, mode="symmetric"))


@pytest.mark.parametrize(("size", "found"), [((60, 90), (20, 30)), ((90, 60), (30, 20)), ((10, 12), (20, 24))])
def test_resizing_keeps_the_ratio_of_the_sides_and_the_range(size, found):
    """A ramp stays a ramp: of the same ends, away from the edges."""
    ramp = torch.linspace(0, 1, size[1]).expand(3, *size)
    image = resize_to(ramp, 20)
    assert image.shape == (3, *found) and image.min() >= 0 and image.max() <= 1
    assert (image[:, 0, 2:-2] - torch.linspace(0, 1, found[1])[2:-2]).abs().max() < 0.05


def test_padding_leaves_a_large_enough_image_alone():
    image = torch.rand(3, 8, 9)
    assert torch.equal(pad_to(image, 8), image)


def coordinates(height: int, width: int) -> torch.Tensor:
    """Channel 0 counts rows, channel 1 columns."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows * 0]).float()


def test_grid_crops_are_native_pixels_spread_evenly():
    crops = grid_crops(coordinates(41, 81), 11, count=9)
    assert crops.shape == (9, 3, 11, 11)
    corners = crops[:, :2, 0, 0]
    assert corners.tolist() == [[y, x] for y in (5, 15, 25) for x in (12, 35, 58)]
    assert torch.equal(crops - corners[:, [0, 1, 1], None, None] * torch.tensor([1.0, 1, 0])[:, None, None],
                       coordinates(11, 11).expand(9, -1, -1, -1))  # fmt: skip


def test_one_crop_is_the_centre():
    crop = grid_crops(coordinates(21, 31), 11, count=1)
    assert crop.shape == (1, 3, 11, 11) and crop[0, :2, 5, 5].tolist() == [10, 15]


def test_crops_can_be_repeated_and_small_images_are_padded():
    image = torch.rand(3, 13, 40)
    crops = grid_crops(image, 24)
    assert crops.shape == (4, 3, 24, 24)
    assert torch.equal(crops, grid_crops(image, 24))
    assert torch.equal(crops[0], crops[2])  # no room to move up or down
    assert torch.equal(crops[0, :, 5:18], image[:, :, 4:28])


@pytest.mark.parametrize("count", [0, 2, 5, -4])
def test_crops_come_in_square_numbers(count):
    with pytest.raises(ValueError, match="square number"):
        grid_crops(torch.rand(3, 30, 30), 8, count)


def test_folders_are_listed_recursively_sorted_and_without_other_files(tmp_path):
    for name in ("b/2.PNG", "b/1.jpeg", "a.webp", "c/d/e.bmp", "notes.txt", "b/1.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    names = ["a.webp", "b/1.jpeg", "b/2.PNG", "c/d/e.bmp"]
    assert list_images([tmp_path]) == [tmp_path / name for name in names]
    # Named files are kept as they are and where they are; a second mention is dropped.
    named = [tmp_path / "notes.txt", str(tmp_path / "b/2.PNG"), tmp_path]
    assert list_images(named) == [
        tmp_path / name for name in ("notes.txt", "b/2.PNG", "a.webp", "b/1.jpeg", "c/d/e.bmp")
    ]


def test_listing_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="nowhere"):
        list_images([tmp_path, tmp_path / "nowhere"])


SCENES = [dead_leaves, lambda *a, **k: dead_leaves(*a, shape="square", **k), clouds]


@pytest.mark.parametrize("make", SCENES, ids=["discs", "squares", "clouds"])
def test_scenes_follow_from_their_seed_alone(make):
    np.random.seed(0)
    first = make(7, size=48)
    np.random.seed(1)
    assert torch.equal(make(7, size=48), first)
    assert not torch.equal(make(8, size=48), first)
    assert_is_rgb(first, 48, 48)
    assert first.min() >= 0 and first.max() <= 1 and first.std() > 0.03


def test_squares_are_not_discs():
    assert not torch.equal(dead_leaves(7, size=48), dead_leaves(7, size=48, shape="square"))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_bundled_photographs_are_natural_images(name):
    """Colour, the full range of tones, and neighbours that resemble one another."""
    image = photograph(name)
    assert_is_rgb(image, *image.shape[1:])
    assert min(image.shape[1:]) >= 192 and image.min() < 0.05 and 0.9 < image.max() <= 1
    assert (image[0] - image[2]).abs().mean() > 0.01
    neighbours = torch.stack([image[:, :, 1:].flatten(), image[:, :, :-1].flatten()])
    assert torch.corrcoef(neighbours)[0, 1] > 0.9


def test_an_unknown_photograph_is_an_error_that_lists_the_known():
    with pytest.raises(KeyError, match="astronaut"):
        photograph("lena")


# Symmetric views


def test_the_first_view_is_the_image_itself_and_the_second_its_mirror_image():
    images = torch.rand(2, 3, 6, 6)
    for count in (1, 2, 8):
        views = symmetries(images, count)
        assert len(views) == count and torch.equal(views[0], images)
        if count > 1:
            assert torch.equal(views[1], images[..., torch.arange(5, -1, -1)])


def test_the_eight_views_are_the_symmetries_of_the_square():
    """All different, and closed: the views of any view are the same eight."""
    image = torch.rand(1, 3, 5, 5)
    found = {view.numpy().tobytes() for view in map(torch.Tensor.contiguous, symmetries(image, 8))}
    assert len(found) == 8
    for view in symmetries(image, 8):
        assert {v.contiguous().numpy().tobytes() for v in symmetries(view, 8)} == found
    assert image.transpose(2, 3).contiguous().numpy().tobytes() in found
    assert image.flip(2).contiguous().numpy().tobytes() in found


def test_images_that_are_not_square_have_two_views_but_not_eight():
    images = torch.rand(2, 3, 4, 6)
    assert [view.shape for view in symmetries(images, 2)] == [images.shape] * 2
    with pytest.raises(ValueError, match=r"quarter turns need square images; got \(4, 6\)"):
        symmetries(images, 8)


@pytest.mark.parametrize("count", [0, 3, 4, -1])
def test_other_numbers_of_views_are_errors(count):
    with pytest.raises(ValueError, match=f"1, 2 or 8 symmetric views; got {count}"):
        symmetries(torch.rand(1, 3, 4, 4), count)
