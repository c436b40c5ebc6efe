"""What the bridge to other packages does with any network: stand-ins of the same make, as pyiqa is no dependency."""

import random
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import mean_score, pictures, seeded, snapshot, tiny_mixed
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, batchnorm_layers
from tta_iqa_lib.models.foreign import from_pyiqa, from_torchmetrics, frozen_draws


class InferenceModel(nn.Module):
    """A metric as pyiqa makes it: the network inside, averages and switched-off gradients around it."""

    def __init__(self, net, lower_better=False, mode="NR", name="own", score_range="~0, ~10"):
        super().__init__()
        self.net, self.lower_better, self.metric_mode, self.metric_name = net, lower_better, mode, name
        self.score_range, self.seed = score_range, 7

    @torch.no_grad()
    def forward(self, images):
        return self.net(images)


InferenceModel.__module__ = "pyiqa.models.inference_model"


class Hiding(nn.Module):
    """Keeps its network in a list, and freezes BatchNorm in the middle of a pass, as some do."""

    def __init__(self):
        super().__init__()
        self.hidden = [tiny_mixed()]

    def fix_bn(self, network):
        for layer in batchnorm_layers(network).values():
            for parameter in layer.parameters():
                parameter.requires_grad = False

    def forward(self, images):
        scores = self.hidden[0](images)
        self.fix_bn(self.hidden[0])
        return scores


class Drawing(nn.Module):
    """Scores a crop that it draws anew in each pass, by any generator."""

    def __init__(self):
        super().__init__()
        self.net = tiny_mixed()

    def forward(self, images):
        y, x = np.random.randint(0, 16), random.randrange(16)
        return self.net(images[..., y : y + 16, x : x + 16]) + torch.rand(())


def test_a_part_hidden_in_a_list_adapts_like_any_other():
    metric, images = InferenceModel(Hiding()), pictures(4)
    hidden = metric.net.hidden[0].requires_grad_(False)
    before = snapshot(metric), snapshot(hidden)
    expected = metric(images).flatten()
    model = from_pyiqa(metric)
    assert len(batchnorm_layers(model)) == 2 and torch.equal(model(images), expected)
    result = tta.Adapter(metric, [mean_score], Batch(), steps=2, lr=0.1).run(images)
    assert result.skipped == {} and not torch.equal(result.scores, result.initial_scores)
    assert (snapshot(metric), snapshot(hidden)) == before and isinstance(metric.net.hidden, list)


def test_draws_at_random_are_the_same_in_each_pass_and_disturb_no_other():
    """Two passes over one picture differ in what was adapted alone; whoever draws outside goes on as before."""
    metric, images = InferenceModel(Drawing()), pictures(3)
    model = from_pyiqa(metric)
    np.random.seed(5), random.seed(5), torch.manual_seed(5)
    first = model(images)
    drawn = np.random.rand(), random.random(), torch.rand(())
    np.random.seed(5), random.seed(5), torch.manual_seed(5)
    assert drawn == (np.random.rand(), random.random(), torch.rand(()))
    assert torch.equal(model(images), first) and torch.equal(model(images[:1]), first[:1])
    assert not torch.equal(metric(images).flatten(), metric(images).flatten())  # it does draw
    with frozen_draws(7):
        assert torch.equal(metric(images).flatten(), first)  # the metric's own seed
    result = tta.Adapter(metric, gate=None, statistics=tta.Source()).run(images)
    assert torch.equal(result.scores, first)


def test_direction_range_and_name_are_the_metric_s():
    model = from_pyiqa(InferenceModel(tiny_mixed(), lower_better=True, name="worse"), crop=64, views=2)
    assert (model.higher_is_better, model.crop, model.views) == (False, 64, 2)
    assert model.predicts == "worse of pyiqa, from about 0 to 10"
    assert from_pyiqa(InferenceModel(tiny_mixed(), score_range=None)).predicts == "own of pyiqa"
    named = from_pyiqa(InferenceModel(tiny_mixed()), features="1")
    assert named(pictures(2), with_features=True)[1].shape == (2, 5 * 15 * 15)


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (InferenceModel(nn.Identity(), name="brisque"), "brisque is computed by formulas, without a network"),
        (InferenceModel(tiny_mixed(), mode="FR", name="lpips"), "lpips compares a picture with its reference"),
    ],
)
def test_what_cannot_adapt_is_refused_with_the_reason(metric, complaint):
    for wrap in (from_pyiqa, tta.Adapter):
        with pytest.raises(ValueError, match=complaint):
            wrap(metric)


def test_a_name_needs_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(
        ImportError, match=r"'hyperiqa' is a metric of pyiqa, .* pip install pyiqa .*forbids commercial"
    ):
        from_pyiqa("hyperiqa")
    own = ModuleType("pyiqa")
    own.list_models = lambda metric_mode=None: ["own"]
    own.create_metric = lambda name, **options: InferenceModel(tiny_mixed(), **options)
    monkeypatch.setitem(sys.modules, "pyiqa", own)
    assert from_pyiqa("own", lower_better=True).higher_is_better is False
    with pytest.raises(ValueError, match="pyiqa has no metric 'other'; without reference it has own"):
        from_pyiqa("other")
    with pytest.raises(TypeError, match="lower_better= is for create_metric"):
        from_pyiqa(own.create_metric("own"), lower_better=True)


def test_another_module_is_no_metric():
    with pytest.raises(ValueError, match="Linear is no metric of pyiqa: it has no network"):
        from_pyiqa(nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"Linear is not one of torchmetrics' learned .*ARNIQA, CLIPImage"):
        from_torchmetrics(nn.Linear(2, 1))
    with pytest.raises(TypeError, match="wrap it first"):
        tta.Adapter(nn.Linear(2, 1))


@pytest.mark.parametrize(("norm", "count"), [(nn.GroupNorm(2, 6), 1), (nn.Identity(), 0)])
def test_a_network_without_batchnorm_is_told_to_take_losses(norm, count):
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1)
        )
    )
    model, images = tta.wrap_model(net.eval()), pictures(4)
    says = f"pass losses=[…], and they adapt γ and β of its {count} normalisation layers"
    without = "it has no other normalisation layer; pass losses=[…] and params="
    begins = (
        "the model has no BatchNorm layer, whose statistics the default recipe adapts: it scores as the source does; "
    )
    with pytest.warns(UserWarning, match="^" + re.escape(begins + (says if count else without)) + "$") as told:
        plain = tta.Adapter(model).run(images)
    assert told[0].filename == __file__ and torch.equal(plain.scores, plain.source_scores)
    if count:
        result = tta.Adapter(model, [mean_score], steps=2, lr=0.1).run(images)
        assert not torch.equal(result.scores, result.source_scores)
