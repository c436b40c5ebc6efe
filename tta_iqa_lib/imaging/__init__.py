"""Pictures as tensors, and worse ones."""

from . import distortions
from .albums import Album, album
from .crops import grid_crops, symmetries
from .distortions import DISTORTIONS, distort
from .files import ImageError, LeftOutWarning, list_images, read_crops, read_image
from .scenes import PHOTOGRAPHS, photograph

__all__ = [
    "DISTORTIONS",
    "PHOTOGRAPHS",
    "Album",
    "ImageError",
    "LeftOutWarning",
    "album",
    "distort",
    "distortions",
    "grid_crops",
    "list_images",
    "photograph",
    "read_crops",
    "read_image",
    "symmetries",
]
