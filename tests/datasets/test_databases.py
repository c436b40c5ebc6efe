"""Databases: what a folder in its official layout becomes, and what is said when it is not in it."""

import numpy as np
import pytest
import torch
from helpers import pictures
from PIL import Image

from tta_iqa_lib.datasets.databases import DatabaseError, from_table, read
from tta_iqa_lib.datasets.near_duplicates import content_groups, load_images
from tta_iqa_lib.datasets.official import layout
from tta_iqa_lib.imaging.files import ImageError

TRAIN = [("ss01 (1).jpg", 0.25), ("ss03 (2).jpg", 0.75), ("ss02 (1).jpg", 0.5)]
TEST = [("ss01 (2).jpg", 0.125), ("ss03 (1).jpg", 1.0)]


def picture(path, colour=(90, 120, 30), size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def table(path, rows, header="Image Name,MOS", encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows), ""]
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


@pytest.fixture
def folder(tmp_path):
    """BIQ2021 as its authors publish it, with five images."""
    for name, _ in (*TRAIN, *TEST):
        picture(tmp_path / "Images" / name)
    table(tmp_path / "Train (Images and MOS).csv", TRAIN)
    table(tmp_path / "Test (Images and MOS).csv", TEST)
    return tmp_path


# BIQ2021


def test_biq2021_is_read_with_opinions_subsets_and_the_authors_split(folder):
    found = layout("biq2021").read(folder)
    told = {
        path.name: (score, subset, split)
        for path, score, subset, split in zip(found.paths, found.scores, found.subset, found.split, strict=True)
    }
    rows = [(name, score, "train") for name, score in TRAIN] + [(name, score, "test") for name, score in TEST]
    assert told == {name: (score, name[:4], split) for name, score, split in rows}
    assert len(found) == 5 and found.name == "BIQ2021"
    assert all(path.parent == folder / "Images" for path in found.paths)


def test_reading_changes_nothing_in_the_folder(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    load_images(layout("biq2021").read(str(folder)), 8, progress=False)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_spreadsheets_marks_and_empty_last_lines_do_no_harm(folder, encoding):
    """Excel writes a byte-order mark, spaces, and lines of commas."""
    rows = [(f" {name} ", score) for name, score in TRAIN] + [("", "")]
    table(folder / "Train (Images and MOS).csv", rows, encoding=encoding)
    assert len(layout("biq2021").read(folder)) == 5


def test_a_folder_without_tables_is_not_biq2021(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatabaseError, match=r"is not BIQ2021: it holds no '\*\(Images and MOS\).csv'") as caught:
            layout("biq2021").read(folder)
        assert str(folder) in str(caught.value) and isinstance(caught.value, ValueError)


def test_missing_images_are_counted_and_the_first_is_named(folder):
    for name in ("ss03 (2).jpg", "ss02 (1).jpg"):
        (folder / "Images" / name).unlink()
    with pytest.raises(DatabaseError, match=r"2 of 5 images of .* first '.*ss03 \(2\).jpg' \(line 3 of 'Train .*\)"):
        layout("biq2021").read(folder)


def test_a_missing_column_is_an_error_that_names_the_table_and_what_it_has(folder):
    table(folder / "Test (Images and MOS).csv", TEST, header="Image Name,Opinion")
    with pytest.raises(DatabaseError, match=r"'.*Test.*' has no column 'MOS'; it has Image Name, Opinion"):
        layout("biq2021").read(folder)


@pytest.mark.parametrize("bad", ["n/a", "", "nan", "inf", "0,5"])
def test_what_is_no_number_is_an_error_that_names_table_and_line(folder, bad):
    table(folder / "Train (Images and MOS).csv", [TRAIN[0], (TRAIN[1][0], f'"{bad}"'), TRAIN[2]])
    with pytest.raises(DatabaseError, match=r"'.*Train.*', line 3: .* is not a score"):
        layout("biq2021").read(folder)


def test_a_row_without_its_score_is_an_error(folder):
    table(folder / "Train (Images and MOS).csv", [TRAIN[0], TRAIN[1][:1]])
    with pytest.raises(DatabaseError, match="line 3: '' is not a score"):
        layout("biq2021").read(folder)


def test_tables_without_rows_or_header_are_errors_that_name_them(folder):
    file = table(folder / "Train (Images and MOS).csv", [])
    with pytest.raises(DatabaseError, match=r"'.*Train.*' names no images"):
        layout("biq2021").read(folder)
    file.write_text("")
    with pytest.raises(DatabaseError, match=r"'.*Train.*' has no column 'Image Name'"):
        layout("biq2021").read(folder)


# Any table


def test_any_table_will_do_and_difference_scores_are_negated(tmp_path):
    """Higher is better in the end, whatever the authors' direction."""
    for name in ("a.png", "deep/b.png"):
        picture(tmp_path / "photos" / name)
    file = table(tmp_path / "opinions.csv", [(10, "deep/b.png"), (32.5, "a.png")], header="dmos,file")
    found = from_table(file, "file", "dmos", tmp_path / "photos", higher_is_better=False)
    assert found.scores.tolist() == [-10, -32.5] and found.name == "opinions"
    assert found.paths == (tmp_path / "photos/deep/b.png", tmp_path / "photos/a.png")
    assert found.subset.tolist() == found.split.tolist() == ["", ""]
    assert from_table(str(file), "file", "dmos", tmp_path / "photos").scores.tolist() == [10, 32.5]


def test_paths_are_relative_to_the_table_by_default_or_absolute(tmp_path):
    here, there = picture(tmp_path / "set" / "a.png"), picture(tmp_path / "elsewhere" / "b.png")
    file = table(tmp_path / "set" / "t.csv", [("a.png", 1), (there, 2)], header="path,score")
    assert from_table(file).paths == (here, there)


def test_a_table_is_read_as_a_folder_is(tmp_path):
    picture(tmp_path / "photos" / "a.png")
    file = table(tmp_path / "t.CSV", [("a.png", 3)], header="file,dmos")
    options = {"path_column": "file", "score_column": "dmos", "folder": tmp_path / "photos", "higher_is_better": False}
    assert read(file, **options).scores.tolist() == [-3]


def test_a_table_that_does_not_exist_is_an_error_that_names_it(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DatabaseError, match="no such file") as caught:
            from_table(path)
        assert str(path) in str(caught.value)


def test_select_takes_an_index_a_mask_or_a_slice(folder):
    whole = layout("biq2021").read(folder)
    mask = whole.subset == "ss01"
    expected = [i for i, chosen in enumerate(mask) if chosen]
    assert len(expected) == 2
    for rows in (mask, np.array(expected), expected):
        part = whole.select(rows)
        assert len(part) == 2 and part.name == whole.name
        assert part.paths == tuple(whole.paths[i] for i in expected)
        for field in ("scores", "subset", "split"):
            assert getattr(part, field).tolist() == getattr(whole, field)[expected].tolist()
    turned = whole.select([4, 0])
    assert turned.paths == (whole.paths[4], whole.paths[0]) and turned.scores.tolist() == whole.scores[[4, 0]].tolist()
    assert whole.select(slice(1, 3)).paths == whole.paths[1:3]
    assert len(whole) == 5


# Pixels


def single(path):
    return from_table(table(path.with_suffix(".csv"), [(path.name, 1)], header="path,score"))


@pytest.mark.parametrize("upright", [False, True])
def test_images_are_reduced_but_never_squashed(tmp_path, upright):
    """Three squares side by side, red, green and blue: of the right proportions, the middle is all green."""
    pixels = np.zeros((60, 180, 3), np.uint8)
    for channel in range(3):
        pixels[:, 60 * channel : 60 * channel + 60, channel] = 200
    Image.fromarray(pixels.transpose(1, 0, 2) if upright else pixels).save(tmp_path / "a.png")
    images = load_images(single(tmp_path / "a.png"), 20, progress=False)
    assert images.shape == (1, 3, 20, 20) and images.dtype == torch.uint8
    inside = images[0, :, 2:-2, 2:-2]
    assert (inside[1] == 200).all() and not inside[[0, 2]].any()


def test_the_shorter_side_is_reduced_and_the_middle_kept(tmp_path):
    """40 × 50 pixels that count rows and columns, halved: 20 of 25 columns are left, two lost at the left."""
    rows, columns = np.mgrid[:40, :50]
    Image.fromarray(np.stack([4 * rows, 4 * columns, 0 * rows], 2).astype(np.uint8)).save(tmp_path / "a.png")
    (image,) = load_images(single(tmp_path / "a.png"), 20, progress=False).float()
    at = torch.arange(2.0, 18)  # away from the edges, where the filter is cut off
    assert (image[0, 2:-2] - (8 * at + 2).view(-1, 1)).abs().max() <= 1
    assert (image[1, :, 2:-2] - (8 * (at + 2) + 2)).abs().max() <= 1


@pytest.mark.parametrize("size", [(7, 5), (20, 20), (33, 21), (21, 33), (99, 20)])
@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
def test_every_size_gives_whole_grey_levels_of_the_size_asked_for(tmp_path, size, level):
    picture(tmp_path / "a.png", (level, 255 - level, 7), size)
    images = load_images(single(tmp_path / "a.png"), 20, progress=False)
    assert torch.equal(images, torch.tensor([level, 255 - level, 7]).byte().view(1, 3, 1, 1).expand(1, 3, 20, 20))


def test_images_come_in_the_order_of_the_database(tmp_path):
    for i in range(4):
        picture(tmp_path / f"{i}.png", (10 * i, 0, 0))
    whole = from_table(table(tmp_path / "t.csv", [(f"{i}.png", i) for i in (2, 0, 3, 1)], header="path,score"))
    assert load_images(whole, 6, progress=False)[:, 0, 0, 0].tolist() == [20, 0, 30, 10]


def test_an_unreadable_image_is_named(folder):
    (folder / "Images" / "ss02 (1).jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"ss02 \(1\).jpg"):
        load_images(layout("biq2021").read(folder), 8, progress=False)


# Contents


def groups_of(images, **options) -> list[set[int]]:
    labels = content_groups(images, **options)
    assert labels.shape == (len(images),)
    return sorted(({*np.flatnonzero(labels == label).tolist()} for label in np.unique(labels)), key=min)


def levels(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().byte()


@pytest.mark.parametrize("kind", [levels, lambda x: x], ids=["uint8", "float"])
def test_near_duplicates_are_one_content_and_different_pictures_are_not(kind):
    """Darker, paler, grainier or slightly moved: still the same. Neighbours in the list or not."""
    a, b, c = pictures(3, 64)
    grain = 0.02 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = torch.stack([a, b, 0.5 * a, 0.3 + 0.4 * b, c, (a + grain).clamp(0, 1), b.roll(1, 2)])
    assert groups_of(kind(images)) == [{0, 2, 5}, {1, 3, 6}, {4}]


def test_a_chain_of_similar_images_is_one_content():
    """The ends of a series resemble each other less than its neighbours do."""
    a, b = pictures(2, 64, seed=4)
    chain = torch.stack([(1 - t) * a + t * b for t in torch.linspace(0, 1, 9)])
    assert groups_of(chain[[0, 8]]) == [{0}, {1}]
    assert groups_of(chain) == [set(range(9))]
    assert groups_of(chain[[0, 1, 7, 8]]) == [{0, 1}, {2, 3}]


@pytest.mark.parametrize("kind", [levels, lambda x: x], ids=["uint8", "float"])
def test_flat_images_are_contents_of_their_own(kind):
    """A correlation of nothing with nothing; also two that are equal, and next to a picture."""
    flat = torch.tensor([0.0, 0.5, 0.5, 1.0]).view(-1, 1, 1, 1).expand(4, 3, 32, 32)
    assert groups_of(kind(torch.cat([flat, pictures(1)]))) == [{i} for i in range(5)]


def test_a_pattern_too_faint_to_be_seen_links_nothing():
    """A thousandth of the range, as rounding leaves it in a flat image."""
    pattern = pictures(1, 32).repeat(2, 1, 1, 1) - 0.5
    assert groups_of(0.5 + 1e-3 * pattern) == [{0}, {1}]
    assert groups_of(0.5 + 1e-1 * pattern) == [{0, 1}]


def test_a_negative_is_another_content():
    image = pictures(1)
    assert groups_of(torch.cat([image, 1 - image])) == [{0}, {1}]


def test_similar_is_the_correlation_of_the_thumbnails():
    """Two halves in common of independent patterns of equal contrast: correlation .5."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 16, 16, generator=generator)
    x, y = x - x.mean(), y - y.mean()
    y = y - (x * y).sum() / (x * x).sum() * x
    y = y / y.norm() * x.norm()
    pair = torch.stack([x, 0.5 * x + 0.75**0.5 * y])[:, None].expand(-1, 3, -1, -1) / 20 + 0.5
    assert groups_of(pair, similar=0.49) == [{0, 1}]
    assert groups_of(pair, similar=0.51) == [{0}, {1}]
    large = pair.repeat_interleave(5, 2).repeat_interleave(4, 3)  # thumbnails are means over areas
    assert groups_of(large, similar=0.49) == [{0, 1}] and groups_of(large, similar=0.51) == [{0}, {1}]


def test_contents_are_found_across_the_chunks_in_which_thumbnails_are_made():
    images = torch.cat([pictures(1, 16), torch.zeros(300, 3, 16, 16), pictures(1, 16)])
    labels = content_groups(images)
    assert labels[0] == labels[301] and len(np.unique(labels)) == 301
