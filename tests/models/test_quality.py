import pytest
import torch
from helpers import pictures, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.models import quality, saving, small, wrapping
from tta_iqa_lib.models.quality import MOMENTS


def test_scores_are_a_vector_and_features_a_matrix():
    model, images = tiny_model(), pictures(3)
    with torch.no_grad():
        scores, features = model(images, with_features=True)
        assert scores.shape == (3,) and features.shape == (3, 6)
        assert torch.equal(model(images), scores)
        assert torch.equal(model.regressor(features)[:, 0], scores)


def test_input_normalisation_lives_inside_the_model():
    """A model whose features are the channel means: (x − mean) / std, ImageNet's by default."""
    images = pictures(2).double()
    means = images.mean((2, 3))

    def features(**options):
        model = tta.QualityModel(nn.AdaptiveAvgPool2d(1), nn.Linear(3, 1), **options).double()
        return model(images, with_features=True)[1]

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()
    assert torch.allclose(features(), (means - mean) / std, rtol=0, atol=1e-12)
    assert torch.allclose(features(mean=(0.5, 0, 0), std=(2, 1, 1))[:, 0], (means[:, 0] - 0.5) / 2, rtol=0, atol=1e-12)


def test_regressor_may_give_vectors_or_columns():
    body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    column, vector = nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    vector[0].load_state_dict(column.state_dict())
    images = pictures(4)
    assert torch.equal(tta.QualityModel(body, column)(images), tta.QualityModel(body, vector)(images))


def test_moments_are_remembered_as_copies_and_other_names_refused():
    model, mean = tiny_model(), torch.rand(6)
    assert all(getattr(model, name) is None for name in MOMENTS)
    model.set_moments(feature_mean=mean)
    expected = mean.clone()
    mean.zero_()
    assert torch.equal(model.feature_mean, expected) and "feature_mean" in model.state_dict()
    with pytest.raises(KeyError, match="feature_median"):
        model.set_moments(feature_median=mean)


def test_names_that_have_moved_are_found_at_their_old_place_with_a_warning():
    for module, name in ((small, "small_model"), (wrapping, "wrap_model"), (saving, "load_source_model")):
        with pytest.warns(DeprecationWarning, match=f"{name} is now in {module.__name__}"):
            assert getattr(quality, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="'large_model'"):
        quality.large_model  # noqa: B018
