"""Small pictures on disk."""

import pytest
from helpers import pictures
from PIL import Image


@pytest.fixture
def twelve(tmp_path):
    """Twelve pictures of 40 × 48 pixels, in the dark, with a file among them that is none."""
    place = tmp_path / "twelve"
    place.mkdir()
    for i, image in enumerate(pictures(12, 48)):
        pixels = (0.3 * image[:, :40] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / f"{i:02d}.png")
    (place / "05b.png").write_bytes(b"no image")
    return place
