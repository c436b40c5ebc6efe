"""Picture files: which there are, and reading them, whole or in crops.

Everything downstream sees one format: RGB, float32, values in [0, 1], shape (3, H, W) or (B, 3, H, W).
"""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image

from .checks import check_count
from .crops import crop_starts, grid_crops, pad_to, resize_to, square_side
from .decoding import to_tensor, upright

# What a folder is searched for; which of them can be read depends on how Pillow was built. A file that is named is tried
# whatever its name.
SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
HEIC = frozenset({".heic", ".heif", ".hif"})  # Pillow needs the package pillow-heif for these

# A picture of more pixels is refused: a small file can unpack to more than the memory holds, four bytes a pixel. Raise it
# for larger ones, here or by `tta-iqa --max-megapixels`.
MAX_PIXELS = 300_000_000


class ImageError(ValueError):
    """A file could not be read as an image; the message names the file and the reason."""


class LeftOutWarning(UserWarning):
    """A folder holds files that are not among its images; the message counts and names them."""


def read_image(path: str | Path) -> torch.Tensor:
    """Any image file → (3, H, W) float32, RGB in [0, 1].

    EXIF orientation is applied; other metadata is not looked at. Transparency is laid over white. A colour profile other than
    sRGB is applied. Grey images are repeated over the channels. 16-bit and 32-bit grey keeps its precision; 16-bit colour is
    read at 8 bits. Of an animation the first frame is read.

    Raises:
        ImageError: missing, empty, truncated, not an image, of more than `MAX_PIXELS`, or one whose numbers may mean
            this or that (signed, not finite, floating-point beyond [0, 1]).
    """
    return _read(path, to_tensor)


def read_crops(path: str | Path, size: int, count: int = 4, side: int | None = None) -> torch.Tensor:
    """`grid_crops(read_image(path), size, count)` in less memory: only the crops become floats.

    Args:
        side: of a model that was trained on reduced pictures, `model.side`: one with a longer shorter side is reduced to it
            first. None: native resolution.

    Raises:
        ImageError: as `read_image`.
        ValueError: as `grid_crops`; `side` is no positive whole number.
    """
    across = square_side(count)
    if side is not None:
        check_count("side", side, 1)
        image = read_image(path)
        return grid_crops(resize_to(image, side) if min(image.shape[1:]) > side else image, size, count)

    def cut(image: Image.Image) -> torch.Tensor:
        boxes = [
            (left, top, min(left + size, image.width), min(top + size, image.height))
            for top in crop_starts(image.height, size, across)
            for left in crop_starts(image.width, size, across)
        ]
        return torch.stack([pad_to(to_tensor(image.crop(box)), size) for box in boxes])

    return _read(path, cut)


def read_thumbnail(path: str | Path, side: int) -> torch.Tensor:
    """As `read_image`, reduced to at most `side` pixels a side.

    Raises:
        ImageError: as `read_image`.
    """

    def reduce(image: Image.Image) -> torch.Tensor:
        ratio = min(1.0, side / max(image.size))
        size = [max(1, round(ratio * length)) for length in image.size]
        if image.mode in ("1", "P"):  # else neighbours are picked, not averaged
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return to_tensor(image.resize(size, Image.Resampling.BOX))

    return _read(path, reduce)


def _read(path: str | Path, use: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
    """`use(picture)` of an upright picture; whatever goes wrong on the way is an `ImageError`."""
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"cannot read '{path}': {'not a file' if path.exists() else 'no such file'}")
    if path.stat().st_size == 0:
        raise ImageError(f"cannot read '{path}': the file is empty")
    try:
        with _open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(
                    f"{opened.width} × {opened.height} pixels are {opened.width * opened.height / 1e6:.0f} megapixels, more than "
                    f"the limit of {MAX_PIXELS / 1e6:g}; `tta-iqa --max-megapixels` raises it"
                )
            return use(upright(opened))
    except Exception as error:  # decoders raise all sorts of errors on damaged files, TypeError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image, or one of an unknown kind"
            if path.suffix.lower() in HEIC and not _can_read(path.suffix):
                reason = "Pillow reads it with the package pillow-heif"
        raise ImageError(f"cannot read '{path}': {reason}") from error


_opening = threading.Lock()


def _open(path: Path) -> Image.Image:
    """`Image.open`, without its limit: it warns at 89 megapixels of an attack and refuses at 179; phones take 200."""
    if path.suffix.lower() in HEIC:
        _can_read(path.suffix)  # registers the plugin
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _can_read(suffix: str) -> bool:
    """Whether Pillow, as it was built and with the plugin for HEIC where it is installed, opens files of that name."""
    suffix = suffix.lower()
    if suffix not in Image.registered_extensions() and suffix in HEIC and find_spec("pillow_heif"):
        import_module("pillow_heif").register_heif_opener()
    return Image.registered_extensions().get(suffix) in Image.OPEN


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files are kept as they are; folders give their images, recursively and sorted; a file named twice is listed once.

    Links to folders are followed, each folder once.

    Raises:
        ImageError: a path that does not exist.

    Warns:
        LeftOutWarning: a folder holds other files, pictures that this Pillow cannot read, or what cannot be opened.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            pictures, others, closed = [], defaultdict(list), []
            for file in _files_below(path, closed):
                suffix = file.suffix.lower()
                if not (suffix in SUFFIXES and _can_read(suffix)):
                    others[suffix].append(file)
                elif file.is_file():
                    pictures.append(file)
                else:
                    why = "a link that leads nowhere" if file.is_symlink() else "a pipe or a device, not a file"
                    closed.append(OSError(errno.EINVAL, why, str(file)))
            found.update(dict.fromkeys(sorted(pictures)))
            _warn_of(path, others, closed)
        elif path.exists():
            found[path] = None
        else:
            raise ImageError(f"no such file or folder: '{path}'")
    return list(found)


def _files_below(folder: Path, closed: list[OSError]) -> Iterator[Path]:
    """All files below a folder; what keeps a folder from being read is added to `closed`.

    Links wait until the folders that stand there in their own right are done. As each is entered once, a loop ends.
    """
    entered: set[str] = set()
    waiting = [str(folder)]
    for start in waiting:  # grows on the way
        for place, folders, files in os.walk(start, onerror=closed.append):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            waiting += (
                os.path.join(place, name) for name in sorted(folders) if os.path.islink(os.path.join(place, name))
            )
            yield from (Path(place, name) for name in files)


def _warn_of(folder: Path, others: dict[str, list[Path]], closed: list[OSError]) -> None:
    kinds = []
    for suffix, files in sorted(others.items()):
        first = f"'{min(files).relative_to(folder)}'" + (", …" if len(files) > 1 else "")
        hint = "; the package pillow-heif reads it" if suffix in HEIC else ""
        kinds.append(f"{len(files)} {suffix or 'without suffix'} ({first}{hint})")
    kinds += [f"'{error.filename}' ({error.strerror})" for error in closed]
    if kinds:
        warnings.warn(
            f"left out of '{folder}', as no readable pictures: {', '.join(kinds)}", LeftOutWarning, stacklevel=3
        )
