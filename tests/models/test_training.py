"""Training: a short one learns, is repeatable, and the shipped models are what their files say."""

import pytest
import torch
from helpers import pictures, seeded, tiny_model

from tta_iqa_lib.datasets import tinyshift as benchmark
from tta_iqa_lib.datasets.tinyshift import build, tinyshift
from tta_iqa_lib.imaging.crops import symmetries
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models.quality import MOMENTS
from tta_iqa_lib.models.saving import load_source_model, read_about
from tta_iqa_lib.models.small import small_model
from tta_iqa_lib.models.training import as_float, crop_and_mirror, fit, score_all, train_source, turn_and_mirror
from tta_iqa_lib.store import data_folder


@pytest.fixture(scope="module")
def few():
    """160 source crops of a few contents, and 60 others."""
    names = ["astronaut", "coffee", "scene-1000", "scene-1001", "scene-1002"]
    pixels, quality, _ = build("source/train", 160, names=names)
    test_pixels, test_quality, _ = build("source/test", 60, names=names)
    return pixels.float() / 255, quality, test_pixels.float() / 255, test_quality


def train(few, seed=0, epochs=12, start=None):
    torch.manual_seed(seed)
    model = small_model((8, 16, 24))
    if start is not None:
        model.load_state_dict(start)
        torch.seed()
    return fit(model, few[0], few[1], epochs, lr=5e-3, batch_size=16, seed=seed, progress=False)


def test_a_short_training_learns_to_rank_unseen_crops(few):
    """An untrained model ranks at random; some seconds of training must not. It comes back in evaluation mode."""
    model = train(few, epochs=30)  # .72 and more, whatever the processor; the limit is far below
    assert not any(module.training for module in model.modules())
    assert srcc(score_all(model, few[2]), few[3]) > 0.5


def test_the_same_seed_gives_the_same_weights(few, monkeypatch):
    """Whatever was drawn before: it alone decides the first weights, and, from the same ones, order and augmentation."""
    monkeypatch.setattr(benchmark, "tinyshift", lambda split: (*few[:2], None))
    start = small_model((8, 16, 24)).state_dict()
    makers = (
        lambda seed: train([part[:64] for part in few], seed, 1, start),
        lambda seed: train_source(seed, 1, 64, (8, 16, 24), progress=False)[0],
    )
    for make in makers:
        weights = []
        for seed in (0, 0, 1):
            torch.seed()
            weights.append(make(seed).state_dict()["regressor.weight"])
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_source_s_moments_are_those_of_its_features(few):
    """A training leaves those of the finished model in evaluation mode behind."""
    model = train(few, epochs=1).eval()
    with torch.no_grad():
        scores, features = model(few[0], with_features=True)
    assert torch.allclose(model.feature_mean, features.mean(0), atol=1e-5)
    assert torch.allclose(model.feature_cov, torch.cov(features.T), atol=1e-5)
    assert torch.allclose(model.score_mean, scores.mean(), atol=1e-5)
    assert torch.allclose(model.score_std, scores.std(), atol=1e-5)


def test_scoring_restores_the_mode_and_does_not_depend_on_the_batch_size(few):
    """The mode of every part: a frozen layer stays frozen. Nor does it matter whether pixels come as bytes."""
    torch.manual_seed(0)
    model = small_model((8, 16, 24)).train()
    model.features[3].eval()
    modes = [module.training for module in model.modules()]
    running = model.features[1].running_mean.clone()
    scores = score_all(model, few[2], 7)
    assert torch.allclose(scores, score_all(model, few[2], 60), atol=1e-5)
    assert torch.allclose(scores, score_all(model, (few[2] * 255).round().byte()), atol=1e-5)
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(running, model.features[1].running_mean)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_shipped_model_scores_what_its_file_records(seed):
    """Each ranks source/test with SRCC ≥ .90, as recorded, and was trained on today's benchmark."""
    file = data_folder() / "models" / f"source-{seed}.safetensors"
    about = read_about(file)
    images, quality, _ = tinyshift("source/test")
    measured = srcc(score_all(load_source_model(seed), images), quality)
    assert measured >= 0.90
    assert measured == pytest.approx(about["srcc_source_test"], abs=0.003)
    assert about["benchmark"] == benchmark.version() and about["seed"] == seed
    assert file.stat().st_size <= 4_000_000


def test_the_shipped_model_carries_the_moments_of_its_source():
    """Other crops of the source's images have about the same ones: within a quarter of the deviation."""
    model = load_source_model()
    width = model.regressor.in_features
    assert [tuple(getattr(model, name).shape) for name in MOMENTS] == [(width,), (width, width), (), ()]
    scores, features = score_all(model, tinyshift("source/test")[0], with_features=True)
    deviation = model.feature_cov.diagonal().sqrt()
    assert ((features.mean(0) - model.feature_mean).abs() < 0.25 * deviation).all()
    assert ((features.std(0) / deviation).log().abs() < 0.25).all()
    assert (scores.mean() - model.score_mean).abs() < 0.25 * model.score_std
    assert (scores.std() / model.score_std).log().abs() < 0.25
    assert model.crop == benchmark.CROP and "not human" in model.predicts


# Bytes and augmentation


def test_bytes_become_floats_in_zero_to_one_and_floats_stay_as_they_are():
    levels = torch.arange(256).byte()
    found = as_float(levels)
    assert found.dtype == torch.float32 and torch.equal(found, torch.arange(256).float() / 255)
    for dtype in (torch.float32, torch.float64, torch.float16):
        values = torch.tensor([0.0, 0.3, 200.0], dtype=dtype)
        assert as_float(values) is values


def bytes_and_floats(count: int = 24, size: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=generator).byte()
    return pixels, pixels.float() / 255, torch.rand(count, generator=generator)


def test_bytes_are_scored_remembered_and_trained_on_as_floats_are():
    """Bit for bit."""
    pixels, floats, quality = bytes_and_floats()
    model = tiny_model()
    assert torch.equal(score_all(model, pixels, 5), score_all(model, floats, 5))
    models = []
    for images in (pixels, floats):
        fresh = seeded(lambda: small_model((4, 6)))
        models.append(fit(fresh, images, quality, 2, batch_size=8, progress=False))
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))
    assert "feature_mean" in models[0].state_dict()


def drawn(augment, batch, count: int = 200):
    generator = torch.Generator().manual_seed(0)
    return [augment(batch, generator) for _ in range(count)]


def test_turning_and_mirroring_gives_all_eight_views_equally_often():
    """The whole batch alike."""
    batch = torch.rand(2, 3, 4, 4)
    views = symmetries(batch, 8)
    counts = [0] * 8
    for found in drawn(turn_and_mirror, batch, 400):
        (which,) = [i for i, view in enumerate(views) if torch.equal(view, found)]
        counts[which] += 1
    assert all(30 < count < 75 for count in counts)


def test_a_crop_lies_anywhere_inside_and_is_mirrored_half_of_the_time():
    """Native pixels, one place for the whole batch, the last row and column included."""
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    batch = torch.stack([rows, columns, rows * 0]).float().expand(2, -1, -1, -1)
    places, mirrored = set(), 0
    for found in drawn(crop_and_mirror(3), batch, 600):
        assert found.shape == (2, 3, 3, 3)
        turned = bool(found[0, 1, 0, 0] > found[0, 1, 0, 2])
        mirrored += turned
        found = found.flip(3) if turned else found
        y, x = found[0, :2, 0, 0].int().tolist()
        assert torch.equal(found, batch[..., y : y + 3, x : x + 3])
        places.add((y, x))
    assert places == {(y, x) for y in range(3) for x in range(5)}
    assert 240 < mirrored < 360


def test_a_crop_of_the_whole_image_is_the_image_or_its_mirror_image():
    batch = torch.rand(1, 3, 4, 4)
    found = drawn(crop_and_mirror(4), batch, 20)
    assert all(torch.equal(x, batch) or torch.equal(x, batch.flip(3)) for x in found)


@pytest.mark.parametrize("augment", [turn_and_mirror, crop_and_mirror(5)], ids=["turn", "crop"])
def test_augmentation_follows_its_generator_alone(augment):
    batch = torch.rand(2, 3, 8, 8)
    torch.manual_seed(0)
    first = drawn(augment, batch, 20)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(augment, batch, 20), strict=True))
    assert any(not torch.equal(first[0], other) for other in first)


def test_fit_sees_what_its_augmentation_makes_of_each_batch():
    """It gets floats in [0, 1], every image once an epoch; what it returns is what is trained on."""
    pixels, floats, quality = bytes_and_floats()
    seen, scored = [], []

    def augment(batch, generator):
        seen.append(batch)
        return batch[..., :10, :10]

    model = seeded(lambda: small_model((4, 6)))
    model.features[0].register_forward_hook(lambda _m, inputs, _o: scored.append(inputs[0].shape))
    fit(model, pixels, quality, 2, batch_size=8, progress=False, augment=augment)
    assert len(seen) == 6 and all(batch.dtype == torch.float32 for batch in seen)
    for epoch in (seen[:3], seen[3:]):
        assert sorted(x.sum().item() for x in torch.cat(epoch)) == pytest.approx(sorted(x.sum().item() for x in floats))
    assert scored[:6] == [(8, 3, 10, 10)] * 6
    assert set(scored[6:]) == {(24, 3, 16, 16)}  # what is remembered of the source is of the images as they are


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    """It repeats no finished epoch, and its optimiser, learning rate and order are those that it had."""
    pixels, _, quality = bytes_and_floats()
    seen = []

    def count(batch, generator):
        seen.append(len(batch))
        return turn_and_mirror(batch, generator)

    def train(epochs_before_the_interruption=None, checkpoint=None):
        def interrupt(epoch, loss):
            if epoch == epochs_before_the_interruption:
                raise KeyboardInterrupt

        seen.clear()
        model = seeded(lambda: small_model((4, 6)))
        options = {"after_epoch": interrupt, "checkpoint": checkpoint, "augment": count, "progress": False}
        return fit(model, pixels, quality, 4, batch_size=8, **options).state_dict()

    whole, file = train(), tmp_path / "training.checkpoint"
    assert len(seen) == 12
    with pytest.raises(KeyboardInterrupt):
        train(2, file)
    resumed = train(None, file)
    assert len(seen) == 6  # the third epoch was not finished
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    with pytest.raises(ValueError, match=r"is of another training, .*'epochs': 4"):
        fit(small_model((4, 6)), pixels, quality, 5, batch_size=8, checkpoint=file, progress=False)


def test_a_training_with_a_damaged_checkpoint_starts_over_and_says_so(tmp_path, caplog):
    images, quality, file = pictures(16, 32), torch.rand(16, generator=torch.Generator().manual_seed(0)), tmp_path / "c"

    def train(checkpoint=None):
        model = seeded(lambda: small_model((4, 6)))
        return fit(model, images, quality, 2, batch_size=8, checkpoint=checkpoint, progress=False).regressor.weight

    whole = train()
    assert torch.equal(train(file), whole)
    file.write_bytes(file.read_bytes()[:2000])
    assert torch.equal(train(file), whole)
    (line,) = caplog.messages
    assert str(file) in line and "damaged" in line and "\n" not in line
