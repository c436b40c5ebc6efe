import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import optimize

from tta_iqa_lib import metrics
from tta_iqa_lib.metrics import (
    ConstantInputWarning,
    bootstrap,
    evaluate,
    evenly_spaced,
    krcc,
    plcc,
    plcc_logistic,
    resamples,
    srcc,
)


def ranks(values) -> np.ndarray:
    """Mean ranks by counting: how many are smaller, and half of those that are equal."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


def pearson(a, b) -> float:
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())


def kendall(a, b) -> float:
    """τ-b over all pairs, one by one."""
    concordant, only_a, only_b = 0, 0, 0
    for i in range(len(a)):
        for j in range(i):
            p, q = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            concordant, only_a, only_b = concordant + p * q, only_a + p * p, only_b + q * q
    return concordant / math.sqrt(only_a * only_b)


def with_ties(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """40 related pairs of small whole numbers."""
    generator = np.random.default_rng(seed)
    a = generator.integers(0, 7, 40)
    return a.astype(float), (a + generator.integers(0, 6, 40)).astype(float)


ORACLES = [(srcc, lambda a, b: pearson(ranks(a), ranks(b))), (plcc, pearson), (krcc, kendall)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("metric", "oracle"), ORACLES, ids=["srcc", "plcc", "krcc"])
def test_correlation_with_ties_equals_counting_by_hand(metric, oracle, seed):
    a, b = with_ties(seed)
    assert metric(a, b) == pytest.approx(oracle(a, b), abs=1e-12)


@pytest.mark.parametrize("metric", [srcc, plcc, krcc])
def test_tensor_list_and_array_give_the_same_number(metric):
    a, b = with_ties(0)
    tensor = torch.tensor(a, requires_grad=True)
    assert metric(tensor, b.tolist()) == metric(a, b)


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_logistic])
@pytest.mark.parametrize("pair", [([2.0, 2, 2], [1.0, 2, 3]), ([1.0, 2, 3], [2.0, 2, 2])])
def test_constant_input_gives_nan_and_a_warning(metric, pair):
    with pytest.warns(ConstantInputWarning, match="undefined"):
        assert math.isnan(metric(*pair))


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_logistic])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_gives_nan(metric, bad):
    assert math.isnan(metric([1.0, bad, 3, 4, 5], [1.0, 2, 3, 4, 5]))


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_logistic, evaluate])
def test_lengths_that_differ_are_an_error(metric):
    with pytest.raises(ValueError, match="3 predictions for 2 targets"):
        metric([1.0, 2, 3], [1.0, 2])


@pytest.mark.parametrize("metric", [srcc, plcc, krcc])
def test_scores_must_be_a_vector_of_two_or_more(metric):
    with pytest.raises(ValueError, match=r"shape \(4, 1\)"):
        metric(torch.rand(4, 1), torch.rand(4))
    with pytest.raises(ValueError, match="at least two"):
        metric([1.0], [1.0])


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_logistic])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64], ids=str)
def test_every_type_of_number_is_taken_as_it_is(metric, dtype):
    """Small whole numbers are exact in all of them; in a vector, or in a list of single ones."""
    a, b = with_ties(1)
    tensor = torch.tensor(a).to(dtype)
    assert metric(tensor, b) == metric(list(tensor), b) == metric(a, b)


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_logistic, evaluate])
@pytest.mark.parametrize(
    "bad",
    [["a", "b"], ["1", "2"], [1.0, None], [1 + 2j, 0j], torch.ones(2) * 1j, [[1.0], [1.0, 2.0]], "12", {"a": 1}, None],
)
def test_what_is_no_number_is_an_error_that_says_which_argument_and_what(metric, bad):
    with pytest.raises(ValueError, match="predictions must be real numbers, one per image; got "):
        metric(bad, [1.0, 2.0])
    with pytest.raises(ValueError, match="targets must be real numbers"):
        metric([1.0, 2.0], bad)


@pytest.mark.parametrize("metric", [srcc, plcc, krcc, plcc_logistic, evaluate])
def test_a_column_is_not_a_vector_and_nothing_is_too_little(metric):
    for pred, target, name in ((torch.rand(4, 1), torch.rand(4), "predictions"), ([1, 2], [[1], [2]], "targets")):
        with pytest.raises(
            ValueError, match=rf"{name}: expected one score per image, shape \(N,\); got shape \(\d, 1\)"
        ):
            metric(pred, target)
    with pytest.raises(ValueError, match="at least two images; got 0"):
        metric([], torch.empty(0))


def sigmoid_relation(sign: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-6, 6, 80)
    return x, 30 + sign * 40 / (1 + np.exp(-2 * x)) + np.random.default_rng(0).normal(0, 0.5, 80)


def test_logistic_fit_straightens_a_sigmoid():
    pred, target = sigmoid_relation()
    assert plcc_logistic(pred, target) > 0.999 > 0.97 > plcc(pred, target)


def test_logistic_fit_keeps_the_sign_of_a_scorer_that_is_wrong_way_round():
    pred, target = sigmoid_relation(-1)
    assert plcc_logistic(pred, target) < -0.999 < -0.97 < plcc(pred, target)


@pytest.mark.parametrize("far", [1e4, -1e4, 1e8])
def test_one_prediction_far_out_does_not_lead_the_logistic_fit_astray(far):
    """Such as a metric that blows up on a flat image: the curve is there to flatten it."""
    pred, target = sigmoid_relation()
    found = plcc_logistic(np.append(pred, far), np.append(target, target.mean()))
    assert found > 0.95 > 0.2 > abs(plcc(np.append(pred, far), np.append(target, target.mean())))


@pytest.mark.parametrize(("seed", "size"), [(0, 60), (5, 60), (3, 100), (6, 100), (7, 300)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_no_logistic_curve_of_a_fine_grid_leaves_less_over_than_the_fit(seed, size, scale):
    """Of 40 × 40 centres and widths, heights by linear least squares; a bow, waves and noise have several optima."""
    generator = np.random.default_rng(seed)
    pred, noise = generator.normal(size=(2, size))
    for target in (pred**2 + 0.1 * noise, np.sin(3 * pred) + 0.2 * noise, noise):
        curves = [
            metrics.logistic(pred, 1, 0, centre, width)
            for centre in np.quantile(pred, np.linspace(0, 1, 40))
            for width in np.geomspace(0.01, 30, 40)
        ]
        best = max(abs(pearson(curve, target)) for curve in curves if curve.std() > 1e-9)
        assert abs(plcc_logistic(scale * pred, target)) > best - 2e-3


def test_logistic_fit_that_ends_worse_than_a_straight_line_is_not_used(monkeypatch):
    monkeypatch.setattr(
        optimize, "curve_fit", lambda f, x, y, start, **_: ([y.min(), y.max(), x.mean(), x.std()], None)
    )
    pred, target = sigmoid_relation()
    with pytest.warns(UserWarning, match="raw correlation"):
        assert plcc_logistic(pred, target) == plcc(pred, target)


def test_scipy_is_imported_only_where_it_is_used():
    """Half a second of every start of the command line."""
    code = "import sys, tta_iqa_lib.metrics; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scipy", "sklearn", "skimage", "matplotlib", "piq", "torchvision"} & set(run.stdout.split())


def test_logistic_fit_that_fails_returns_the_raw_correlation_and_warns(monkeypatch):
    def no_fit(*_args, **_kwargs):
        raise RuntimeError("maxfev")

    monkeypatch.setattr(optimize, "curve_fit", no_fit)
    a, b = with_ties(0)
    with pytest.warns(UserWarning, match="raw correlation"):
        assert plcc_logistic(a, b) == plcc(a, b)


def test_three_images_are_too_few_for_the_logistic_fit_but_not_an_error():
    with pytest.warns(UserWarning, match="raw correlation"):
        assert evaluate([1.0, 2, 3], [1.0, 3, 2], count=5).plcc_logistic == pytest.approx(0.5)


def test_intervals_cover_the_true_correlation():
    """60 bivariate normal samples with ρ = .6: a nominal 95 % interval covers in at least 85 % of them.

    With an honest 95 %, fewer than 51 of 60 would come about once in 700 runs; percentile intervals of 60 images
    cover a little less often than they should. They must not buy coverage with width either.
    """
    rho, trials, size = 0.6, 60, 60
    truth = {"srcc": 6 / math.pi * math.asin(rho / 2), "plcc": rho, "krcc": 2 / math.pi * math.asin(rho)}
    generator = np.random.default_rng(1)
    hits, widths = dict.fromkeys(truth, 0), []
    for _ in range(trials):
        x, e = generator.normal(size=(2, size))
        found = evaluate(x, rho * x + math.sqrt(1 - rho**2) * e, count=100)
        for name, true in truth.items():
            interval = getattr(found, name)
            assert interval.low <= interval.value <= interval.high
            hits[name] += interval.low <= true <= interval.high
            widths.append(interval.high - interval.low)
    assert min(hits.values()) >= 51
    assert np.mean(widths) < 0.45  # the normal theory says .33 for PLCC


def test_copies_of_one_content_widen_the_interval_only_if_contents_are_drawn():
    """Eight copies of each of 12 images hold no more than 12 images do: drawing images pretends to √8 more certainty."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=12)
    y = x + generator.normal(size=12)
    labels = np.repeat(np.arange(12), 8)
    few = evaluate(x, y, count=300)
    by_image = evaluate(x[labels], y[labels], count=300)
    by_content = evaluate(x[labels], y[labels], groups=[f"photo {i}" for i in labels], count=300)
    assert by_content.plcc.value == by_image.plcc.value

    def width(interval):
        return interval.high - interval.low

    for name in ("srcc", "plcc", "krcc"):
        assert width(getattr(by_content, name)) > 2 * width(getattr(by_image, name))
        assert width(getattr(by_content, name)) == pytest.approx(width(getattr(few, name)), rel=0.35)


def test_group_resamples_hold_whole_groups():
    labels = np.array(list("aabbbcdddd"))
    drawn = list(resamples(10, labels, count=50))
    sizes = {label: int((labels == label).sum()) for label in "abcd"}
    for index in drawn:
        for label in "abcd":
            rows = index[labels[index] == label]
            times = len(rows) / sizes[label]
            assert sorted(rows) == sorted(np.flatnonzero(labels == label).tolist() * int(times))
        assert sum((labels[index] == label).sum() / sizes[label] for label in "abcd") == 4
    assert len({tuple(index) for index in drawn}) > 20


def test_group_labels_of_the_wrong_length_are_an_error():
    with pytest.raises(ValueError, match=r"groups: labels of shape \(3,\) for 4 images"):
        evaluate([1.0, 2, 3, 4], [1.0, 2, 4, 3], groups=[0, 0, 1])


def test_a_long_argument_is_told_in_sixty_characters():
    """Whatever was passed: one line, its end cut off where it is too long."""
    for text, told in (("a" * 58, f"'{'a' * 58}'"), ("a" * 59, f"'{'a' * 56}…"), ("a\n  b", "'a\\n b'")):
        with pytest.raises(ValueError) as caught:
            srcc(text, [1, 2])
        assert str(caught.value) == f"predictions must be real numbers, one per image; got {told}"


def test_an_interval_is_of_a_thousand_draws_from_seed_zero_unless_said():
    pred, target = np.random.default_rng(5).normal(size=(2, 12))
    assert evaluate(pred, target) == evaluate(pred, target, count=1000, seed=0)
    assert evaluate(pred, target).srcc == bootstrap(lambda rows: srcc(pred[rows], target[rows]), 12)
    assert sum(1 for _ in resamples(3)) == 1000


def test_the_seed_decides_the_interval():
    a, b = with_ties(0)
    assert evaluate(a, b, count=50, seed=3) == evaluate(a, b, count=50, seed=3)
    assert evaluate(a, b, count=50, seed=3).srcc != evaluate(a, b, count=50, seed=4).srcc


@pytest.mark.filterwarnings("error::tta_iqa_lib.metrics.ConstantInputWarning")
def test_draws_without_a_correlation_are_left_out_of_the_interval():
    """One score that differs from the rest is missing from a third of the draws; that is no reason to warn or to fail."""
    interval = bootstrap(lambda i: srcc(np.eye(6)[0][i], np.arange(6.0)[i]), 6, count=60)
    assert -1 <= interval.low <= interval.high <= 1


def test_a_constant_scorer_has_no_interval():
    with pytest.warns(ConstantInputWarning):
        found = evaluate([1.0] * 5, [1.0, 2, 3, 4, 5], count=5)
    assert all(math.isnan(v) for v in (found.srcc.value, found.srcc.low, found.srcc.high, found.plcc_logistic))


def test_a_score_that_is_not_finite_leaves_no_interval():
    """Though a third of the draws would miss it and be finite."""
    found = evaluate([1.0, math.nan, 3, 4, 5, 6], [1.0, 2, 3, 5, 4, 6], count=30)
    assert all(math.isnan(v) for v in (found.plcc.value, found.plcc.low, found.plcc.high))


def test_interval_bounds_are_the_outer_fortieths_of_the_draws():
    """The statistic "first index drawn" of one draw each: quantiles .025 and .975 of a known list."""
    firsts = [index[0] for index in resamples(1000, count=200)]
    interval = bootstrap(lambda index: float(index[0]), 1000, count=200)
    assert interval.value == 0
    assert (interval.low, interval.high) == (np.quantile(firsts, 0.025), np.quantile(firsts, 0.975))


def test_an_interval_prints_value_and_bounds():
    assert str(metrics.Interval(0.1234, -0.5, 0.756)) == "0.12 [-0.50, 0.76]"


@pytest.mark.parametrize(("total", "count"), [(10, 4), (10, 10), (10, 25), (1200, 128)])
def test_an_even_selection_has_both_ends_no_row_twice_and_equal_steps(total, count):
    rows = evenly_spaced(total, count)
    assert rows.dtype.kind == "i"  # they are indices
    assert len(rows) == min(total, count) and (rows[0], rows[-1]) == (0, total - 1)
    steps = np.diff(rows)
    assert steps.min() >= 1 and steps.max() - steps.min() <= 1


def test_a_difference_is_written_with_its_sign_and_never_as_minus_zero():
    """Three digits, or four where three would hide on which side of zero an end lies; turned round it is the other's."""
    interval = metrics.Interval(0.0301, 0.0209, 0.0413)
    assert interval.signed() == "+0.030 [+0.021, +0.041]" and (-interval).signed() == "-0.030 [-0.041, -0.021]"
    assert metrics.Interval(0.0012, -0.0003, 0.0031).signed() == "+0.0012 [-0.0003, +0.0031]"
    assert metrics.Interval(-0.0001, -0.002, 0.001).signed() == "+0.000 [-0.002, +0.001]"
    assert metrics.Interval(-0.0, 0.0, -0.0).signed() == "+0.000 [+0.000, +0.000]"
    assert metrics.Interval(0.001, 0.0005, 0.002).signed() == "+0.001 [+0.001, +0.002]"  # rounds away from zero
