import itertools
import math

import pytest
import torch
from helpers import vectors
from torch.autograd import gradcheck
from torch.nn.functional import cosine_similarity

from tta_iqa_lib.adaptation.functional import (
    contrastive_groups,
    group_contrastive_loss,
    relative_rank_loss,
    score_order_loss,
)

FORMS = ("mean-log", "log-mean")


# Relative rank and score order


def test_relative_rank_by_hand():
    """Distances 5 and 7, then 3 and 2: mean of log(1 + e⁻²) and log(1 + e)."""
    anchor = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    mild = torch.tensor([[3.0, 4.0], [4.0, 1.0]])
    severe = torch.tensor([[0.0, -7.0], [1.0, -1.0]])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert relative_rank_loss(anchor, mild, severe).item() == pytest.approx(expected, rel=1e-6)


def test_copies_equally_far_give_log_two():
    anchor, direction = vectors(6, seed=0), vectors(6, seed=1)
    loss = relative_rank_loss(anchor, anchor + direction, anchor - direction)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)


def test_score_order_by_hand():
    """softplus((worse − better + margin) / T)."""
    better, worse = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
    for margin, temperature in ((0.0, 1.0), (0.5, 2.0)):
        gaps = [(-2 + margin) / temperature, (1 + margin) / temperature]
        expected = sum(math.log1p(math.exp(gap)) for gap in gaps) / 2
        assert score_order_loss(better, worse, margin, temperature).item() == pytest.approx(expected, rel=1e-6)


def test_the_right_order_costs_less_than_the_wrong_one():
    low, high = torch.zeros(4), torch.ones(4)
    assert score_order_loss(high, low) < math.log(2) < score_order_loss(low, high)


def test_large_differences_neither_overflow_nor_vanish():
    """softplus(1000) = 1000, with gradient 1."""
    gap = torch.tensor([1000.0], requires_grad=True)
    loss = score_order_loss(torch.zeros(1), gap)
    assert loss.item() == 1000 and torch.autograd.grad(loss, gap)[0].item() == 1
    far = torch.tensor([[1000.0, 0]])
    assert relative_rank_loss(torch.zeros(1, 2), far, torch.zeros(1, 2)).item() == 1000


# Group contrastive


def naive_ratios(features: torch.Tensor, low: list[int], high: list[int], temperature: float) -> list[torch.Tensor]:
    """r_i one by one, with exp over exp, as the formula reads."""
    ratios = []
    for own, other in ((low, high), (high, low)):
        for i in own:
            mates = [cosine_similarity(features[i], features[j], dim=0) for j in own if j != i]
            positive = torch.exp(sum(mates) / len(mates) / temperature)
            foes = [torch.exp(cosine_similarity(features[i], features[j], dim=0) / temperature) for j in other]
            ratios.append(positive / (positive + sum(foes)))
    return ratios


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("count", "fraction", "k"), [(4, 0.25, 2), (9, 0.25, 2), (13, 0.25, 3), (13, 0.4, 5), (6, 0.5, 3)]
)
def test_group_contrastive_equals_the_formula_written_out(count, fraction, k, form):
    features = vectors(count)
    pseudo = vectors(count, 1, seed=2).flatten()
    order = pseudo.argsort().tolist()
    ratios = torch.stack(naive_ratios(features, order[:k], order[-k:], 0.3))
    expected = -ratios.log().mean() if form == "mean-log" else -ratios.mean().log()
    found = group_contrastive_loss(features, pseudo, fraction, 0.3, form)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_group_contrastive_by_hand():
    """Two pairs at right angles, cosine 1 within and 0 between: r = e^{1/τ} / (e^{1/τ} + 2) for each."""
    features = torch.tensor([[2.0, 0], [0, 3], [1, 0], [0, 0.5]])
    pseudo = torch.tensor([0.1, 0.9, 0.2, 0.8])
    expected = math.log1p(2 * math.exp(-1 / 0.5))
    for form in FORMS:
        assert group_contrastive_loss(features, pseudo, temperature=0.5, form=form).item() == pytest.approx(expected)


def test_the_two_published_forms_differ_and_jensen_orders_them():
    features, pseudo = vectors(8), torch.arange(8.0)
    mean_log, log_mean = (group_contrastive_loss(features, pseudo, form=form) for form in FORMS)
    assert mean_log > log_mean + 0.1
    assert group_contrastive_loss(features, pseudo) == mean_log


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("count", "k"), [(4, 2), (8, 2), (12, 3), (32, 8)])
def test_identical_features_give_log_one_plus_k(count, k, form):
    features = vectors(1).expand(count, -1)
    loss = group_contrastive_loss(features, torch.arange(float(count)), form=form)
    assert loss.item() == pytest.approx(math.log(1 + k), abs=1e-9)


def test_groups_are_the_lowest_and_the_highest_and_never_overlap():
    scores = torch.tensor([5.0, 1, 4, 2, 3, 9, 8, 7])
    low, high = contrastive_groups(scores)
    assert sorted(low.tolist()) == [1, 3] and sorted(high.tolist()) == [5, 6]
    for count, fraction in itertools.product(range(12), (0.1, 0.25, 0.5)):
        low, high = contrastive_groups(torch.rand(count), fraction)
        k = max(2, int(fraction * count))
        assert len(low) == len(high) == (k if 2 * k <= count else 0)
        assert not set(low.tolist()) & set(high.tolist())


@pytest.mark.parametrize("count", range(4))
def test_the_loss_is_zero_with_zero_gradient_where_no_groups_can_be_formed(count):
    features = vectors(count).requires_grad_()
    loss = group_contrastive_loss(features, torch.arange(float(count)))
    assert loss.item() == 0 and not torch.autograd.grad(loss, features)[0].any()


@pytest.mark.parametrize("form", FORMS)
def test_a_tiny_temperature_does_not_overflow(form):
    """e^{1000} is infinite in double precision; its logarithm is not. Own cosine 0, others 1 and 0: log(2 + e^{1/τ})."""
    features = torch.eye(2).repeat(2, 1).requires_grad_()
    pseudo = torch.arange(4.0)
    loss = group_contrastive_loss(features, pseudo, temperature=1e-3, form=form)
    assert loss.item() == pytest.approx(1000, rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(loss, features)[0]).all()
    same = group_contrastive_loss(torch.ones(4, 3), pseudo, temperature=1e-3, form=form)
    assert same.item() == pytest.approx(math.log(3), abs=1e-3)  # cosines are right to 1e-7, that is 1e-4 / τ


def test_wrong_settings_are_errors():
    for options in ({"form": "mean"}, {"fraction": 0.6}, {"fraction": 0.0}, {"temperature": 0.0}):
        with pytest.raises(
            ValueError, match=r"form must be|fraction must lie|temperature must be a finite number above 0"
        ):
            group_contrastive_loss(vectors(4), torch.arange(4.0), **options)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f, p: score_order_loss(p, p[:, None] - 1), r"better and worse must have one shape \(B,\)"),
        (lambda f, p: score_order_loss(p, p - 1, torch.zeros(3)), "margin must be one number"),
        (lambda f, p: score_order_loss(p, p - 1, 0, -1), "temperature must be a finite number above 0"),
        (lambda f, p: score_order_loss(p, p - 1, 0, math.nan), "temperature must be a finite number above 0"),
        (lambda f, p: relative_rank_loss(f, f[:1], f[:1] + 1), r"must have one shape \(B, D\)"),
        (lambda f, p: relative_rank_loss(*[f[:, :, None, None]] * 3), r"must have one shape \(B, D\)"),
        (lambda f, p: group_contrastive_loss(f, p[:6]), "pseudo_scores must be one a row of features; got 6 for 8"),
        (lambda f, p: group_contrastive_loss(f, p * math.nan), "NaN"),
        (lambda f, p: group_contrastive_loss(f[:, :, None], p), r"one shape \(B, D\)"),
    ],
)
def test_what_does_not_belong_together_is_refused_not_broadcast(call, says):
    with pytest.raises(ValueError, match=says):
        call(vectors(8), torch.arange(8.0))


# All of them


def losses_of(count: int, seed: int = 0):
    """name → (function of tensors, its inputs) for a batch of `count`."""
    a, b, c = (vectors(count, seed=seed + i) for i in range(3))
    pseudo = vectors(count, 1, seed=9).flatten()
    return {
        "rank": (relative_rank_loss, (a, b, c)),
        "order": (score_order_loss, (a[:, 0], b[:, 0])),
        "mean-log": (lambda f: group_contrastive_loss(f, pseudo, form="mean-log"), (a,)),
        "log-mean": (lambda f: group_contrastive_loss(f, pseudo, form="log-mean"), (a,)),
    }


@pytest.mark.parametrize("name", losses_of(1))
def test_gradients_are_those_of_finite_differences(name):
    function, inputs = losses_of(9)[name]
    assert gradcheck(function, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("count", range(10))
@pytest.mark.parametrize("name", losses_of(1))
@pytest.mark.parametrize("kind", ["different", "identical", "zero"])
def test_value_and_gradient_are_finite_for_every_batch_size(name, count, kind):
    """Also where features, and so distances, vanish, and for an empty batch."""
    function, inputs = losses_of(count)[name]
    if kind != "different":
        inputs = [torch.ones_like(tensor) * (kind == "identical") for tensor in inputs]
    inputs = [tensor.float().requires_grad_() for tensor in inputs]
    loss = function(*inputs)
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    assert loss.shape == () and torch.isfinite(loss) and loss >= 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert count or loss == 0


@pytest.mark.parametrize("name", ["rank", "order"])
def test_the_order_of_the_batch_does_not_matter(name):
    function, inputs = losses_of(9)[name]
    turn = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert function(*(t[turn] for t in inputs)).item() == pytest.approx(function(*inputs).item(), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_the_batch_does_not_matter_to_the_contrast(form):
    features, pseudo = vectors(12), vectors(12, 1, seed=3).flatten()
    turn = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    found = group_contrastive_loss(features[turn], pseudo[turn], form=form)
    assert found.item() == pytest.approx(group_contrastive_loss(features, pseudo, form=form).item(), rel=1e-12)
