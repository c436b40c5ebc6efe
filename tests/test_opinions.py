"""BIQ2021 in memory, its splits and its source models, on a made-up folder of a dozen small pictures."""

import numpy as np
import pytest
import torch
from helpers import pictures
from PIL import Image

from tta_iqa_lib import opinions
from tta_iqa_lib.adapt import Adapter
from tta_iqa_lib.databases import DatabaseError
from tta_iqa_lib.metrics import evenly
from tta_iqa_lib.models import load_source_model
from tta_iqa_lib.opinions import (
    HELD_OUT,
    SUBSETS,
    Opinions,
    centre,
    load,
    shift,
    shuffled,
    split,
    train_source,
    untrained,
)
from tta_iqa_lib.training import score_all


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Small pictures, and a cache of the test's own."""
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opinions, "SIZE", 40)
    monkeypatch.setattr(opinions, "CROP", 32)
    monkeypatch.setattr(opinions, "BATCH", 4)


def save(path, image: torch.Tensor) -> None:
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(path, quality=95)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures, four a subset; the second of ss02 shows what the first of ss01 shows."""
    images = pictures(12, 60, seed=2)
    images[5] = 0.8 * images[0]
    place = tmp_path / "biq2021"
    (place / "Images").mkdir(parents=True)
    rows: dict[str, list[str]] = {"Train": [], "Test": []}
    for i, image in enumerate(images):
        name = f"{SUBSETS[i // 4]} ({i % 4 + 1}).jpg"
        save(place / "Images" / name, image[:, : 44 + i])
        rows["Test" if i % 4 == 3 else "Train"].append(f"{name},{i / 16}")
    for table, lines in rows.items():
        (place / f"{table} (Images and MOS).csv").write_text("\n".join(["Image Name,MOS", *lines, ""]))
    return place


def test_the_database_is_read_into_small_squares_with_opinions_and_contents(folder):
    data = load(folder, progress=False)
    assert data.images.shape == (12, 3, 40, 40) and data.images.dtype == torch.uint8
    assert data.scores.dtype == torch.float32
    by_subset = {name: sorted((16 * data.scores[data.subset == name]).tolist()) for name in SUBSETS}
    assert by_subset == {"ss01": [0, 1, 2, 3], "ss02": [4, 5, 6, 7], "ss03": [8, 9, 10, 11]}
    place = {round(16 * score): i for i, score in enumerate(data.scores.tolist())}
    assert data.content[place[0]] == data.content[place[5]] and len(set(data.content.tolist())) == 11


def test_the_second_reading_comes_from_the_cache(folder, tmp_path, monkeypatch):
    """And the database's folder is only read."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    first = load(folder, progress=False)

    def fails(*_args):
        raise AssertionError("read again")

    monkeypatch.setattr(opinions, "load_images", fails)
    again = load(folder, progress=False)
    assert torch.equal(first.images, again.images) and first.content.tolist() == again.content.tolist()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert len(list((tmp_path / "cache" / "opinions").iterdir())) == 1
    monkeypatch.setattr(opinions, "SIZE", 24)
    with pytest.raises(AssertionError, match="read again"):
        load(folder, progress=False)


def test_an_interrupted_reading_leaves_nothing_that_passes_for_the_whole(folder, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opinions, "load_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(folder, progress=False)
    assert load(folder, progress=False).images.shape == (12, 3, 40, 40)


def test_an_incomplete_database_is_an_error(folder):
    (folder / "Images" / "ss02 (1).jpg").unlink()
    with pytest.raises(DatabaseError, match=r"1 of 9 images .* are missing, first '.*ss02 \(1\).jpg'"):
        load(folder, progress=False)


# Splits


def many(count: int = 600, seed: int = 0) -> Opinions:
    """Labels alone: contents of one to five images, some of which run through all three subsets."""
    generator = np.random.default_rng(seed)
    subset = generator.permutation(np.repeat(SUBSETS, count // 3))
    return Opinions(torch.zeros(count, 1), torch.zeros(count), subset, generator.integers(0, count // 2, count))


@pytest.mark.parametrize("test_subset", SUBSETS)
def test_no_content_is_on_two_sides(test_subset):
    data = many()
    sides = [set(data.content[rows].tolist()) for rows in split(data, test_subset)]
    assert all(sides) and not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


@pytest.mark.parametrize("test_subset", SUBSETS)
def test_the_subset_left_out_is_tested_whole_and_only_shared_contents_are_lost(test_subset):
    data = many()
    train, held, test = split(data, test_subset)
    assert test.tolist() == np.flatnonzero(data.subset == test_subset).tolist()
    used = np.concatenate([train, held, test])
    assert len(set(used.tolist())) == len(used)
    lost = np.setdiff1d(np.arange(len(data.content)), used)
    assert len(lost) and np.isin(data.content[lost], data.content[test]).all()
    assert not (data.subset[np.concatenate([train, held])] == test_subset).any()


@pytest.mark.parametrize("count", [30, 600, 3000])
def test_a_tenth_of_the_contents_is_held_out(count):
    data = many(count)
    train, held, _ = split(data, "ss02")
    kept, left = (len(set(data.content[rows].tolist())) for rows in (train, held))
    assert left == round(HELD_OUT * (kept + left))


def test_the_split_follows_from_its_seed():
    data = many()
    first, again, other = (split(data, "ss03", seed) for seed in (0, 0, 1))
    assert all(a.tolist() == b.tolist() for a, b in zip(first, again, strict=True))
    assert first[1].tolist() != other[1].tolist() and first[2].tolist() == other[2].tolist()


def test_the_centre_is_the_middle_square():
    images = torch.arange(2 * 3 * 7 * 10).view(2, 3, 7, 10)
    assert torch.equal(centre(images, 5), images[..., 1:6, 2:7])
    assert torch.equal(centre(images, 7), images[..., :, 1:8])


# Models


def test_the_small_network_starts_from_a_source_models_features_and_a_new_regressor():
    model, source = untrained("small", 4), load_source_model(1)
    for name, value in source.features.state_dict().items():
        assert torch.equal(model.features.state_dict()[name], value)
    assert not torch.equal(model.regressor.weight, source.regressor.weight)
    assert model.crop == 32 and "opinions" in model.predicts and model.feature_mean is None
    assert all(p.requires_grad for p in model.parameters())


def test_the_seed_alone_decides_the_start():
    first, again, other = (untrained("small", seed).regressor.weight for seed in (0, 0, 3))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_source_model_is_trained_once_on_the_training_rows_alone(folder, monkeypatch):
    """Squares of 32 pixels cut at random; then it comes from the cache, to the last bit."""
    data, calls, true = load(folder, progress=False), [], opinions.fit

    def spy(model, images, scores, *args, augment, **options):
        calls.append((images, scores, augment(images[:2], torch.Generator().manual_seed(0)).shape))
        return true(model, images, scores, *args, augment=augment, **options)

    monkeypatch.setattr(opinions, "fit", spy)
    first = train_source(data, "ss03", epochs=1, progress=False)
    ((images, scores, cut),) = calls
    train, held, test = split(data, "ss03")
    assert torch.equal(images, data.images[train]) and torch.equal(scores, data.scores[train])
    assert cut == (2, 3, 32, 32) and len(train) + len(held) == 8 and len(test) == 4
    again = train_source(data, "ss03", epochs=1, progress=False)
    assert len(calls) == 1
    for model in (first, again):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
    state = again.state_dict()
    assert state.keys() == first.state_dict().keys() and {"feature_mean", "feature_cov", "score_std"} <= state.keys()
    assert all(torch.equal(state[name], value) for name, value in first.state_dict().items())
    assert not torch.equal(first.regressor.weight, untrained("small", 0).regressor.weight)
    train_source(data, "ss01", epochs=1, progress=False)
    train_source(data, "ss03", seed=1, epochs=1, progress=False)
    assert len(calls) == 3


def test_an_interrupted_training_keeps_its_epochs_until_the_model_is_safe(folder, tmp_path, monkeypatch):
    data, true = load(folder, progress=False), opinions.fit

    def interrupted(*args, **options):
        true(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opinions, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_source(data, "ss02", epochs=2, progress=False)
    kept = tmp_path / "cache" / "opinions"
    assert len(list(kept.glob("*.checkpoint"))) == 1 and not list(kept.glob("*.pt"))
    train_source(data, "ss02", epochs=2, progress=False)
    assert not list(kept.glob("*.checkpoint")) and len(list(kept.glob("*.pt"))) == 1


def test_what_a_model_remembers_is_of_its_training_rows(folder, monkeypatch):
    """Of their middle squares, as they are: without crops and mirrors."""
    monkeypatch.setattr(opinions, "fit", lambda model, *args, **options: model)
    data = load(folder, progress=False)
    model = train_source(data, "ss01", epochs=1, progress=False)
    train, _, _ = split(data, "ss01")
    scores, features = score_all(model, centre(data.images[train], 192), with_features=True)
    assert torch.allclose(model.feature_mean, features.mean(0), atol=1e-5)
    assert model.score_mean.item() == pytest.approx(scores.mean().item(), abs=1e-5)


def test_the_shift_is_the_distance_over_that_by_chance_averaged_over_the_batches():
    model, images = untrained("small", 0).eval(), pictures(12, 32)
    halves = [
        Adapter(model, losses=(), gate=lambda result: "source").run(half).shift.values() for half in images.split(6)
    ]
    expected = np.mean([[[d / n for d, n in layer] for layer in half] for half in halves], 0)
    assert np.allclose(shift(model, images, 6), expected, atol=0.006)
    assert shift(model, images * 0.3, 6)[0][0] > 2 * expected[0][0]


def test_all_directions_and_seeds_are_run_once_and_kept(folder, monkeypatch):
    """Two seeds are two source models; a second call reads what the first one stored."""
    monkeypatch.setattr(opinions, "fit", lambda model, *args, **options: model)
    monkeypatch.setattr(opinions, "HELD_OUT", 0.4)
    monkeypatch.setattr(opinions, "PLAN", (("as it is", ("source", "bn-batch"), 4), ("dark", ("source",), 4)))
    results = opinions.evaluate(folder, 4, seeds=(0, 1), progress=False)
    runs = {(r["method"], r["target"], r["seed"]): r for r in results["runs"]}
    assert len(runs) == len(results["runs"]) == 3 * 2 * 3  # subsets, seeds, (condition, method) pairs
    bright, dark, other = (
        runs["source", f"ss02/{c}", s]["scores"] for c, s in (("as it is", 0), ("dark", 0), ("as it is", 1))
    )
    assert bright != dark and bright != other
    data = load(folder, progress=False)
    _, held, test = split(data, "ss02")
    model = train_source(data, "ss02", 1, progress=False)
    assert other == pytest.approx(model(opinions.as_float(centre(data.images[test]))).tolist(), abs=1e-4)
    known = results["about"]["ss02"]
    assert known["held_out_images"] == len(held) and known["held_out_srcc"].keys() == {0, 1}
    order = shuffled(np.arange(4), 1)
    pixels = {"held out": data.images[shuffled(held[evenly(len(held), 4)], 1)], "as it is": data.images[test][order]}
    assert known["shift"].keys() == {*pixels, "dark"} and known["shift"]["dark"].keys() == {0, 1}
    for name, images in pixels.items():
        found = np.array(known["shift"][name][1])
        assert found.shape == (12, 2) and np.allclose(
            found, shift(model, opinions.as_float(centre(images))), atol=0.011
        )
    assert results["truth"]["ss02/dark"]["quality"] == data.scores[test].tolist()
    monkeypatch.setattr(
        opinions.METHODS["source"].adapter(model, 0).__class__, "predict", None
    )  # nothing is computed again
    monkeypatch.setattr(opinions, "shift", None)
    assert opinions.evaluate(folder, 4, seeds=(0, 1), progress=False) == results


def test_an_unknown_architecture_is_an_error_before_the_work_begins(folder):
    with pytest.raises(ValueError, match="no backbone 'resnet7'"):
        opinions.evaluate(folder, 4, architecture="resnet7", progress=False)
