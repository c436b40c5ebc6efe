"""Pictures that need no download."""

import numpy as np
import pytest
import torch

from tta_iqa_lib.imaging.scenes import PHOTOGRAPHS, clouds, dead_leaves, photograph


def assert_is_rgb(image: torch.Tensor, height: int, width: int) -> None:
    assert image.shape == (3, height, width) and image.dtype == torch.float32 and image.is_contiguous()


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
