"""What the chapters say of differences, held against data/results: the sign of each, and whether its interval holds zero.

A sentence about a difference names it here. So whoever measures anew learns which sentences no longer stand.
"""

from functools import cache

import numpy as np
import pytest

from tta_iqa_lib.experiments import analysis

results = cache(analysis.read_results)

# chapter, stored results, method, minus, targets, batch size, and where the 95 % interval lies: above, below, or about zero
DIFFERENCES = [
    (6, "headline", "rank", "source", "headline", 32, "above"),
    (6, "headline", "rank", "bn-blend", "headline", 32, "about"),
    (6, "faults", "fault-box-blur", "published", "target/dusk", 32, "about"),
    (7, "headline", "gc", "bn-blend", "headline", 32, "about"),
    (7, "headline", "gc", "bn-blend", "headline", 8, "below"),
    (7, "faults", "fault-log-mean", "published", "target/dusk", 32, "about"),
    (9, "recipe", "recipe", "source", "headline", 32, "above"),
    (9, "recipe", "recipe", "source", "headline", 8, "above"),
    (9, "levers", "lever-all layers", "recipe-open", "headline", 32, "below"),
    (9, "levers", "lever-all layers", "recipe-open", "headline", 8, "below"),
    (9, "recipe", "bn-batch", "source", "target/unseen", 32, "below"),
    (9, "recipe", "bn-batch", "source", "target/unseen", 8, "below"),
    (9, "recipe", "recipe", "source", "target/unseen", 32, "about"),
    (9, "recipe", "recipe", "source", "target/unseen", 8, "about"),
    (9, "fair", "rank+gc", "source", "source/test", 32, "about"),
    (9, "fair", "bn-batch", "source", "source/test", 32, "about"),
    (11, "gate-one-sided", "views", "source", "source/test-large", 32, "above"),
    (12, "faults", "fault-train-mode", "published", "headline", 32, "above"),
    (12, "faults", "fault-train-mode", "published", "target/dusk", 32, "about"),
    (12, "faults", "fault-train-mode", "published", "target/dusk", 8, "about"),
    (12, "faults", "fault-no-zero-grad", "published", "headline", 32, "about"),
    (12, "faults", "fault-box-blur", "published", "headline", 32, "about"),
    (12, "gc-off", "fault-gc-off-after-three", "published", "headline", 32, "below"),
    (12, "gc-off", "control-gc-off-after-three", "published-control", "headline", 32, "below"),
    (12, "fair", "published", "published-control", "headline", 32, "below"),
]


@pytest.mark.parametrize(("chapter", "name", "method", "minus", "targets", "size", "where"), DIFFERENCES)
def test_an_interval_lies_where_the_chapter_says(chapter, name, method, minus, targets, size, where):
    found = analysis.stored_difference(results(name), method, minus, targets, size)
    lies = "above" if found.low > 0 else "below" if found.high < 0 else "about"
    assert lies == where, f"chapter {chapter} says otherwise: {method} minus {minus} is {found.signed()}"


def srcc(name: str, method: str, target: str, size: int) -> float:
    return analysis.mean_srcc(results(name), method, target, size)


def test_a_fixed_share_does_better_at_dusk_and_shrink_where_nothing_has_shifted():
    """Chapter 5: at every size, and in batches of one, two and four."""
    for size in results("ema")["about"]["grid"]["batch_sizes"]:
        assert srcc("alpha", "alpha-0.3", "target/dusk", size) > srcc("ema", "bn-blend", "target/dusk", size)
    for size in (1, 2, 4):
        assert srcc("alpha", "alpha-0.3", "source/test", size) < srcc("ema", "bn-blend", "source/test", size) - 0.02


def test_with_four_images_batch_moments_gain_nothing_and_the_recipe_keeps_most():
    """Chapter 9, predict first."""
    at_dusk, at_home = (
        srcc("ema", "bn-batch", t, 4) - srcc("ema", "source", t, 4) for t in ("target/dusk", "source/test")
    )
    assert abs(at_dusk) < 0.01 and at_home < -0.1
    shuffled = [srcc("sizes-shuffled", "recipe", "target/dusk", size) for size in (4, 32)]
    of_four, of_32 = (value - srcc("sizes-shuffled", "source", "target/dusk", 32) for value in shuffled)
    assert of_four > 0.6 * of_32 > 0


def test_in_large_batches_the_recipe_loses_on_unseen_distortions():
    """Chapter 9, where it fails."""
    recipe, source = (srcc("sizes-shuffled", method, "target/unseen", 64) for method in ("recipe", "source"))
    assert recipe < source - 0.03


def test_steps_of_the_score_order_hardly_move_the_ranking_and_then_lower_it():
    """Chapter 8: neither at dusk nor on unshifted images does it rise."""
    for target in ("target/dusk", "source/test"):
        one, three, twenty = (
            srcc("steps", f"steps-{n}", target, 32) - srcc("steps", "steps-0", target, 32) for n in (1, 3, 20)
        )
        assert abs(one) < 0.003 and -0.01 < three < 0.001 and twenty < -0.03


def test_a_cured_stream_gains_where_the_source_is_worse_than_the_blend():
    """Chapter 10: in the mean its gains in physical haze are no way back to the source."""
    target = "target/haze-physical"
    blend = srcc("streams", "bn-blend", target, 32)
    assert blend > srcc("streams", "source", target, 32) + 0.05
    for method in ("order+anchor-1", "order+restart-1", "order+restart-8"):
        assert srcc("streams", f"stream-{method}", target, 32) > blend + 0.05


def test_a_restart_spares_the_stream_its_fall_and_costs_it_its_peak():
    """Chapter 10, physical haze; on unshifted images and unseen distortions none is called for."""
    plain, restarted = (
        {
            (place, n): srcc("streams", f"stream-{kind}-{n}", place, 32)
            for place in results("streams")["truth"]
            for n in (1, 2, 4, 8)
        }
        for kind in ("order", "order+restart")
    )
    foggy = "target/haze-physical"
    assert plain[foggy, 2] > plain[foggy, 8] + 0.05
    assert plain[foggy, 2] > restarted[foggy, 2] + 0.03 and restarted[foggy, 8] > plain[foggy, 8] + 0.03
    assert all(plain[test] == restarted[test] for test in plain if test[0] in ("source/test", "target/unseen"))


def test_mending_lowers_the_score_on_ten_of_the_eleven_shifted_targets():
    """Chapter 12: in ten rows of its last figure both other versions lie to the right of the mended one."""
    fair = results("fair")
    right = [
        min(srcc("fair", m, t, 32) for m in ("reference", "bn-batch")) > srcc("fair", "published", t, 32)
        for t in analysis.headline_targets(fair)
    ]
    assert (sum(right), len(right)) == (10, 11)


def test_on_opinions_the_recipe_gains_on_test_targets_of_every_kind_and_all_re_measuring_on_none():
    """Welcome, chapters 9 to 11: found on both scales; with an interval above zero on the larger one."""
    of = {
        name: {(x["method"], x["on"], x["batch_size"]): x for x in results(name)["summary"] if x["minus"] == "source"}
        for name in ("opinions-medium", "opinions-reduced")
    }
    medium, reduced = of.values()
    for kind in ("test: database", "test: light", "test: none"):
        assert medium["recipe", kind, 32]["low"] > 0 < reduced["recipe", kind, 32]["value"], kind
        assert medium["bn-batch", kind, 32]["value"] < 0, kind
    assert reduced["recipe", "test: database", 32]["low"] > 0 < medium["recipe", "test: shifted", 8]["low"]
    assert medium["bn-batch", "test: database", 32]["high"] < 0
    owned_up_to = medium["bn-batch", "live → agiqa, as it is", 32], medium["bn-first", "live → agiqa, as it is", 32]
    assert all(x["high"] < 0 for x in owned_up_to) and medium["recipe", "live → agiqa, as it is", 32]["value"] < 0


def test_light_moves_the_first_layer_of_a_pretrained_network_far_and_the_last_ones_little():
    """Chapter 9, where a shift sits: haze and darkness a hundred times what chance would do, casts and low contrast ten times."""
    truth = results("opinions-medium")["truth"]
    for target, about in truth.items():
        light = target.rsplit(", ", 1)[1]
        by_layer = np.median(np.max(list(about["shift"].values()), -1), 0)
        if light in ("haze", "dark"):
            assert by_layer[0] > 100 > 10 > by_layer[-3:].max(), target
        elif light in ("cast", "contrast"):
            assert 100 > by_layer[0] > 10 > by_layer[-3:].max(), target


def test_of_the_rivals_on_opinions_only_actmad_gains_and_single_images_lose():
    """Chapter 9."""
    lines = results("opinions-reduced-others")["summary"]
    found = {(x["method"], x["on"]): x for x in lines if x["minus"] == "source"}
    assert found["actmad (thrifty)", "test: database"]["low"] > 0 > found["lean", "test: none"]["high"]
    for method in ("order, frozen (thrifty)", "ssa (thrifty)", "psc (thrifty)"):
        for kind in ("database", "light", "none"):
            assert found[method, f"test: {kind}"]["low"] < 0 < found[method, f"test: {kind}"]["high"]


def test_the_published_procedure_on_opinions_gains_by_its_steps_in_other_light_alone():
    """Chapter 9: against the source it cannot be told from zero anywhere."""
    lines = [x for x in results("opinions-reduced-published")["summary"] if x["on"].startswith("test: ")]
    assert all(x["low"] < 0 < x["high"] for x in lines if x["minus"] == "source")
    gains = {(x["method"], x["on"]) for x in lines if x["minus"] != "source" and x["low"] > 0}
    assert gains == {("published", "test: light"), ("published", "test: shifted")}


def test_in_batches_of_eight_the_published_pair_adds_nothing_to_any_statistics():
    """Chapter 9: every interval holds zero, on each of the three grounds and kinds of targets."""
    found = [x for x in results("opinions-reduced-small-batches")["summary"] if x["method"].startswith("rank+gc")]
    controls = {"rank+gc, frozen (thrifty)": "source", "rank+gc, first layers (thrifty)": "bn-first"}
    own = [
        x for x in found if x["minus"] == controls.get(x["method"], "normalisations") and x["on"].startswith("test: ")
    ]
    assert len(own) == 3 * 4 and all(x["low"] < 0 < x["high"] for x in own)


def test_of_the_published_pair_on_opinions_the_group_contrastive_loss_alone_adds_as_much():
    """Chapter 9: on both grounds it lies above zero in other light; relative rank cannot be told from zero anywhere."""
    lines = results("opinions-reduced-singles")["summary"]
    found = {(x["method"], x["minus"], x["on"]): x for x in lines}
    for ground, control in (("frozen", "source"), ("first layers", "bn-first")):
        for kind in ("database", "light", "none"):
            rank = found[f"rank, {ground} (thrifty)", control, f"test: {kind}"]
            assert rank["low"] < 0 < rank["high"], (ground, kind)
        assert found[f"gc, {ground} (thrifty)", control, "test: light"]["low"] > 0
