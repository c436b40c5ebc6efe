"""The folder that runs through the book."""

import numpy as np
import torch
from PIL import Image

from tta_iqa_lib.imaging.albums import album


def test_each_photograph_comes_sharp_and_twice_made_worse():
    found = album(64, side=96)
    assert found.images.shape == (24, 3, 64, 64) and found.images.min() >= 0 and found.images.max() <= 1
    by_photograph = found.images.unflatten(0, (8, 3))
    changes = (by_photograph - by_photograph[:, :1]).abs().mean((2, 3, 4))
    assert (changes[:, 0] == 0).all() and (changes[:, 2] > changes[:, 1]).all() and (changes[:, 1] > 0).all()
    assert found.severities == (0.0, 0.35, 0.7) * 8 and len(set(found.photographs)) == 8
    assert all(name.startswith(shown) for name, shown in zip(found.names, found.photographs, strict=True))
    assert torch.equal(found.images, album(64, side=96).images)


def test_files_hold_the_pictures_to_a_grey_level(tmp_path):
    found = album(32)
    files = found.save(tmp_path / "new" / "album")
    assert [file.stem for file in files] == list(found.names) and len(set(files)) == 24
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2)
    assert (pixels / 255 - found.images).abs().max() <= 0.5 / 255 + 1e-6
