import itertools
import math

import pytest
import torch
from helpers import context, plain, vectors

from tta_iqa_lib.adaptation.copies import Ladder
from tta_iqa_lib.adaptation.functional import (
    group_contrastive_loss,
    relative_rank_loss,
    score_order_loss,
)
from tta_iqa_lib.adaptation.losses import Anchor, GroupContrastive, RelativeRank, ScoreOrder


def three_views(count: int = 6):
    features = {name: vectors(count, 4, seed=i) for i, name in enumerate(("clean", "mild", "severe"))}
    scores = {name: vectors(count, 1, seed=5 + i).flatten() for i, name in enumerate(features)}
    found = context(features, scores["clean"], scores)
    found.feature_mean, found.feature_std, found.score_std = (
        vectors(1, 4, seed=8)[0],
        vectors(1, 4, seed=9)[0].abs(),
        torch.tensor(2.0),
    )
    return found


def test_relative_rank_measures_in_source_deviations():
    """Root mean square over the features of (z − z′) / std, or raw norms."""
    views = three_views()
    by_hand = [(views.features[n] / views.feature_std) / 2 for n in ("clean", "mild", "severe")]  # √D = 2
    assert RelativeRank()(views).item() == pytest.approx(relative_rank_loss(*by_hand).item(), rel=1e-12)
    raw = relative_rank_loss(*views.features.values())
    assert RelativeRank(standardise=False)(views).item() == pytest.approx(raw.item(), rel=1e-12)


def test_score_order_averages_clean_over_mild_and_mild_over_severe():
    views = three_views()
    clean, mild, severe = (views.scores[name] / 2.0 for name in ("clean", "mild", "severe"))
    for temperature in (1.0, 0.25):
        parts = [score_order_loss(a, b, temperature=temperature) for a, b in ((clean, mild), (mild, severe))]
        assert ScoreOrder(temperature=temperature)(views).item() == pytest.approx(sum(parts).item() / 2, rel=1e-12)


def test_score_order_goes_down_a_ladder_rung_by_rung():
    views = three_views()
    views.scores = {
        name: vectors(6, 1, seed=i).flatten() for i, name in enumerate(("clean", "rung1", "rung2", "rung3"))
    }
    in_units = [scores / 2.0 for scores in views.scores.values()]
    parts = [score_order_loss(a, b).item() for a, b in itertools.pairwise(in_units)]
    found = ScoreOrder(copies=Ladder(severities=(0.1, 0.2, 0.3)))(views).item()
    assert found == pytest.approx(sum(parts) / 3, rel=1e-12)


def test_the_metric_s_differences_are_the_margins_and_never_negative():
    """The metric says of each copy how far it is from the clean image; a worse copy that it likes better gets no margin."""
    views = three_views()
    views.images = {
        "clean": plain(*[0.5] * 6),
        "mild": plain(*[0.4] * 6),
        "severe": plain(0.1, 0.2, 0.3, 0.4, 0.45, 0.5),
    }
    metric = lambda distorted, reference: (distorted - reference).mean((1, 2, 3))  # noqa: E731
    clean, mild, severe = (views.scores[name] / 2.0 for name in ("clean", "mild", "severe"))
    second = torch.tensor([0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
    expected = (score_order_loss(clean, mild, 0.1) + score_order_loss(mild, severe, second)) / 2
    assert ScoreOrder(metric=metric)(views).item() == pytest.approx(expected.item(), rel=1e-6)


def test_group_contrastive_is_measured_by_its_plateau():
    """1 for features that say nothing, at every batch size; standardised by the source's moments first."""
    for count in (4, 8, 12, 40):
        same = context({"clean": vectors(1).expand(count, -1)}, torch.arange(float(count)))
        assert GroupContrastive()(same).item() == pytest.approx(1, abs=1e-9)
    views = three_views()
    z = (views.features["clean"] - views.feature_mean) / views.feature_std
    for standardise, features in ((True, z), (False, views.features["clean"])):
        loss = GroupContrastive(fraction=0.5, temperature=0.2, form="log-mean", standardise=standardise)(views)
        expected = group_contrastive_loss(features, views.pseudo_scores, 0.5, 0.2, "log-mean") / math.log(4)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_anchor_is_one_minus_the_correlation_with_the_source():
    pseudo = vectors(7, 1, seed=0).flatten()
    for scores, expected in ((3 * pseudo + 1, 0.0), (-pseudo, 2.0), (1e-4 * pseudo, 0.0)):
        found = Anchor()(context({"clean": vectors(7)}, pseudo, {"clean": scores}))
        assert found.item() == pytest.approx(expected, abs=1e-12)
    other = vectors(7, 1, seed=1).flatten()
    found = Anchor()(context({"clean": vectors(7)}, pseudo, {"clean": other}))
    assert found.item() == pytest.approx(1 - torch.corrcoef(torch.stack([pseudo, other]))[0, 1].item(), abs=1e-12)


@pytest.mark.parametrize(("loss", "enough"), [(GroupContrastive(), 4), (Anchor(), 3)])
def test_what_cannot_be_formed_is_zero_and_reported(loss, enough):
    name = type(loss).__name__
    for count in range(1, 6):
        views = context({"clean": vectors(count)}, torch.arange(float(count)).double())
        value = loss(views)
        assert (name in views.skipped) == (count < enough)
        assert count >= enough or (
            value == 0 and f"at least {enough} images in a batch; got {count}" in views.skipped[name]
        )


def test_wrong_settings_of_the_contrast_are_errors_that_name_the_setting():
    for options in ({"form": "mean"}, {"fraction": 0.6}, {"fraction": 0.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            GroupContrastive(**options)
