"""Contents: found in the pictures or told by the authors, and never on two sides of a split."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import pictures
from PIL import Image

from tta_iqa_lib.datasets import near_duplicates
from tta_iqa_lib.datasets.databases import from_csv
from tta_iqa_lib.datasets.near_duplicates import find_contents, load_images, split_contents


@pytest.fixture
def database(tmp_path):
    """Six pictures of three contents, dark and bright."""
    lines = ["path,score"]
    for i, image in enumerate(pictures(3, 40)):
        for level in (0.6, 1.0):
            name = f"{i}-{level}.png"
            Image.fromarray((level * 255 * image.permute(1, 2, 0)).byte().numpy()).save(tmp_path / name)
            lines.append(f"{name},{level}")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    return from_csv(tmp_path / "scores.csv")


def test_contents_come_from_the_authors_or_from_the_pictures(database, monkeypatch):
    """Pictures that have been read are not read again."""
    images = load_images(database, 36, progress=False)
    for found in (find_contents(database, progress=False), find_contents(database, images)):
        assert found[::2].tolist() == found[1::2].tolist() and len(set(found.tolist())) == 3
    monkeypatch.setattr(near_duplicates, "load_images", None)
    find_contents(database, images)
    told = replace(database.select([0, 1]), content=np.array(["a", "b"]))
    assert find_contents(told).tolist() == ["a", "b"]


CONTENT = np.random.default_rng(0).integers(0, 200, 1000)


def test_no_content_is_on_two_sides_and_no_image_is_lost():
    parts = split_contents(CONTENT, (0.8, 0.1, 0.1))
    assert sorted(np.concatenate(parts)) == list(range(1000))
    names = [set(CONTENT[rows]) for rows in parts]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert [len(part) for part in names] == pytest.approx([0.8 * 199, 0.1 * 199, 0.1 * 199], abs=2)


def test_the_seed_draws_the_contents():
    first, same, other = (split_contents(CONTENT, seed=seed)[2].tolist() for seed in (0, 0, 1))
    assert first == same != other


def test_a_very_large_content_is_trained_on_whatever_the_seed():
    content = np.concatenate([np.full(90, 500), np.arange(500)])
    assert all(500 in content[split_contents(content, seed=seed)[0]] for seed in range(20))
    equal = np.repeat(np.arange(20), 50)  # large ones, but no larger than the mean
    assert len({split_contents(equal, seed=seed)[2][0] for seed in range(20)}) > 3


def test_too_few_contents_are_an_error():
    with pytest.raises(ValueError, match="3 contents cannot be split into 3 parts"):
        split_contents(np.array([0, 0, 1, 2]))
