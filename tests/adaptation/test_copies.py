import pytest
import torch
from helpers import pictures, plain

from tta_iqa_lib.adaptation.copies import Ladder, Pair, copy_makers
from tta_iqa_lib.adaptation.losses import GroupContrastive, RelativeRank, ScoreOrder
from tta_iqa_lib.adaptation.protocols import as_loss
from tta_iqa_lib.imaging.distortions import distort


def brightness(images: torch.Tensor) -> torch.Tensor:
    """A scorer that can be computed in one's head: dark falls by .34·m from mild to severe, haze rises by .34·(.85 − m)."""
    return images.mean((1, 2, 3))


def check_pair(copies, images, kinds):
    for name, severity in (("mild", 0.3), ("severe", 0.7)):
        assert torch.equal(copies[name], distort(images, kinds, severity))


@pytest.mark.parametrize("kinds", [("dark", "haze"), ("haze", "dark")])
def test_the_pair_with_the_largest_gap_is_chosen_for_each_image(kinds):
    """m = .2: haze (.22 against .07); m = .8: dark (.27 against .02)."""
    images = plain(0.2, 0.8)
    copies = Pair(kinds)(images, brightness, torch.Generator())
    assert set(copies) == {"mild", "severe"}
    check_pair(copies, images, ["haze", "dark"])


def test_the_signed_gap_takes_only_what_the_source_orders_rightly():
    """Haze makes images brighter, the severe one more so: the wrong way round, however large the gap."""
    images = plain(0.2, 0.8)
    check_pair(Pair(("haze", "dark"), choose="signed")(images, brightness, torch.Generator()), images, ["dark", "dark"])


def test_random_pairs_follow_the_generator_and_mild_fits_severe():
    levels = torch.linspace(0.1, 0.8, 24)
    images = plain(*levels.tolist())
    pair = Pair(("haze", "dark"), choose="random")
    copies = pair(images, None, torch.Generator().manual_seed(0))  # and no scorer is asked
    darker = copies["mild"][:, 0, 0, 0] < levels
    check_pair(copies, images, ["dark" if d else "haze" for d in darker])
    assert 4 < darker.sum() < 20
    again = pair(images, None, torch.Generator().manual_seed(0))
    assert torch.equal(again["mild"], copies["mild"])
    assert not torch.equal(pair(images, None, torch.Generator().manual_seed(1))["mild"], copies["mild"])


def test_copies_follow_the_generator():
    images, pair = pictures(3), Pair(("noise",))
    first, again, other = (pair(images, brightness, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("options", [{"choose": "best"}, {"mild": 0.7, "severe": 0.7}, {"severe": 1.5}, {"kinds": ()}])
def test_an_impossible_pair_is_an_error(options):
    with pytest.raises(
        ValueError, match=r"choose must|severe must|need 0 ≤ mild < severe ≤ 1|kinds must be some of blur"
    ):
        Pair(**options)


def test_a_ladder_makes_every_severity_of_the_kind_that_the_source_orders_best():
    """The pair's two severities give the pair's copies; more of them lie in between, of the same kind."""
    images = plain(0.2, 0.8)
    ladder = Ladder(("haze", "dark"), (0.3, 0.5, 0.7))
    seen = []
    copies = ladder(images, lambda x: seen.append(x) or brightness(x), torch.Generator())
    asked = [distort(images, kind, severity) for severity in (0.3, 0.7) for kind in ladder.kinds]
    assert torch.equal(torch.cat(seen), torch.cat(asked))  # the mildest and the most severe
    assert tuple(copies) == ladder.names == ("rung1", "rung2", "rung3")
    for view, severity in zip(copies.values(), ladder.severities, strict=True):
        assert torch.equal(view, distort(images, ["dark", "dark"], severity))
    by_gap = Ladder(("haze", "dark"), (0.3, 0.7), choose="gap")(images, brightness, torch.Generator())
    pair = Pair(("haze", "dark"))(images, brightness, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(by_gap.values(), pair.values(), strict=True))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"choose": "best"}, "choose must be"),
        ({"severities": (0.5,)}, "two or more severities"),
        ({"severities": (0.2, 0.2)}, "two or more severities that rise"),
        ({"severities": (0.2, 1.1)}, r"^severities must lie in"),
        ({"kinds": ()}, "kinds must be some of blur"),
    ],
)
def test_an_impossible_ladder_is_an_error(options, reason):
    with pytest.raises(ValueError, match=reason):
        Ladder(**options)


def test_equal_makers_of_copies_run_once():
    pair, other = Pair(), Pair(mild=0.1)
    losses = [RelativeRank(), ScoreOrder(), GroupContrastive(), RelativeRank(copies=other), lambda context: 0]
    assert copy_makers([as_loss(loss) for loss in losses]) == [pair, other]


@pytest.mark.parametrize("kinds", [["blur", "dark"], ("blur", "dark")])
def test_kinds_may_be_any_sequence_or_one_name(kinds):
    assert Pair(kinds) == Pair(("blur", "dark")) and hash(Pair(kinds)) == hash(Pair(("blur", "dark")))
    assert Pair("blur") == Pair(("blur",))
    with pytest.raises(ValueError, match=r"kinds must be some of .*; got \('bluur',\)"):
        Pair("bluur")


def test_copies_may_be_compared_on_the_middle_of_the_images():
    """The scorer sees half the sides; the copies are whole. The middle is dark: haze makes the largest gap there."""
    images, seen = plain(0.8), []
    images[..., 2:6, 2:6] = 0.2
    pair = Pair(("haze", "dark"), choose_on=0.5)
    copies = pair(images, lambda x: seen.append(x) or brightness(x), torch.Generator())
    assert [part.shape for part in seen] == [(4, 3, 4, 4)]
    check_pair(copies, images, ["haze"])
    check_pair(Pair(("haze", "dark"))(images, brightness, torch.Generator()), images, ["dark"])
    with pytest.raises(ValueError, match="choose_on"):
        Pair(choose_on=0.0)


def test_the_old_name_of_copies_still_works_and_says_so():
    for loss in (RelativeRank, ScoreOrder):
        with pytest.warns(DeprecationWarning, match="copies="):
            assert loss(views=Pair(mild=0.1)) == loss(copies=Pair(mild=0.1))
