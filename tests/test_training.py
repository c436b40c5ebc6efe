"""Training: a short one learns, is repeatable, and the shipped models are what their files say."""

import pytest
import torch

from tta_iqa_lib import benchmark
from tta_iqa_lib.benchmark import build, tinyshift
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models import MOMENTS, data_folder, load_source_model, read_about, small_model
from tta_iqa_lib.training import fit, remember_source, score_all


@pytest.fixture(scope="module")
def few():
    """160 source crops of a few contents, and 60 others."""
    names = ["astronaut", "coffee", "scene-1000", "scene-1001", "scene-1002"]
    pixels, quality, _ = build("source/train", 160, names=names)
    test_pixels, test_quality, _ = build("source/test", 60, names=names)
    return pixels.float() / 255, quality, test_pixels.float() / 255, test_quality


def train(few, seed=0, epochs=12):
    torch.manual_seed(seed)
    return fit(small_model((8, 16, 24)), few[0], few[1], epochs, lr=5e-3, batch_size=16, seed=seed, progress=False)


def test_a_short_training_learns_to_rank_unseen_crops(few):
    """An untrained model ranks at random; a minute's training must not."""
    model = train(few)
    assert srcc(score_all(model, few[2]), few[3]) > 0.5


def test_the_same_seed_gives_the_same_weights(few):
    first, second, other = train(few, epochs=1), train(few, epochs=1), train(few, seed=1, epochs=1)
    weights = [model.state_dict()["regressor.weight"] for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_source_s_moments_are_those_of_its_features(few):
    torch.manual_seed(0)
    model = small_model((8, 16, 24)).eval()
    remember_source(model, few[0])
    with torch.no_grad():
        scores, features = model(few[0], with_features=True)
    assert torch.allclose(model.feature_mean, features.mean(0), atol=1e-5)
    assert torch.allclose(model.feature_cov, torch.cov(features.T), atol=1e-5)
    assert torch.allclose(model.score_std, scores.std(), atol=1e-5)


def test_scoring_restores_the_mode_and_does_not_depend_on_the_batch_size(few):
    torch.manual_seed(0)
    model = small_model((8, 16, 24)).train()
    running = model.features[1].running_mean.clone()
    assert torch.allclose(score_all(model, few[2], 7), score_all(model, few[2], 60), atol=1e-5)
    assert model.training and torch.equal(running, model.features[1].running_mean)


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
    model = load_source_model()
    width = model.regressor.in_features
    assert [tuple(getattr(model, name).shape) for name in MOMENTS] == [(width,), (width, width), (), ()]
    assert model.crop == benchmark.CROP and "not human" in model.predicts
