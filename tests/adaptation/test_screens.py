"""Images that show nothing: which they are, and that a batch is as good without them as if they had never been there."""

import pytest
import torch
from helpers import pictures, plain, tiny_model

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Adapter, Batch, Blank, Ema, Shrink, Source
from tta_iqa_lib.datasets.tinyshift import tinyshift

SETTINGS = [
    {"statistics": Batch()},
    {"statistics": Shrink(4), "match_source": True, "views": 2},
    {"losses": (tta.RelativeRank(),), "steps": 1},
]


def noise(count: int, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def with_blank() -> tuple[torch.Tensor, torch.Tensor]:
    """Nine images, and which of them show nothing: a black, a white and a noisy one among six pictures."""
    six = pictures(6)
    black, white, noisy = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32), noise(1)
    images = torch.cat([black, six[:2], noisy, six[2:], white])
    return images, torch.tensor([1, 0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.bool)


def test_one_colour_and_noise_show_nothing_and_pictures_do():
    images, blank = with_blank()
    assert Blank()(images).tolist() == blank.tolist()
    assert Blank()(plain(0.0, 0.2, 0.999)).all()
    assert Blank()(torch.zeros(2, 3, 1, 1)).all() and not Blank()(pictures(3)[..., :1]).any()
    assert Blank()(noise(2, 500)[..., :1]).all()  # one column: neighbours above and below alone


@pytest.mark.parametrize("kind", ["haze", "dark", "contrast", "noise", "blur", "jpeg"])
def test_a_damaged_picture_still_shows_something(kind):
    images = tinyshift("source/test")[0][:40]
    assert not Blank()(tta.distort(images, kind, 1.0, torch.Generator().manual_seed(0))).any()


def test_both_limits_are_settings():
    faint, grainy = 0.5 + 0.1 * (pictures(2) - 0.5), 0.5 + 0.1 * (noise(2) - 0.5)
    assert not Blank()(faint).any() and Blank(contrast=0.1)(faint).all()
    assert not Blank()(grainy).any() and Blank(noise=0.01)(grainy).all()
    for name in ("contrast", "noise"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            Blank(**{name: -1.0})


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_others_are_scored_as_if_they_were_alone(settings):
    model, (images, blank) = tiny_model(), with_blank()
    result = Adapter(model, **settings, screen=Blank()).run(images)
    alone = Adapter(model, **settings).run(images[~blank])
    assert torch.equal(result.scores[~blank], alone.scores)
    assert torch.equal(result.initial_scores[~blank], alone.initial_scores)
    source = Adapter(model, statistics=Source(), views=settings.get("views")).run(images)
    torch.testing.assert_close(result.scores[blank], source.scores[blank])
    torch.testing.assert_close(result.source_scores, source.scores)
    assert result.skipped["images"] == "3 of 9 images show nothing: they have the source's scores"
    assert (result.pictures, result.decision) == (9, "adapted")
    assert not torch.equal(Adapter(model, **settings).run(images).scores[~blank], alone.scores)


def test_where_nothing_is_left_out_nothing_changes():
    model, images = tiny_model(), pictures(6)
    result = Adapter(model, statistics=Batch(), screen=Blank()).run(images)
    assert torch.equal(result.scores, Adapter(model, statistics=Batch())(images)) and not result.skipped


def test_a_batch_that_shows_nothing_is_left_to_the_source():
    model, images = tiny_model(), plain(0.0, 0.5, 1.0)
    result = Adapter(model, statistics=Batch(), screen=Blank()).run(images)
    torch.testing.assert_close(result.scores, model(images).detach())
    assert result.decision == "source" and result.skipped["images"].startswith("3 of 3")


def test_a_picture_is_left_out_as_a_whole_or_not_at_all():
    """A crop of clear sky is blank; its picture is not."""
    three = pictures(6).clone()
    three[1] = 0.5
    images = torch.cat([three, plain(0.0, 0.0).new_zeros(2, 3, 32, 32)])
    model = tiny_model()
    adapter = Adapter(model, statistics=Batch(), crops_per_image=2, screen=Blank())
    result = adapter.run(images)
    assert torch.equal(result.scores[:6], Adapter(model, statistics=Batch(), crops_per_image=2)(three))
    assert result.skipped["images"].startswith("2 of 8") and result.pictures == 4


def test_a_stream_carries_on_what_pictures_taught_it():
    model, (images, blank) = tiny_model(), with_blank()
    screened, plain_one = Adapter(model, statistics=Ema(0.5), screen=Blank()), Adapter(model, statistics=Ema(0.5))
    with screened.online(), plain_one.online():
        first = screened(images)[~blank], plain_one(images[~blank])
        assert torch.equal(screened(noise(4)), Adapter(model, statistics=Source())(noise(4)))  # teaches nothing
        second = screened(pictures(4, seed=1)), plain_one(pictures(4, seed=1))
    for one, other in (first, second):
        assert torch.equal(one, other)


@pytest.mark.parametrize("together", [1, 3])
def test_episodes_in_one_pass_are_screened_too(together):
    model, (images, blank) = tiny_model(), with_blank()
    images = torch.cat([pictures(3, seed=4), images, pictures(6, seed=5)])
    blank = torch.cat([torch.zeros(3, dtype=torch.bool), blank, torch.zeros(6, dtype=torch.bool)])
    adapter = Adapter(model, statistics=Batch(), episodes_per_pass=together, screen=Blank())
    found = adapter.predict(images, 3, shuffle=False)
    expected = torch.cat([Adapter(model, statistics=Batch(), screen=Blank())(part) for part in images.split(3)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    told = adapter.run(images, groups=[i // 3 for i in range(18)]).skipped
    assert list(told) == ["1: images", "2: images", "3: images"]


@pytest.mark.parametrize(
    "screen", [lambda images: images.mean((1, 2, 3)), lambda images: [False] * 4, lambda images: images[0, 0, 0] > 0]
)
def test_a_screen_that_gives_something_else_is_an_error(screen):
    with pytest.raises(TypeError, match="screen must give one truth value an image"):
        Adapter(tiny_model(), statistics=Batch(), screen=screen)(pictures(4))


def test_what_is_no_screen_is_an_error():
    with pytest.raises(TypeError, match="screen must be a function of the images"):
        Adapter(tiny_model(), screen=0.1)


def test_crops_of_a_picture_are_neighbours_in_their_group_not_in_the_batch():
    model, four, blank = tiny_model(), pictures(4), torch.zeros(2, 3, 32, 32)
    images = torch.stack([four[0], blank[0], four[1], blank[1], four[2], four[3]])
    options = {"statistics": Batch(), "crops_per_image": 2, "screen": Blank()}
    for together in (1, 2):
        labels = [0, 1, 0, 1, 2, 2]
        result = Adapter(model, **options, episodes_per_pass=together).run(images, groups=labels)
        assert list(result.skipped) == ["1: images"], together
