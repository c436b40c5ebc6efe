"""A model and a method on batches of pictures."""

from pathlib import Path

import pytest
import torch
from helpers import LayerNormModel, pictures, seeded, tiny_model
from PIL import Image
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation.state import Inference
from tta_iqa_lib.apps.results import BLANK, Results, Row
from tta_iqa_lib.apps.scorers import Scorer, ScoringError
from tta_iqa_lib.apps.scoring import score_batches
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


def network(*layers: nn.Module) -> tta.models.ScoringModel:
    """A regressor with these layers in it, and without source moments."""
    convolutions = nn.Conv2d(3, 6, 3, 2), *layers, nn.ReLU(), nn.Conv2d(6, 6, 3, 2), nn.AdaptiveAvgPool2d(1)
    return tta.wrap_model(nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(6, 1)).eval())


BATCHNORM = {"bn-batch", "bn-blend", "bn-adaptive", "recipe-open", "ema", "memo-control", "actmad"}
NOTHING_TO_LEARN = {"source", "views", "views+crops", "recipe"}
OTHERS = {
    "LayerNorm": (lambda: seeded(lambda: LayerNormModel(nn.LayerNorm(6))), BATCHNORM),
    "GroupNorm": (lambda: seeded(lambda: network(nn.GroupNorm(2, 6))), BATCHNORM),
    "InstanceNorm": (lambda: seeded(lambda: network(nn.InstanceNorm2d(6, affine=True))), BATCHNORM),
    "nothing": (lambda: seeded(network), {*FAIR} - NOTHING_TO_LEARN),
    "BatchNorm with and without γ and β": (
        lambda: seeded(lambda: network(nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6))),
        set(),
    ),
    "BatchNorm without γ and β": (
        lambda: seeded(lambda: network(nn.BatchNorm2d(6, affine=False))),
        {*FAIR} - NOTHING_TO_LEARN - BATCHNORM | {"actmad"},
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("method", FAIR)
def test_every_method_on_every_kind_of_network_works_or_says_at_once_why_not(method, kind):
    build, refused = OTHERS[kind]
    model, images = build(), 0.3 * pictures(8)
    if method in refused:
        with pytest.raises(
            ValueError, match=r"needs the statistics of BatchNorm layers|nothing to adapt: the model has"
        ):
            Scorer(model, method)
    else:
        scorer = Scorer(model, method, crops=2)
        outcomes = [scorer(part) for part in images.split(4)]
        assert all(torch.tensor(outcome.scores).isfinite().all() for outcome in outcomes)
        moved = any(outcome.scores != outcome.source_scores for outcome in outcomes)
        assert moved or method.endswith("control") or all(outcome.reason for outcome in outcomes)


@pytest.mark.parametrize("method", ["rank+gc", "sar", "memo"])
def test_without_batchnorm_losses_adapt_gamma_and_beta_alone_and_that_is_said(method):
    model, images = seeded(lambda: LayerNormModel(nn.LayerNorm(6))), pictures(4)
    scorer = Scorer(model, method)
    assert "no BatchNorm layer" in scorer.note and Scorer(tiny_model(), method).note == ""
    named = METHODS[method].adapter(model, 0)
    losses = getattr(named, "adapter", named).recipe.losses
    alone = tta.Adapter(model, losses, tta.Source(), sam_rho=0.05 if method == "sar" else 0.0)
    expected = alone.predict(images, 1 if method == "memo" else 4, shuffle=False)
    found = scorer(images)
    assert found.scores == pytest.approx(expected.tolist(), abs=1e-6) and found.scores != found.source_scores


def test_what_of_a_method_had_to_be_left_out_is_said(model):
    few = Scorer(model, "rank+gc")(pictures(3))
    assert (
        few.decision == "adapted"
        and few.reason == "without GroupContrastive: needs at least 4 images in a batch; got 3"
    )
    assert few.scores != few.source_scores
    bare = Scorer(tiny_model(), "ssa")(pictures(4))
    assert bare.decision == "initial" and bare.reason.startswith("without SubspaceAlignment: the model remembers no")
    assert bare.scores == Scorer(tiny_model(), "bn-blend")(pictures(4)).scores
    alone = Scorer(seeded(lambda: LayerNormModel(nn.LayerNorm(6))), "ssa")(pictures(4))
    assert alone.decision == "source" and alone.scores == alone.source_scores and "SubspaceAlignment" in alone.reason


def test_three_normalisations_of_a_network_without_batchnorm_are_one():
    """`tta-iqa train` makes models that ask for that recipe, of any backbone."""
    model = seeded(lambda: LayerNormModel(nn.LayerNorm(6)))
    model.recipe = "three-normalisations"
    outcome = Scorer(model, "recipe")(pictures(4))
    assert outcome.decision == "source" and outcome.scores == outcome.source_scores


@pytest.mark.parametrize("method", [None, "source", "bn-batch", "views", "memo", "published", "reference"])
def test_a_network_that_fails_is_named_with_what_it_failed_on(method):
    """One that was built for another size, say."""
    model = network(nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 7 * 7, 6), nn.Unflatten(1, (6, 1, 1)))
    model.module[5] = nn.Identity()  # what follows has one pixel to look at
    scorer = Scorer(model, method)
    with pytest.raises(
        ScoringError, match=r"(the model|the method '\w[\w-]*') fails on 2 crops of 20 × 16: RuntimeError: "
    ):
        scorer(torch.rand(2, 3, 16, 20))


@pytest.mark.parametrize(
    ("method", "reason"),
    [("none", "no method 'none'"), ("stream-order-2", "several times"), ("lever-four orders", "several times")],
)
def test_what_is_no_method_for_files_is_named(model, method, reason):
    with pytest.raises(ValueError, match=reason):
        Scorer(model, method)


def test_a_picture_that_shows_nothing_takes_no_part_in_its_batch(model, tmp_path):
    """And has the source's score; where scores do not depend on the batch, nothing is looked at."""
    images = [*pictures(5), torch.zeros(3, 32, 32), torch.ones(3, 32, 32)]
    files = [tmp_path / f"{i}.png" for i in range(7)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray((255 * image.permute(1, 2, 0).numpy()).round().astype("uint8")).save(file)

    def scored(files, method=None):
        (rows,) = score_batches(Scorer(model, method), [files])
        return rows

    rows, source = scored(files, "bn-batch"), scored(files)
    assert [row.score for row in rows[:5]] == [row.score for row in scored(files[:5], "bn-batch")]
    assert [row.score for row in rows[5:]] == pytest.approx([row.score for row in source[5:]], abs=1e-6)
    assert [(row.decision, row.reason) for row in rows] == [("adapted", "")] * 5 + [("source", BLANK)] * 2
    assert not any(row.reason for row in [*source, *scored(files, "memo-control")])


@pytest.mark.parametrize(
    ("blank", "told"),
    [
        ([5, 6], "adapted to 1 of 1 batches; 2 pictures that show nothing left out"),
        ([0], "adapted to 1 of 1 batches; 1 picture that shows nothing left out"),
        (range(7), "adapted to 0 of 0 batches; 7 pictures that show nothing left out"),
        ([], "adapted to 1 of 1 batches"),
    ],
)
def test_how_many_pictures_were_left_out_is_said(blank, told):
    results = Results(7)
    row = {True: ("source", BLANK), False: ("adapted", "")}
    results.add(range(7), [Row(Path("a"), 1.0, 1.0, "", *row[i in blank]) for i in range(7)])
    assert results.summary() == told
