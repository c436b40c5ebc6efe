"""Picture files: which are found, which are read, and what is said of the rest."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from tta_iqa_lib.imaging import files
from tta_iqa_lib.imaging.crops import grid_crops, resize_to
from tta_iqa_lib.imaging.files import ImageError, LeftOutWarning, list_images, read_crops, read_image, read_thumbnail

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
        "folder": "not a file",
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


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folders_are_listed_recursively_and_sorted(tmp_path):
    names = ["a.webp", "b/1.jpeg", "b/2.PNG", "b/3.jfif", "b/4.jpe", "c/d/e.bmp", "c/d/f.avif"]
    touch(tmp_path, *reversed(names))
    (tmp_path / "folder.png").mkdir()
    assert list_images([tmp_path]) == [tmp_path / name for name in names]
    # A second mention is dropped.
    named = [tmp_path / "b/2.PNG", str(tmp_path / "b/1.jpeg"), tmp_path]
    assert list_images(named) == [tmp_path / names[i] for i in (2, 1, 0, 3, 4, 5, 6)]


def test_a_file_that_is_named_is_kept_whatever_its_name(tmp_path):
    touch(tmp_path, "notes.txt")
    assert list_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]


def test_what_is_left_out_of_a_folder_is_counted_and_named(tmp_path, monkeypatch):
    """Also a kind of picture for which this Pillow lacks the plugin, links to nowhere, a pipe, and a folder that is closed."""
    touch(tmp_path, "a.png", "b/notes.txt", "b/more.TXT", "c.heic", "README", "shut/d.png")
    for name in ("gone.png", "lost.jpg"):
        (tmp_path / name).symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.warns(LeftOutWarning) as caught:
        assert list_images([tmp_path]) == [tmp_path / "a.png"]
    (message,) = (str(warning.message) for warning in caught)
    parts = (
        f"'{tmp_path}'", "2 .txt ('b/more.TXT', …)", "1 .heic ('c.heic'; the package pillow-heif", "1 without suffix ('README')",
        "shut' (Permission denied)", "gone.png' (a link that leads nowhere)", "lost.jpg' (a link", "pipe.png' (a pipe",
    )  # fmt: skip
    for part in parts:
        assert part in message


@pytest.mark.filterwarnings("error")
def test_links_to_folders_are_followed_once_and_loops_end(tmp_path):
    """A folder that is there in its own right is listed under its own name."""
    touch(tmp_path, "album/z/own.png", "elsewhere/linked.png", "elsewhere/deep/er.png")
    album = tmp_path / "album"
    links = {"holiday": tmp_path / "elsewhere", "again": "holiday", "loop": "."} | {f"to z {i}": "z" for i in range(9)}
    for name, target in links.items():
        (album / name).symlink_to(target)
    (tmp_path / "elsewhere/deep/back").symlink_to(album)
    assert sorted(p.name for p in list_images([album])) == ["er.png", "linked.png", "own.png"]
    assert album / "z/own.png" in list_images([album])
    assert sorted(p.name for p in list_images([album / "holiday"])) == ["er.png", "linked.png", "own.png"]


def test_heic_is_read_where_its_plugin_is_installed(tmp_path, monkeypatch):
    """By a plugin of the same interface that opens any such file as a white picture."""
    path = tmp_path / "a.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"a\.HEIC.*pillow-heif"):
        read_image(path)
    Image.init()
    for table in ("OPEN", "EXTENSION", "ID"):
        monkeypatch.setattr(Image, table, getattr(Image, table).copy())

    class White(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode, self.tile = (30, 20), "RGB", []

        def load(self):
            self.im = Image.new("RGB", self.size, "white").im
            return super().load()

    def register():
        Image.register_open("HEIF", White, lambda head: head[4:8] == b"ftyp")
        Image.register_extension("HEIF", ".heic")

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    monkeypatch.setattr(files, "find_spec", lambda name: name == "pillow_heif")
    assert torch.equal(read_image(path), torch.ones(3, 20, 30))
    assert list_images([tmp_path]) == [path]


# Crops, and pictures of many pixels


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "1", "CMYK"])
@pytest.mark.parametrize(("size", "count"), [(7, 4), (7, 9), (24, 4), (40, 1)])
def test_crops_are_those_of_the_whole_picture(tmp_path, mode, size, count):
    """Also where the picture is smaller than they are, on one side or both; turned by its metadata."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 65536, (20, 30), dtype=np.uint16))
    picture = picture if mode == "I;16" else Image.fromarray(COLOURS).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path, exif=exif)
    assert torch.equal(read_crops(path, size, count), grid_crops(read_image(path), size, count))


def test_crops_for_a_model_of_reduced_pictures_come_from_its_scale(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    whole = read_image(tmp_path / "a.png")
    shorter = min(whole.shape[1:])
    assert torch.equal(read_crops(tmp_path / "a.png", 8, 4, 10), grid_crops(resize_to(whole, 10), 8, 4))
    assert torch.equal(read_crops(tmp_path / "a.png", 8, 4, shorter + 5), grid_crops(whole, 8, 4))  # never enlarged
    with pytest.raises(ValueError, match="side"):
        read_crops(tmp_path / "a.png", 8, 4, 0)


def test_crops_of_a_missing_file_or_in_no_square_number_are_errors(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_crops(tmp_path / "a.png", 8)
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"count must be a square number .*got 3") as caught:
        read_crops(tmp_path / "a.png", 8, 3)
    assert not isinstance(caught.value, ImageError)


@pytest.mark.filterwarnings("error")
def test_pillow_s_limit_on_pixels_is_not_ours_and_stays_as_it_was(tmp_path, monkeypatch):
    """Pillow warns above its limit, and raises above twice that."""
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    for limit in (500, 200):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert_is_rgb(read_image(tmp_path / "a.png"))
        assert limit == Image.MAX_IMAGE_PIXELS


def test_more_pixels_than_the_limit_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    """2 gigapixels of white are 250 kB as a PNG; here it is only said that there are so many."""
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 50_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        ImageError, match=r"a\.png': 50000 × 40000 pixels .* 2000 megapixels, .* limit of 300; .*--max-mega"
    ):
        read_image(tmp_path / "a.png")
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    for limit in (599, 600):
        monkeypatch.setattr(files, "MAX_PIXELS", limit)
        if limit < 600:
            with pytest.raises(ImageError, match="megapixels"):
                read_crops(tmp_path / "a.png", 8)
        else:
            read_crops(tmp_path / "a.png", 8)


@pytest.mark.slow
def test_crops_of_two_hundred_megapixels_take_little_more_than_the_picture(tmp_path):
    """Four bytes a pixel, and what PyTorch takes; as floats all at once it would be 2.4 GB and more."""
    Image.new("RGB", (16320, 12240), (90, 120, 30)).save(tmp_path / "a.jpg", quality=40)
    code = (
        "import resource, sys\n"
        "from tta_iqa_lib.imaging import read_crops\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_crops(sys.argv[1], 224, 4).shape == (4, 3, 224, 224)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "a.jpg"], capture_output=True, text=True, check=True)
    assert int(run.stdout) / 1e6 < 1.2  # kB


def test_listing_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="nowhere"):
        list_images([tmp_path, tmp_path / "nowhere"])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "I;16"])
def test_a_thumbnail_is_the_mean_of_the_pixels(tmp_path, mode):
    """Of what `read_image` gives, whatever the mode; one that is smaller stays as it is."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 256)
    elif mode == "LA":
        image = image.convert("L")
        image.putalpha(Image.new("L", image.size, 128))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "x.png")
    whole = read_image(tmp_path / "x.png")
    small = read_thumbnail(tmp_path / "x.png", 20)
    assert small.shape == (3, 10, 20)
    assert torch.allclose(small, torch.nn.functional.avg_pool2d(whole, 4), atol=0.01)
    assert torch.allclose(read_thumbnail(tmp_path / "x.png", 500), whole, atol=0.003)
