"""Batches: which images are adapted to together, and one result out of several."""

import pytest
import torch
from helpers import METHOD, pictures, tiny_model

from tta_iqa_lib.adaptation import Adapter, balanced_batches


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(33, 32, [16, 17]), (8, 8, [8]), (5, 8, [5]), (20, 8, [6, 7, 7])]
)
def test_batches_are_balanced(count, size, lengths):
    """33 images make 17 + 16, not 32 + 1."""
    for seed in (None, 0):
        batches = balanced_batches(count, size, seed)
        assert sorted(map(len, batches)) == lengths
        assert sorted(row for rows in batches for row in rows) == list(range(count))
    assert [row for rows in balanced_batches(count, size) for row in rows] == list(range(count))
    assert balanced_batches(count, size, 3) == balanced_batches(count, size, 3) != balanced_batches(count, size, 4)
    with pytest.raises(ValueError, match="batch_size"):
        balanced_batches(count, 0)


@pytest.mark.parametrize("fold", [1, 4])
def test_groups_equal_separate_runs(fold):
    """Images of one label are an episode, wherever they stand."""
    model, images = tiny_model(), pictures(12)
    labels = torch.tensor([7, 2, 7, 2, 2, 7, 5, 7, 2, 7, 2, 5])  # five, five and two: the fives can be folded
    result = Adapter(model, METHOD, episodes_per_pass=fold).run(images, groups=labels)
    for label in (7, 2, 5):
        alone = Adapter(model, METHOD).run(images[labels == label])
        for field in ("scores", "source_scores", "initial_scores"):
            found = getattr(result, field)[labels == label]
            assert torch.allclose(found, getattr(alone, field), rtol=0, atol=0 if fold == 1 else 1e-5)
    assert [entry["group"] for entry in result.trace] == [7, 2, 5]
    assert list(result.skipped) == ["5: GroupContrastive"]
    assert result.pictures == 12 and result.shift == {}  # of a method without a gate
    with pytest.raises(ValueError, match="2 group labels for 12 images"):
        Adapter(model, METHOD).run(images, groups=[0, 1])


def test_each_group_tells_of_its_own_shift():
    """The gate of the default recipe measures group by group."""
    model, images, labels = tiny_model(), pictures(8), ["a", "b"] * 4
    result = Adapter(model).run(images, groups=labels)
    alone = Adapter(model).run(images[1::2]).shift
    assert alone and {name: value for name, value in result.shift.items() if name.startswith("b: ")} == {
        f"b: {name}": value for name, value in alone.items()
    }
    assert len(result.shift) == 2 * len(alone)
