"""Pictures as tensors, and worse ones (chapters 2 and 11)."""

from . import distortions
from .distortions import DISTORTIONS, distort
from .files import PHOTOGRAPHS, ImageError, grid_crops, list_images, photograph, read_image, symmetries

__all__ = [
    "DISTORTIONS",
    "PHOTOGRAPHS",
    "ImageError",
    "distort",
    "distortions",
    "grid_crops",
    "list_images",
    "photograph",
    "read_image",
    "symmetries",
]
