"""What do a database's pictures show? Near-duplicates must not stand on two sides of a split (chapter 11)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from ..imaging.files import read_image
from .databases import Database


def load_images(database: Database, size: int, progress: bool = True) -> Tensor:
    """All images with their shorter side reduced to `size` and the centre square cut out: uint8 (N, 3, size, size)."""
    out = torch.empty(len(database), 3, size, size, dtype=torch.uint8)
    for i, path in enumerate(tqdm(database.paths, desc="reading", disable=not progress)):
        image = read_image(path)[None]
        ratio = size / min(image.shape[2:])
        shape = [max(size, round(ratio * length)) for length in image.shape[2:]]
        image = interpolate(image, shape, mode="bilinear", antialias=True)[0].clamp(0, 1)
        y, x = ((length - size) // 2 for length in image.shape[1:])
        out[i] = (image[:, y : y + size, x : x + size] * 255).round().to(torch.uint8)
    return out


def content_groups(images: Tensor, similar: float = 0.9) -> np.ndarray:
    """Which images show the same thing? Group labels (N,): linked where the 16×16 grey thumbnails correlate.

    Databases hold near-duplicates: series of one scene. A split at random puts the same scene on both sides.

    Args:
        images: (N, 3, H, W), uint8 or float.
        similar: correlation of two thumbnails from which they count as one content. A flat image is its own content.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    thumbs = torch.cat(
        [
            interpolate(part.float().mean(1, keepdim=True), (16, 16), mode="area").flatten(1)
            for part in images.split(256)
        ]
    )
    thumbs = thumbs - thumbs.mean(1, keepdim=True)
    norm = thumbs.norm(dim=1, keepdim=True)
    thumbs = torch.where(norm > 1e-3 * thumbs.shape[1] ** 0.5, thumbs / norm.clamp_min(1e-12), 0)
    rows, columns = np.nonzero((thumbs @ thumbs.T > similar).numpy())
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(images),) * 2)
    return connected_components(links, directed=False)[1]
