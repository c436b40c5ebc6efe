"""Other methods on the shared loop: their losses by hand, and what their `predict` promises."""

import math
from itertools import pairwise

import pytest
import torch
from helpers import context, pictures, seeded, snapshot, tiny_mixed, tiny_model
from torch import nn
from torch.autograd import gradcheck

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, Blend, Ema, Moments, Source, blend
from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.experiments.baselines import (
    ActMad,
    Average,
    Lean,
    Orders,
    PerImage,
    QuantileMatching,
    Rotation,
    ScoreEntropy,
    ScoreVariance,
    Stream,
    SubspaceAlignment,
    Turns,
    rotation_head,
    source_quantiles,
)
from tta_iqa_lib.experiments.baselines.quantiles import LEVELS, channel_quantiles, match_quantiles
from tta_iqa_lib.models.training import remember_source


def vectors(count: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of_scores(**views: torch.Tensor):
    """A context that holds scores alone; the source's deviation is 2."""
    found = context({"clean": vectors(len(views["clean"]))}, torch.zeros(len(views["clean"])).double(), views)
    found.score_std = torch.tensor(2.0).double()
    return found


def plain(model, images) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


# Views


def test_turns_are_quarter_turns_of_the_image_or_of_its_mirror_image():
    images = pictures(2, 8)
    turned = Turns(3)(images, None, torch.Generator())
    assert list(turned) == ["turn1", "turn2", "turn3"]
    assert torch.equal(turned["turn1"], images.transpose(2, 3).flip(2))
    assert torch.equal(turned["turn2"], images.flip(2, 3))
    assert torch.equal(turned["turn3"], images.transpose(2, 3).flip(3))
    mirrored = Turns(1, mirror=True)(images, None, torch.Generator())
    assert list(mirrored) == ["turn1"] and torch.equal(mirrored["turn1"], images.flip(3).transpose(2, 3).flip(2))


# TENT


@pytest.mark.parametrize("bins", [2, 10])
def test_score_entropy_by_hand(bins):
    """Softmax of −(s − c)² / 2 w² over the centres of equally likely bins; w is the centres' mean distance.

    The bins are of the scores over the source data, not of the batch's: a batch that is all good has its place in them.
    """
    scores, pseudo = torch.tensor([0.3, -1.2, 4.0]).double(), torch.tensor([9.0, 8.0, 7.0]).double()
    found = context({"clean": vectors(3)}, pseudo, {"clean": scores})
    found.score_mean, found.score_std = torch.tensor(0.5).double(), torch.tensor(2.0).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    centres = [normal.icdf(torch.tensor((k + 0.5) / bins).double()).item() for k in range(bins)]
    width = sum(b - a for a, b in pairwise(centres)) / (bins - 1)
    entropies = []
    for score in scores.tolist():
        parts = [math.exp(-(((score - 0.5) / 2 - c) ** 2) / (2 * width**2)) for c in centres]
        shares = [p / sum(parts) for p in parts]
        entropies.append(-sum(p * math.log(p) for p in shares))
    assert ScoreEntropy(bins=bins)(found).item() == pytest.approx(sum(entropies) / 3, rel=1e-6)


def test_a_score_between_two_bins_has_the_entropy_of_a_coin():
    """And far outside there is one bin, and no doubt."""
    middle, outside = (of_scores(clean=torch.tensor([s]).double()) for s in (0.0, 40.0))
    assert ScoreEntropy(bins=2)(middle).item() == pytest.approx(math.log(2), abs=1e-9)
    assert ScoreEntropy(bins=2)(outside).item() == pytest.approx(0, abs=1e-4)


def test_entropy_falls_from_the_sources_mean_outwards():
    """The bins are dense in the middle, so a score there belongs to many: minimising the entropy pushes scores outwards."""
    entropies = [float(ScoreEntropy()(of_scores(clean=torch.tensor([s]).double()))) for s in (0.0, 0.5, 1.0, 2.0)]
    assert entropies == sorted(entropies, reverse=True) and entropies[0] > entropies[-1] + 0.2


@pytest.mark.parametrize("reliable", [None, 0.1])
def test_score_variance_is_zero_when_all_views_agree(reliable):
    scores = vectors(5, 1).flatten()
    found = of_scores(clean=scores, turn1=scores, turn2=scores)
    assert ScoreVariance(copies=Turns(2), reliable=reliable)(found).item() == 0
    assert not found.skipped


def test_score_variance_by_hand():
    """In source deviations: (0, 2, 4) / 2 varies by 2/3, (1, 1, 1) not at all."""
    found = of_scores(
        **{n: torch.tensor([s, 1.0]).double() for n, s in (("clean", 0.0), ("turn1", 2.0), ("turn2", 4.0))}
    )
    assert ScoreVariance(copies=Turns(2))(found).item() == pytest.approx(1 / 3)


def test_unreliable_images_are_dropped_and_an_empty_rest_is_skipped():
    """Deviations of the two views: .5, .05 and 1; the limit itself still counts as reliable."""
    views = {"clean": torch.tensor([0.0, 0.0, 0.0]).double(), "turn1": torch.tensor([2.0, 0.2, 4.0]).double()}
    for limit, kept in ((0.1, [0.05]), (0.5, [0.5, 0.05]), (5.0, [0.5, 0.05, 1.0])):
        found = of_scores(**views)
        expected = sum(d**2 for d in kept) / len(kept)
        assert ScoreVariance(reliable=limit)(found).item() == pytest.approx(expected) and not found.skipped
    found = of_scores(**views)
    assert ScoreVariance(reliable=0.01)(found) == 0
    assert "no image's views agree" in found.skipped["ScoreVariance"]


def test_lowering_the_variance_makes_turned_views_agree():
    model, images = tiny_model(), pictures(6)
    trace = Adapter(model, [ScoreVariance()], Source(), lr=0.01, steps=8).run(images).trace
    assert trace[-1]["ScoreVariance"] < 0.7 * trace[0]["ScoreVariance"]
    nobody = Adapter(model, [ScoreVariance(reliable=1e-9)], Source()).run(images)
    assert "ScoreVariance" in nobody.skipped and torch.equal(nobody.scores, nobody.source_scores)


# TTT


def test_rotations_cross_entropy_by_hand():
    """Logits 3 for the right turn of the first image and 0 else; the second image is told wrongly."""
    head = nn.Linear(4, 4, bias=False).double()
    head.weight.data = torch.eye(4).double()
    features = {name: torch.zeros(2, 4).double() for name in ("clean", "turn1", "turn2", "turn3")}
    for turn, name in enumerate(features):
        features[name][0, turn] = 3.0
        features[name][1, (turn + 1) % 4] = 3.0
    right, wrong = (-math.log(math.exp(x) / (math.exp(3) + 3)) for x in (3, 0))
    found = Rotation(head)(context(features, torch.zeros(2).double()))
    assert found.item() == pytest.approx((right + wrong) / 2)


def test_rotation_reads_standardised_features():
    head = seeded(lambda: nn.Linear(4, 4).double())
    views = {name: vectors(3, 4, seed=i) for i, name in enumerate(("clean", "turn1", "turn2", "turn3"))}
    mean, std = vectors(1, 4, seed=8)[0], vectors(1, 4, seed=9)[0].abs()
    raw = context({name: mean + std * z for name, z in views.items()}, torch.zeros(3).double())
    raw.feature_mean, raw.feature_std = mean, std
    expected = Rotation(head)(context(views, torch.zeros(3).double()))
    assert Rotation(head)(raw).item() == pytest.approx(expected.item(), rel=1e-9)


class Edges(tta.models.ScoringModel):
    """Features: mean brightness of the four sides, so that a lit top tells every turn."""

    def forward(self, images, with_features=False):
        side = images.mean(1)
        parts = [side[:, :2].mean((1, 2)), side[:, :, :2].mean((1, 2))]
        parts += [side[:, -2:].mean((1, 2)), side[:, :, -2:].mean((1, 2))]
        features = torch.stack(parts, 1)
        scores = features.mean(1)
        return (scores, features) if with_features else scores


def lit_from_above(count: int, seed: int) -> torch.Tensor:
    light = torch.linspace(1, 0, 8).view(8, 1).expand(8, 8)
    return 0.6 * light + 0.4 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_rotation_head_learns_what_can_be_told():
    """On new images it tells every turn; its weights take no gradients."""
    model = Edges()
    remember_source(model, torch.cat([lit_from_above(40, 0).rot90(turn, (2, 3)) for turn in range(4)]))
    head = rotation_head(model, lit_from_above(40, 1))
    assert not any(p.requires_grad for p in head.parameters())
    new = lit_from_above(20, 2)
    for turn in range(4):
        features = model(new.rot90(turn, (2, 3)), with_features=True)[1]
        told = head((features - model.feature_mean) / model.feature_cov.diagonal().sqrt())
        assert (told.argmax(1) == turn).all()


# ActMAD


def of_moments(source: Moments, batch: Moments):
    found = context({"clean": vectors(3)}, torch.zeros(3).double())
    found.moments = {"a": (source, batch), "b": (source, source)}
    return found


def test_actmad_is_zero_where_the_batch_has_the_sources_moments():
    source = Moments(vectors(1)[0], vectors(1, seed=1)[0].abs())
    assert ActMad()(of_moments(source, source)).item() == 0


def test_actmad_by_hand():
    """One layer of two off by (2/2 + 3/3)/2 in the mean and (2/4 + 0)/2 in the variance: four terms."""
    source = Moments(torch.tensor([0.0, 1.0]), torch.tensor([4.0, 9.0]))
    batch = Moments(torch.tensor([2.0, -2.0]), torch.tensor([6.0, 9.0]))
    assert ActMad()(of_moments(source, batch)).item() == pytest.approx((1.0 + 0.25 + 0 + 0) / 4)


@pytest.mark.parametrize("statistics", [Source(), Blend(0.7)], ids=str)
def test_actmad_brings_a_shifted_batchs_moments_nearer_to_the_sources(statistics):
    trace = Adapter(tiny_model(), [ActMad()], statistics, lr=0.03, steps=10).run(pictures(6) / 3).trace
    assert trace[-1]["ActMad"] < trace[0]["ActMad"] - 0.02


def test_actmad_without_batchnorm_is_skipped():
    found = context({"clean": vectors(3)}, torch.zeros(3).double())
    assert ActMad()(found) == 0 and "ActMad" in found.skipped


# SSA


def remembering(features: torch.Tensor):
    """A tiny model whose source had these features."""
    model = tiny_model().double()
    cov = torch.cov(features.T, correction=0)
    one = torch.ones(()).double()
    model.set_moments(feature_mean=features.mean(0), feature_cov=cov, score_mean=0 * one, score_std=one)
    return model


def of_features(features: torch.Tensor, model):
    found = context({"clean": features}, torch.zeros(len(features)).double())
    found.model = model
    return found


@pytest.mark.parametrize("axes", [1, 3, 6, 20])
def test_subspace_alignment_is_zero_for_the_sources_own_features(axes):
    """Mean 0 and variance 1 along every axis: (1 + 0 + 1/1 − 2) / 2; twice the deviations: (4 + 1/4 − 2) / 2."""
    features = vectors(30)
    model = remembering(features)
    model.regressor.weight.data.zero_()[0, 0] = 1e-30  # no axis matters more than another
    assert SubspaceAlignment(axes=axes)(of_features(features, model)).item() == pytest.approx(0, abs=1e-9)
    mean = features.mean(0)
    for scale in (2.0, 0.5):
        found = SubspaceAlignment(axes=axes)(of_features(mean + scale * (features - mean), model)).item()
        assert found >= (4 + 1 / 4 - 2) / 2 - 1e-9


def test_subspace_alignment_weighs_an_axis_by_what_it_is_to_the_regressor():
    """Independent axes of variance 1 to 6; a batch displaced by one deviation along one of them: KL = 1 · (1 + |w·v|/‖w‖)."""
    model = remembering(vectors(30))
    model.set_moments(feature_mean=torch.zeros(6).double(), feature_cov=torch.diag(torch.arange(1.0, 7).double()))
    model.regressor.weight.data = torch.tensor([[0.0, 3, 0, 4, 0, 0]]).double()
    signs = torch.cat([torch.eye(6), -torch.eye(6)]).double() * math.sqrt(6)  # mean 0, variance 1 along each axis
    batch = signs * torch.arange(1.0, 7).double().sqrt()
    for axis, importance in ((1, 1.6), (3, 1.8), (5, 1.0)):
        moved = batch.clone()
        moved[:, axis] += math.sqrt(axis + 1)
        found = SubspaceAlignment(axes=6)(of_features(moved, model)).item()
        assert found == pytest.approx(importance / 6, rel=1e-6)
    moved = batch.clone()
    moved[:, 1] += 5
    assert SubspaceAlignment(axes=4)(of_features(moved, model)).item() == pytest.approx(0, abs=1e-9)  # axis 1 is fifth


def test_the_complement_is_aligned_as_a_whole():
    """Outside of the axes: nothing where the batch is the source; by hand where it is displaced, or wider, there alone."""
    features = vectors(40)
    model, axes = remembering(features), 3
    model.regressor.weight.data.zero_()[0, 0] = 1e-30
    plain_loss, whole = SubspaceAlignment(axes=axes), SubspaceAlignment(axes=axes, complement=True)
    assert whole(of_features(features, model)).item() == pytest.approx(0, abs=1e-9)
    spectrum, vectors_ = torch.linalg.eigh(model.feature_cov)
    unit = spectrum[:-axes].sum()
    moved = features + 2 * unit.sqrt() * vectors_[:, 0]  # four times the complement's variance, squared
    assert plain_loss(of_features(moved, model)).item() == pytest.approx(0, abs=1e-9)
    assert whole(of_features(moved, model)).item() == pytest.approx((1 + 4 + 5 - 2) / 2, rel=1e-6)
    centred = features - features.mean(0)
    wider = features + centred @ vectors_[:, :-axes] @ vectors_[:, :-axes].T  # twice as wide across the axes
    assert whole(of_features(wider, model)).item() == pytest.approx((4 + 1 / 4 - 2) / 2, rel=1e-6)
    assert SubspaceAlignment(axes=6, complement=True)(of_features(moved, model)) == plain_all(moved, model)


def plain_all(features, model):
    return SubspaceAlignment(axes=6)(of_features(features, model))


def test_lean_takes_more_of_what_lies_farther_in_the_first_half_of_the_layers():
    source = Moments(torch.zeros(4), torch.full((4,), 4.0))
    for distance, alpha in ((0.0, 0.0), (1.0, 0.5), (3.0, 0.9)):  # in deviations: d² / (d² + 1)
        batch = Moments(torch.full((4,), 2 * distance), torch.ones(4))
        expected = blend(source, batch, alpha)
        found = Lean()(source, batch, source, 1)
        assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))
    assert Lean().at(0.49) == Lean() and Lean().at(0.5) == Source()
    images = pictures(3) * 0.3
    scores = PerImage(Adapter(tiny_model(), (), Lean())).predict(images)
    assert torch.allclose(scores[:1], Adapter(tiny_model(), (), Lean())(images[:1]), atol=1e-5)
    assert not torch.allclose(scores, plain(tiny_model(), images), atol=1e-4)


# AQR


def gaussian(count: int, channels: int, seed: int = 0) -> torch.Tensor:
    """(count, channels, 1, 1): in each channel as Gaussian as so many values can be, in some order."""
    values = torch.special.ndtri((torch.arange(count) + 0.5) / count)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(channels)]
    return torch.stack([values[order] for order in orders], 1)[..., None, None]


def test_quantile_matching_changes_nothing_where_the_batch_is_the_source():
    model, images = tiny_model(), pictures(6)
    matching = QuantileMatching(model, source_quantiles(model, images))
    assert torch.allclose(matching.predict(images), plain(model, images), rtol=0, atol=1e-5)
    dark = images * 0.3
    assert not torch.allclose(matching.predict(dark), plain(model, dark), rtol=0, atol=1e-3)


def test_quantiles_are_those_of_torch_and_of_many_values_a_draw_from_all_positions():
    x = gaussian(50, 2).view(2, 2, 5, 5, -1).transpose(2, 4).contiguous()[:, :, 0]
    wanted = torch.quantile(x.transpose(0, 1).flatten(1), torch.tensor(LEVELS), dim=1).T
    assert torch.allclose(channel_quantiles(x), wanted, rtol=0, atol=1e-6)
    ramp = torch.linspace(0, 1, 2**15).view(8, 1, 64, 64)
    assert torch.allclose(channel_quantiles(ramp)[0], torch.tensor(LEVELS), rtol=0, atol=0.04)


def test_gaussian_channels_are_matched_as_by_their_moments():
    """Far beyond the outermost quantiles as well: the map of a Gaussian onto a Gaussian is a straight line."""
    mean, deviation = torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0], [0.5]])
    wanted = mean + deviation * torch.special.ndtri(torch.tensor(LEVELS))
    x = 5 + 2 * gaussian(2000, 2)
    found = match_quantiles(x, channel_quantiles(x), wanted)
    expected = mean[..., None] + deviation[..., None] * (x - 5) / 2
    assert x.max() > 5 + 2 * 3 and torch.allclose(found, expected, rtol=0, atol=0.03)  # a hundredth of a deviation


class Toned(nn.Module):
    """Mean of the normalised colours, through a curve that feels their distribution."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return self.norm(images).sigmoid().square().mean((1, 2, 3))


def test_quantile_matching_undoes_a_change_of_tone_that_moments_cannot():
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.3, 1, 8).view(
        8, 1, 1, 1
    )
    toned = images**4  # monotone, the same for all pictures, and no matter of mean and variance
    net = Toned()
    net.norm.running_mean, net.norm.running_var = images.mean((0, 2, 3)), images.var((0, 2, 3), correction=0)
    net.eval()
    scores = plain(net, images)
    found = QuantileMatching(net, source_quantiles(net, images)).predict(toned)
    net.norm.running_mean, net.norm.running_var = toned.mean((0, 2, 3)), toned.var((0, 2, 3), correction=0)
    by_moments = plain(net, toned)
    assert (found - scores).abs().max() < 0.015 < 0.06 < (by_moments - scores).abs().max()


def test_a_match_of_quantiles_keeps_the_order_and_gives_a_constant_channel_the_median():
    x = torch.cat([gaussian(300, 1).exp(), torch.full((300, 1, 1, 1), 7.0)], 1)
    wanted = torch.linspace(-1, 1, len(LEVELS)).expand(2, -1).contiguous()
    found = match_quantiles(x, channel_quantiles(x), wanted)
    assert (found[x[:, 0].flatten().argsort(), 0].flatten().diff() >= 0).all()
    assert torch.allclose(channel_quantiles(found)[0], wanted[0], rtol=0, atol=0.02)
    assert torch.allclose(found[:, 1], wanted[1].mean(), atol=1e-6)  # its median, since it is symmetric


def test_quantile_matching_takes_batch_by_batch_and_leaves_the_model_as_it_is():
    model, images = tiny_model(), pictures(7)
    before = snapshot(model)
    quantiles = source_quantiles(model, pictures(20, seed=3), 10)
    assert list(quantiles) == list(tta.adaptation.batchnorm_layers(model))
    halves = [source_quantiles(model, part) for part in pictures(20, seed=3).split(10)]
    for name, found in quantiles.items():
        assert torch.allclose(found, (halves[0][name] + halves[1][name]) / 2, rtol=0, atol=1e-6)
    matching = QuantileMatching(model, quantiles)
    scores = matching.predict(images, 4)
    expected = torch.cat([matching.predict(images[:4]), matching.predict(images[4:])])
    assert torch.allclose(scores, expected, rtol=0, atol=1e-6) and not torch.allclose(scores, matching.predict(images))
    assert snapshot(model) == before


def test_subspace_alignment_skips_what_it_cannot_measure():
    model = remembering(vectors(30))
    for found in (of_features(vectors(1), model), of_features(vectors(4), tiny_model()), of_features(vectors(4), None)):
        assert SubspaceAlignment()(found) == 0 and "SubspaceAlignment" in found.skipped
    result = Adapter(tiny_model(), [SubspaceAlignment()], Blend(0.5)).run(pictures(4))
    assert "no covariance" in result.skipped["SubspaceAlignment"]


@pytest.mark.parametrize("name", ["entropy", "variance", "rotation", "actmad", "ssa"])
def test_gradients_are_those_of_finite_differences(name):
    head, model = seeded(lambda: nn.Linear(6, 4).double()), remembering(vectors(30))
    source = Moments(vectors(1, 3)[0], vectors(1, 3, seed=1)[0].abs() + 0.5)
    names = ("clean", "turn1", "turn2", "turn3")
    value = {
        "entropy": lambda x: ScoreEntropy()(of_scores(clean=x[:, 0])),
        "variance": lambda x: ScoreVariance()(of_scores(clean=x[:, 0], turn1=x[:, 1])),
        "rotation": lambda x: Rotation(head)(context({n: x + i for i, n in enumerate(names)}, x[:, 0].detach())),
        "actmad": lambda x: ActMad()(of_moments(source, Moments(x[0, :3], x[1, :3].square() + 5))),
        "ssa": lambda x: SubspaceAlignment()(of_features(x, model)),
    }[name]
    assert gradcheck(value, vectors(5, seed=4).requires_grad_())


# Averages, single images, streams


@pytest.mark.parametrize("views", [1, 2, 8])
@pytest.mark.parametrize("crops", [1, 5])
def test_the_average_is_the_mean_by_hand(views, crops):
    """The whole and, of 32 pixels, the four corners of 28; each as it is, mirrored, turned."""
    model, images = tiny_model(), pictures(5)
    parts = [images]
    if crops == 5:
        parts += [images[..., a : a + 28, b : b + 28] for a in (0, 4) for b in (0, 4)]
    if views > 1:
        parts += [part.flip(3) for part in parts]
    if views == 8:
        parts += [part.rot90(turn, (2, 3)) for part in parts for turn in (1, 2, 3)]
    assert len(parts) == views * crops
    expected = torch.stack([plain(model, part) for part in parts]).mean(0)
    found = Average(model, views, crops).predict(images, batch_size=2)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6) and not found.requires_grad


def test_the_average_goes_through_more_images_than_one_pass_holds():
    model, images = tiny_model(), pictures(70, 16)
    assert torch.allclose(Average(model, 1).predict(images), plain(model, images), rtol=0, atol=1e-5)


def test_the_average_leaves_a_model_in_training_mode_as_it_is():
    model, images = tiny_model(), pictures(4)
    expected = Average(model, 2).predict(images)
    before = snapshot(model.train())
    found = Average(model, 2).predict(images)
    assert torch.equal(found, expected) and snapshot(model) == before


@pytest.mark.parametrize("fold", [1, 4])
def test_by_itself_each_image_gets_the_same_score_in_any_company(fold):
    model, images = tiny_model(), pictures(6)
    scorer = PerImage(Adapter(model, [ScoreVariance()], Blend(0.3), lr=0.01, episodes_per_pass=fold))
    together = scorer.predict(images, batch_size=32)
    for company in ([2], [2, 0], [5, 4, 2, 1]):
        scores = scorer.predict(images[company], batch_size=2, shuffle=True)
        assert torch.allclose(scores, together[company], rtol=0, atol=1e-5)
    assert torch.allclose(together[2], scorer.adapter(images[2:3])[0], rtol=0, atol=1e-5)
    assert not torch.allclose(together, scorer.adapter(images), rtol=0, atol=1e-4)


def test_an_ensemble_over_orders_averages_what_other_batches_give():
    """Each order cuts other batches; where batches do not matter, neither do orders. One order is the adapter itself."""
    model, images = tiny_model(), pictures(7)
    adapter = Adapter(model, [], Batch())
    assert torch.equal(Orders(adapter, 1).predict(images, 3), adapter.predict(images, 3, shuffle=False))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    other = torch.empty(7)
    other[order] = adapter.predict(images[order], 3, shuffle=False)
    first = adapter.predict(images, 3, shuffle=False)
    assert not torch.allclose(first, other, rtol=0, atol=1e-4)
    assert torch.allclose(Orders(adapter, 2).predict(images, 3), (first + other) / 2, rtol=0, atol=1e-6)
    plain = Adapter(model, [], Source())
    assert torch.allclose(Orders(plain).predict(images, 3), plain.predict(images, 3), rtol=0, atol=1e-5)


STREAMS = {
    "statistics": lambda m: Adapter(m, [], Ema(0.3)),
    "steps": lambda m: Adapter(m, [ScoreVariance()], Batch(), lr=0.01),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("when", ["after", "before"])
def test_a_stream_carries_its_state_through_one_call_and_forgets_it_then(name, when):
    """A, B, A: the second A gets other scores than the first. The next call, and the adapter itself, start afresh."""
    model = tta.wrap_model(tiny_mixed(), features="5")
    a, b = pictures(5), pictures(5, seed=1)
    before = snapshot(model)
    adapter = STREAMS[name](model)
    alone = adapter(a)
    stream = Stream(adapter, when)
    first, _, third = stream.predict(torch.cat([a, b, a]), batch_size=5).split(5)
    assert not torch.allclose(first, third, rtol=0, atol=1e-4)
    assert torch.equal(stream.predict(a, batch_size=5), first)
    assert torch.equal(adapter(a), alone) and snapshot(model) == before
    assert torch.equal(first, adapter.run(a).source_scores if when == "before" else alone)


def test_a_stream_keeps_the_order_of_its_images_unless_told():
    model, images = tiny_model(), pictures(9)
    adapter = Adapter(model, [], Ema(0.3))
    with adapter.online():
        by_hand = torch.cat([adapter(part) for part in images.split(3)])
    assert torch.equal(Stream(adapter).predict(images, 3), by_hand)
    assert not torch.allclose(Stream(adapter).predict(images, 3, shuffle=True), by_hand, rtol=0, atol=1e-4)


def test_a_stream_of_several_passes_scores_its_images_the_last_time():
    """Twice the images in one go, and the second half of the scores."""
    model, images = tta.wrap_model(tiny_mixed(), features="5"), pictures(8)
    adapter = STREAMS["steps"](model)
    with adapter.online():
        by_hand = [adapter(part) for part in torch.cat([images, images]).split(4)]
    assert torch.equal(Stream(adapter, passes=2).predict(images, 4), torch.cat(by_hand[2:]))
    assert not torch.allclose(torch.cat(by_hand[2:]), torch.cat(by_hand[:2]), rtol=0, atol=1e-4)


def test_a_stream_that_restarts_after_each_batch_is_no_stream():
    model, images = tta.wrap_model(tiny_mixed(), features="5"), pictures(8)
    adapter = STREAMS["steps"](model)
    alone = torch.cat([adapter(part) for part in images.split(4)])
    for passes in (1, 2):
        assert torch.equal(Stream(adapter, passes=passes, restart=lambda result: True).predict(images, 4), alone)
    assert not torch.allclose(Stream(adapter, passes=2).predict(images, 4), alone, rtol=0, atol=1e-4)
