"""Parts and views of a picture."""

import numpy as np
import pytest
import torch

from tta_iqa_lib.imaging.crops import grid_crops, pad_to, resize_to, symmetries


@pytest.mark.parametrize(("height", "width", "size"), [(5, 9, 7), (1, 3, 10), (4, 4, 23)])
def test_padding_mirrors_at_the_edges_as_often_as_needed(height, width, size):
    """NumPy's "symmetric" padding; the greater part goes to the far side."""
    image = torch.arange(3.0 * height * width).view(3, height, width)
    missing = [max(0, size - length) for length in (height, width)]
    widths = [(0, 0), *((m // 2, m - m // 2) for m in missing)]
    assert np.array_equal(pad_to(image, size), np.pad(image.numpy(), widths, mode="symmetric"))


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
    with pytest.raises(ValueError, match=f"count must be 1, 2 or 8; got {count}"):
        symmetries(torch.rand(1, 3, 4, 4), count)


@pytest.mark.parametrize(("size", "found"), [((60, 90), (20, 30)), ((90, 60), (30, 20)), ((10, 12), (20, 24))])
def test_resizing_keeps_the_ratio_of_the_sides_and_the_range(size, found):
    """A ramp stays a ramp: of the same ends, away from the edges."""
    ramp = torch.linspace(0, 1, size[1]).expand(3, *size)
    image = resize_to(ramp, 20)
    assert image.shape == (3, *found) and image.min() >= 0 and image.max() <= 1
    assert (image[:, 0, 2:-2] - torch.linspace(0, 1, found[1])[2:-2]).abs().max() < 0.05
