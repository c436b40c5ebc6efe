"""Training on opinions: what it sees, when it stops, how it goes on."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import pictures, seeded
from torch import nn

from tta_iqa_lib.imaging.crops import grid_crops
from tta_iqa_lib.metrics import srcc
from tta_iqa_lib.models import fine_tuning
from tta_iqa_lib.models.fine_tuning import (
    Settings,
    crop_and_mirror_each,
    fine_tune,
    opinion_loss,
    score_pictures,
)
from tta_iqa_lib.models.quality import QualityModel
from tta_iqa_lib.models.small import SmallResNet, small_model

TINY = "test_efficientnet"  # timm's smallest: 360,000 weights


def test_each_picture_is_cropped_at_a_place_of_its_own_and_mirrored_half_of_the_time():
    """Native pixels; the last row and column included."""
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    batch = torch.stack([rows, columns, rows * 0]).float().expand(400, -1, -1, -1)
    found = seeded(lambda: crop_and_mirror_each(batch, 3))
    places, mirrored = set(), 0
    for square in found:
        turned = bool(square[1, 0, 0] > square[1, 0, 2])
        mirrored += turned
        square = square.flip(2) if turned else square
        y, x = square[:2, 0, 0].int().tolist()
        assert torch.equal(square, batch[0, :, y : y + 3, x : x + 3])
        places.add((y, x))
    assert places == {(y, x) for y in range(3) for x in range(5)}
    assert 150 < mirrored < 250


def test_the_loss_asks_for_the_height_and_for_the_order():
    """Zero for the opinions themselves; a constant error costs Huber's part alone, a reversed order both."""
    opinions = torch.tensor([-1.0, 0.5, 0.2, 1.3])
    assert opinion_loss(opinions, opinions).item() == pytest.approx(0, abs=1e-6)
    assert opinion_loss(opinions + 0.4, opinions).item() == pytest.approx(0.4**2 / 2, abs=1e-6)
    scores = torch.tensor([0.3, -0.7, 0.9, 0.1])
    expected = 1 - np.corrcoef(scores, opinions)[0, 1] + nn.functional.huber_loss(scores, opinions).item()
    assert opinion_loss(scores, opinions).item() == pytest.approx(expected, abs=1e-5)
    assert opinion_loss(torch.zeros(4), opinions).isfinite()


@torch.no_grad()
def test_a_picture_s_score_is_the_mean_over_its_crops_and_views():
    model = seeded(lambda: small_model((4, 6), crop=24, views=2)).train()
    images = (pictures(5, 40) * 255).byte()
    found = score_pictures(model, images, crops=4, batch_size=2)
    assert model.training
    model.eval()
    for image, score in zip(images.float() / 255, found, strict=True):
        squares = grid_crops(image, 24, 4)
        assert score == pytest.approx((model(squares) + model(squares.flip(3))).mean().item() / 2, abs=1e-5)


# The training itself


class WithDropout(QualityModel):
    def __init__(self):
        super().__init__(SmallResNet((8, 16)), nn.Sequential(nn.Dropout(0.3), nn.Linear(16, 1)), crop=24, views=2)


def bright(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and opinions from 20 to 80 that love contrast."""
    images = (pictures(count, 28, seed) * 255).byte()
    opinions = images.float().std((1, 2, 3))
    return images, 20 + 60 * (opinions - opinions.min()) / (opinions.max() - opinions.min())


SETTINGS = Settings(side=28, epochs=4, batch_size=8, lr=3e-3, head_lr=1e-2)


def train(settings=SETTINGS, **options):
    model = seeded(WithDropout)
    curve = fine_tune(model, *bright(40, 1), bright(30, 2), settings, progress=False, **options)
    return model, curve


def test_a_short_training_learns_opinions_in_their_own_unit():
    model, curve = train(dataclasses.replace(SETTINGS, epochs=12, patience=12))
    images, opinions = bright(60, 3)
    scores = score_pictures(model, images)
    assert srcc(scores, opinions) > 0.8
    assert (scores - opinions).abs().mean() < opinions.std() < 3 * scores.std() and not model.training
    assert len(curve) == 12 and curve[-1].loss < curve[0].loss


@pytest.mark.parametrize("stop", [3, 5, 12], ids=["in the first epoch", "after an epoch", "in the third"])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, stop):
    """Bit for bit, dropout and all; no finished step is done again."""
    whole, curve = train()
    file, steps = tmp_path / "x.checkpoint", []

    def kill(done):
        steps.append(done)
        if done == stop:
            raise KeyboardInterrupt

    clock = iter(range(0, 10**6, 61))  # a minute passes with every step
    monkeypatch.setattr(fine_tuning.time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=file, after_step=kill)
    resumed, same_curve = train(checkpoint=file, after_step=steps.append)
    assert steps == list(range(1, 21)) and same_curve == curve
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    other = dataclasses.replace(SETTINGS, lr=1e-3)
    with pytest.raises(ValueError, match=r"x\.checkpoint' is of another training \(lr differs\)"):
        train(other, checkpoint=file)
    images, opinions = bright(40, 1)
    with pytest.raises(ValueError, match=r"another training \(data differs\)"):  # as many pictures, other opinions
        fine_tune(seeded(WithDropout), images, opinions.flip(0), bright(30, 2), SETTINGS, file, progress=False)


def test_between_epochs_the_state_is_kept_once_a_minute(tmp_path, monkeypatch):
    """No more often: a step is short, and the state of a large network is not."""
    clock, kept = iter(range(0, 10**6, 25)), []
    monkeypatch.setattr(fine_tuning.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(fine_tuning.torch, "save", lambda state, path: (kept.append(state["done"]), path.touch()))
    train(dataclasses.replace(SETTINGS, epochs=1, batch_size=4), checkpoint=tmp_path / "x")
    assert kept[-1] == 10 and 2 < len(kept) < 6


@pytest.mark.parametrize(
    ("values", "best", "last"),
    [((0.1, 0.5, 0.4, 0.5, 0.9, 0.9), 2, 4), ((float("nan"), 0.1, 0.2, 0.3, 0.3, 0.2), 4, 6)],
    ids=["stops", "runs to its end"],
)
def test_it_stops_without_a_better_validation_and_keeps_the_best_epoch(monkeypatch, values, best, last):
    """A patience of two epochs. An epoch that only equals the best is not better."""
    told, states = iter(values), []
    monkeypatch.setattr(fine_tuning, "srcc", lambda *_: next(told))
    model = seeded(WithDropout)
    keep = model.features[0].weight
    settings = dataclasses.replace(SETTINGS, epochs=6, patience=2)
    options = {"progress": False, "after_step": lambda _: states.append(keep.detach().clone())}
    curve = fine_tune(model, *bright(40, 1), bright(30, 2), settings, **options)
    assert len(curve) == last and len(states) == 5 * last
    assert torch.equal(model.features[0].weight, states[5 * best - 1])


def test_the_seed_alone_decides():
    torch.manual_seed(3)
    a, _ = train()
    torch.manual_seed(4)
    b, _ = train()
    c, _ = train(dataclasses.replace(SETTINGS, seed=1))
    assert torch.equal(a.features[0].weight, b.features[0].weight)
    assert not torch.equal(a.features[0].weight, c.features[0].weight)


def test_too_few_images_or_opinions_that_are_all_alike_are_an_error():
    images, opinions = bright(8, 1)
    for wrong in ((images[:3], opinions[:3]), (images, opinions * 0 + 50)):
        with pytest.raises(ValueError, match=r"cannot train on \d images in batches of 8"):
            fine_tune(seeded(WithDropout), *wrong, bright(8, 2), SETTINGS, progress=False)
