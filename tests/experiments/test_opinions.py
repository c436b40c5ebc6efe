"""BIQ2021 in memory, its splits and its source models, on a made-up folder of a dozen small pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tta_iqa_lib.datasets.databases import DatabaseError
from tta_iqa_lib.experiments import opinions
from tta_iqa_lib.experiments.opinions import HELD_OUT, SUBSETS, Opinions, centre, load, split, train_source, untrained
from tta_iqa_lib.models.quality import load_source_model
from tta_iqa_lib.models.training import score_all
from tta_iqa_lib.store import code

pytestmark = pytest.mark.usefixtures("small_squares")


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
    assert len(list((tmp_path / "cache" / "opinions").glob("*/images.npz"))) == 1
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
    with pytest.raises(DatabaseError, match=r"1 of 12 images .* are missing, first '.*ss02 \(1\).jpg'"):
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
    assert len(list(kept.glob("*/*.checkpoint"))) == 1 and not list(kept.glob("*/model.npz"))
    train_source(data, "ss02", epochs=2, progress=False)
    assert not list(kept.glob("*/*.checkpoint")) and len(list(kept.glob("*/model.npz"))) == 1


def test_a_trained_model_is_found_again_only_under_what_trained_it(folder, monkeypatch):
    """The code of the training, its settings, its data, where it starts: each alone."""
    data, calls = load(folder, progress=False), []
    monkeypatch.setattr(opinions, "fit", lambda model, *args, **options: calls.append(1) or model)

    def trains(data=data, subset="ss01", **options) -> bool:
        before = len(calls)
        train_source(data, subset, epochs=1, progress=False, **options)
        return len(calls) > before

    assert trains() and not trains() and not trains(replace(data))
    for name, value in (("LR", 1e-4), ("BATCH", 5), ("CROP", 24), ("SIZE", 41), ("HELD_OUT", 0.3)):
        with monkeypatch.context() as patch:
            patch.setattr(opinions, name, value)
            assert trains() and not trains()
    for module in ("experiments/opinions.py", "models/training.py", "models/quality.py"):
        text, read = (code.LIBRARY / module).read_text(encoding="utf-8"), code._read
        with monkeypatch.context() as patch:
            patch.setattr(code, "_read", lambda t, package, f=text, r=read: r(t + "\ny = 0\n" * (t == f), package))
            assert trains()
    assert trains(replace(data, scores=data.scores + 1)) and trains(replace(data, images=data.images.flip(3)))
    assert trains(seed=1) and trains(subset="ss02")
    with monkeypatch.context() as patch:
        patch.setattr(opinions, "load_source_model", lambda number: tiny_like(number))
        assert trains()
    assert not trains()


def tiny_like(number: int):
    """Another source model to start from."""
    model = load_source_model(number)
    with torch.no_grad():
        model.features[0].weight.mul_(1.01)
    return model


def test_what_a_model_remembers_is_of_its_training_rows(folder, monkeypatch):
    """Of their middle squares, as they are: without crops and mirrors."""
    monkeypatch.setattr(opinions, "fit", lambda model, *args, **options: model)
    data = load(folder, progress=False)
    model = train_source(data, "ss01", epochs=1, progress=False)
    train, _, _ = split(data, "ss01")
    scores, features = score_all(model, centre(data.images[train], 192), with_features=True)
    assert torch.allclose(model.feature_mean, features.mean(0), atol=1e-5)
    assert model.score_mean.item() == pytest.approx(scores.mean().item(), abs=1e-5)
