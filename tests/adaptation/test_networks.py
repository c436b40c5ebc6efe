"""Laws of the loop on networks that people use, with random weights: torchvision's and timm's."""

import copy
from functools import cache

import pytest
import timm
import torch
import torchvision
from helpers import METHOD, pictures, snapshot
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, Blend, First, Source, Stateless, adapt_batch, batchnorm_layers
from tta_iqa_lib.adaptation.state import State

TIMM = ("tf_efficientnet_lite0", "mobilenetv3_small_100", "regnetx_002", "densenet121", "convnext_atto")
TORCHVISION = ("mobilenet_v3_small", "efficientnet_b0", "inception_v3", "resnet18", "resnet50")
NAMES = [f"timm {name}" for name in TIMM] + [f"torchvision {name}" for name in TORCHVISION] + ["timm vit"]
WITH_BATCHNORM = [name for name in NAMES if "vit" not in name and "convnext" not in name]


@cache
def network(name: str) -> nn.Module:
    """With one output, moments that are not those of a fresh layer, and no dropout that training mode would draw."""
    library, name = name.split()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "vit":
            options = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
            net = timm.models.vision_transformer.VisionTransformer(**options, num_classes=1)
        elif library == "timm":
            net = timm.create_model(name, num_classes=1)
        else:
            options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
            net = getattr(torchvision.models, name)(num_classes=1, **options)
        for layer in batchnorm_layers(net).values():
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "drop_prob"):
            part.drop_prob = 0.0
        if type(part).__name__ == "StochasticDepth":
            part.p = 0.0
    return net.eval()


def sgd(tensors):
    """Adam divides a gradient by its own size, and so would blow up the rounding of gradients that vanish."""
    return torch.optim.SGD(tensors, lr=0.01)


def images_for(name: str, count: int = 4) -> torch.Tensor:
    return pictures(count, 96 if "inception" in name else 64)


def wrapped(name: str, net: nn.Module | None = None) -> nn.Module:
    """The network, or another one of its kind, behind the library's interface; its last linear layer gives the features."""
    net = net or network(name)
    linear = [part for part, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    return tta.wrap_model(net, features=linear)


@pytest.mark.parametrize("name", NAMES)
def test_source_scores_are_the_modules_own_bit_for_bit(name):
    """An activation that a BatchNorm subclass carries used to be lost, without adaptation, too."""
    net, images = network(name), images_for(name)
    before = snapshot(net)
    with torch.no_grad():
        own = net(images).flatten()
    result = tta.Adapter(wrapped(name), losses=(), statistics=Source()).run(images)
    assert torch.equal(result.source_scores, own) and torch.equal(result.scores, own)
    assert snapshot(net) == before


@pytest.mark.parametrize("name", WITH_BATCHNORM)
def test_all_weight_on_the_batch_is_training_mode(name):
    net, images = network(name), images_for(name)
    training = copy.deepcopy(net).double().train()
    network_64 = Stateless(copy.deepcopy(net).double())
    with torch.no_grad():
        expected = training(images.double())
        assert torch.allclose(network_64(images.double(), Batch()).scores, expected, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(expected, net(images).double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", WITH_BATCHNORM)
def test_folded_episodes_equal_single_ones(name):
    """Scores, traces, shifts and skipped losses of two episodes in one pass, in double precision; the module is as it was."""
    net, images = copy.deepcopy(network(name)).double(), images_for(name, 4).double()
    model = wrapped(name, net)
    before = snapshot(net)
    recipe = tta.Adapter(model, METHOD, Blend(0.5), steps=2, gate=lambda result: "adapted", optimizer=sgd).recipe
    together, _ = adapt_batch(model, State(), images, recipe, 2)
    for found, part in zip(together, images.split(2), strict=True):
        (alone,), _ = adapt_batch(model, State(), part, recipe)
        assert torch.allclose(found.scores, alone.scores, rtol=1e-6, atol=1e-6)
        assert [step["loss"] for step in found.trace] == pytest.approx([step["loss"] for step in alone.trace], rel=1e-6)
        assert found.skipped.keys() == alone.skipped.keys() == {"GroupContrastive"}
        for one, other in zip(found.shift.values(), alone.shift.values(), strict=True):
            assert one[0] == pytest.approx(other[0], rel=1e-6) and one[1] == pytest.approx(other[1], rel=1e-6)
    assert snapshot(net) == before


@pytest.mark.parametrize("name", NAMES)
def test_only_gamma_and_beta_move_and_the_scores_with_them(name):
    """LayerNorm networks, too."""
    model, images = wrapped(name), images_for(name)
    rule = Blend(0.5) if name in WITH_BATCHNORM else Source()
    result = tta.Adapter(model, METHOD, rule, lr=0.01).run(images)
    assert result.scores.isfinite().all() and len(result.trace) == 3
    assert not torch.equal(result.scores, result.initial_scores)


@pytest.mark.parametrize("name", ["torchvision resnet18", "timm tf_efficientnet_lite0"])
def test_the_first_layers_are_the_first_of_the_pass(name):
    net, images = network(name), images_for(name)
    stateless = Stateless(net)
    with torch.no_grad():
        found = stateless(images, First(Batch(), 0.2)).used
    layers, changed = list(found), [n for n, m in found.items() if not torch.equal(m.mean.flatten(), _mean(net, n))]
    assert changed == layers[: len(changed)] and len(changed) == -(-len(layers) // 5)


def _mean(net: nn.Module, name: str) -> torch.Tensor:
    return net.get_submodule(name).running_mean


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["torchvision resnet18", "timm tf_efficientnet_lite0", "timm mobilenetv3_small_100"])
def test_half_precision_models_work_with_every_recipe(name, kind):
    """Moments are single precision, γ and β are adapted in it; how near the scores come is tested on a smaller network."""
    images, model = images_for(name).to(kind), wrapped(name, copy.deepcopy(network(name)).to(kind))
    for losses, rule in (((), None), ((), Batch()), (METHOD, Source()), ((tta.ScoreOrder(),), Blend(0.5))):
        result = tta.Adapter(model, losses, rule, gate=None).run(images)
        assert result.scores.isfinite().all() and result.scores.dtype == kind and result.skipped == {}
    _, state = adapt_batch(model, State(), images, tta.Adapter(model, METHOD, Batch()).recipe)
    assert {part.dtype for moments in state.moments.values() for part in moments} == {torch.float32}
    assert {parameter.dtype for parameter in state.params.values()} == {torch.float32}
