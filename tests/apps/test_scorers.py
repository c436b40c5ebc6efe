"""A model and a method on batches of pictures."""

import pytest
import torch
from helpers import LayerNormModel, pictures, seeded, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation.state import Inference
from tta_iqa_lib.apps.scorers import Scorer
from tta_iqa_lib.experiments import methods
from tta_iqa_lib.experiments.baselines import Average
from tta_iqa_lib.experiments.methods import FAIR, METHODS

MINE = tta.Recipe(Inference(tta.Batch()))


def mine(model, seed):
    return Average(model, 2, 5)


@pytest.fixture(autouse=True)
def head(monkeypatch):
    """That of rotations takes long to fit."""
    monkeypatch.setattr(methods, "source_head", lambda _model: seeded(lambda: nn.Linear(6, 4)).requires_grad_(False))


@pytest.fixture
def model():
    """With source moments, which some losses ask for."""
    made = tiny_model()
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    made.set_moments(
        feature_mean=features.mean(0),
        feature_cov=features.T.cov(),
        score_mean=torch.tensor(0.0),
        score_std=torch.tensor(1.0),
    )
    return made


@pytest.mark.parametrize("method", [*FAIR, "fault-gc-off", "lever-score order"])
def test_every_method_scores_files_as_it_scores_in_the_fair_table(model, method):
    """Two batches, one after the other: a stream carries its state from the first to the second, the others do not."""
    images = 0.3 * pictures(8)
    scorer = Scorer(model, method)
    found = [score for part in images.split(4) for score in scorer(part).scores]
    expected = METHODS[method].adapter(model, 0).predict(images, 4, shuffle=False)
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_what_carries_and_what_mixes(model):
    kinds = {name: (Scorer(model, name).mixes, Scorer(model, name).carries) for name in FAIR}
    assert {name for name, (_, carries) in kinds.items() if carries} == {"ema", "sar", "reference", "reference-control"}
    assert {name for name, (mixes, _) in kinds.items() if not mixes} == {"views", "views+crops", "memo", "memo-control"}
    assert not Scorer(model).mixes


def test_the_model_alone_scores_in_the_views_it_declares():
    model = tiny_model(views=2)
    outcome = Scorer(model)(pictures(3))
    assert outcome.scores == pytest.approx(Average(model, 2).predict(pictures(3)).tolist(), abs=1e-6)
    assert outcome.scores == outcome.source_scores and outcome.decision == "source" and outcome.reason == ""


def test_crops_of_a_picture_count_as_one_witness_and_are_averaged(model):
    rows = 0.3 * pictures(8)
    outcome = Scorer(model, "recipe", crops=2)(rows)
    result = tta.Adapter(model, crops_per_image=2).run(rows)
    assert outcome.scores == pytest.approx(result.scores.view(4, 2).mean(1).tolist(), abs=1e-6)
    assert outcome.decision == result.decision
    few = Scorer(model, "recipe", crops=4)(rows)
    assert few.decision == "source" and few.reason == "fewer than 4 pictures in the batch"


def test_the_reason_why_a_batch_was_left_alone_is_said(model):
    images = pictures(8)
    with torch.no_grad():
        first = model.features[1]  # as the batch has it: nothing has shifted
        x = model.features[0]((images - model.mean) / model.std)
        first.running_mean.copy_(x.mean((0, 2, 3)))
        first.running_var.copy_(x.var((0, 2, 3), unbiased=False))
    outcome = Scorer(model, "recipe")(images)
    assert outcome.decision == "source" and outcome.reason.startswith(
        "no shift that chance does not explain (0.0 times"
    )
    assert outcome.scores == outcome.source_scores
    plain = seeded(lambda: LayerNormModel(nn.LayerNorm(6)))
    outcome = Scorer(plain, "recipe")(images)
    assert outcome.decision == "source" and "nothing in this model" in outcome.reason


def test_a_recipe_or_a_maker_of_one_s_own(model):
    images = pictures(6)
    assert Scorer(model, "test_scorers:MINE")(images).scores == pytest.approx(
        tta.Adapter(model, recipe=MINE)(images).tolist(), abs=1e-6
    )
    assert Scorer(model, "test_scorers:mine")(images).scores == pytest.approx(
        mine(model, 0).predict(images).tolist(), abs=1e-6
    )


@pytest.mark.parametrize(
    ("method", "reason"),
    [("none", "no method 'none'"), ("stream-order-2", "several times"), ("lever-four orders", "several times")],
)
def test_what_is_no_method_for_files_is_named(model, method, reason):
    with pytest.raises(ValueError, match=reason):
        Scorer(model, method)
