"""Learned metrics of other packages, ready to adapt: pyiqa's and torchmetrics'.

Neither package is needed by this one; pyiqa's licence forbids commercial use. What is wrapped is the network inside of a
metric: the metric itself averages, switches gradients off, and keeps a state. The user's metric is never changed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .wrapping import WrappedModel, wrap_model


def from_pyiqa(
    metric: Any,
    features: str | None = None,
    crop: int | None = None,
    views: int = 1,
    predicts: str | None = None,
    **options,
) -> WrappedModel:
    """A no-reference metric of pyiqa as a model that adapts: scores, direction, normalisation are its own.

    Example::

        adapter = Adapter(from_pyiqa("hyperiqa"))  # or Adapter(pyiqa.create_metric("hyperiqa"))

    Crops that the network draws at random are the same in every pass. Networks without BatchNorm adapt by the γ and β of
    their LayerNorm or GroupNorm layers, with losses.

    Args:
        metric: its name, or what `pyiqa.create_metric` returned.
        features: name of the layer that gives them; None: what goes into the last linear layer, or a CLIP's picture half.
        crop, views, predicts: as in `wrap_model`; None: any size, and the name and range that pyiqa gives.
        options: for `pyiqa.create_metric`, with a name.

    Raises:
        ImportError: a name, and pyiqa is not installed.
        ValueError: no such metric; one that needs a reference picture; one without a network, such as BRISQUE.
    """
    if isinstance(metric, str):
        metric = pyiqa_metric(metric, **options)
    elif options:
        raise TypeError(f"{next(iter(options))}= is for create_metric, and the metric is there already")
    name, network = getattr(metric, "metric_name", type(metric).__name__), getattr(metric, "net", None)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} is no metric of pyiqa: it has no network .net")
    if getattr(metric, "metric_mode", "NR") != "NR":
        raise ValueError(
            f"{name} compares a picture with its reference: only metrics without reference are scored blindly"
        )
    network = _registered(network)
    _refuse_without_network(network, name)
    bounds = [float(number) for number in re.findall(r"-?\d+\.?\d*", metric.score_range or "")]
    scale = f", from about {bounds[0]:g} to {bounds[1]:g}" if len(bounds) == 2 else ""
    return wrap_model(
        Network(network, seed=getattr(metric, "seed", 0)),
        _prefixed(features) or _picture_half(network),
        higher_is_better=not metric.lower_better,
        crop=crop,
        views=views,
        predicts=predicts or f"{name} of pyiqa{scale}",
    )


def from_torchmetrics(
    metric: Any, features: str | None = None, crop: int | None = None, views: int = 1
) -> WrappedModel:
    """A learned no-reference metric of torchmetrics, ARNIQA or CLIP-IQA, as a model that adapts.

    Args:
        metric: a `torchmetrics.image.ARNIQA`, or a `torchmetrics.multimodal.CLIPImageQualityAssessment` of one prompt. Images
            are in [0, 1], whatever range it was made for.
        features, crop, views: as in `from_pyiqa`.

    Raises:
        ValueError: another metric; several prompts; a CLIP whose preprocessing leaves PyTorch.
    """
    name = type(metric).__name__
    if name == "ARNIQA":
        network, call = metric.model, lambda model, images: model(images, normalize=True)
    elif name == "CLIPImageQualityAssessment":
        if len(metric.prompts_name) != 1:
            raise ValueError(
                f"{name} has {len(metric.prompts_name)} prompts: a model gives one score; make it with one"
            )
        if metric.model_name_or_path != "clip_iqa":
            raise ValueError(
                f"{name}: '{metric.model_name_or_path}' prepares pictures outside of PyTorch; use 'clip_iqa'"
            )
        network, call = metric.model, _ClipIqa(metric.anchors)
    else:
        raise ValueError(
            f"{name} is not one of torchmetrics' learned no-reference metrics: ARNIQA, CLIPImageQualityAssessment"
        )
    layer = _prefixed(features) or _picture_half(network)
    return wrap_model(Network(network, call), layer, crop=crop, views=views, predicts=f"{name} of torchmetrics")


class Network(nn.Module):
    """The network inside of a metric, with its draws at random frozen: the same in each pass.

    Args:
        net: the network.
        call: how it scores images (B, 3, H, W) in [0, 1].
        seed: of its draws.
    """

    def __init__(self, net: nn.Module, call: Callable | None = None, seed: int = 0):
        super().__init__()
        self.net, self.call, self.seed = net, call, seed

    def forward(self, images: Tensor):
        """(B, 3, H, W) in [0, 1] → what the network gives."""
        with frozen_draws(self.seed), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            return self.net(images) if self.call is None else self.call(self.net, images)


_DRAWING = RLock()


@contextmanager
def frozen_draws(seed: int) -> Iterator[None]:
    """Within the block Python, NumPy and PyTorch (on the CPU) draw from this seed; afterwards, as if nothing had been drawn.

    These generators belong to the process: one block runs at a time.
    """
    with _DRAWING:
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


class _ClipIqa:
    """The probability that a picture resembles the first prompt of a pair more than the second."""

    def __init__(self, anchors: Tensor):
        self.anchors = anchors
        self.mean, self.std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, model: Any, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        found = model.encode_image((images - mean) / std, pos_embedding=False).float()
        found = found / found.norm(p=2, dim=-1, keepdim=True)
        return (100 * found @ self.anchors.t()).softmax(-1)[:, 0]


def pyiqa_metric(name: str, **options) -> Any:
    """What `pyiqa.create_metric` returns.

    Raises:
        ImportError: pyiqa is not installed.
        ValueError: it has no such metric.
    """
    try:
        pyiqa = import_module("pyiqa")
    except ImportError:
        raise ImportError(
            f"'{name}' is a metric of pyiqa, which is not installed: pip install pyiqa (its licence forbids commercial use)"
        ) from None
    known = pyiqa.list_models(metric_mode="NR")
    if name not in pyiqa.list_models():
        raise ValueError(f"pyiqa has no metric '{name}'; without reference it has {', '.join(known)}")
    return pyiqa.create_metric(name, **options)


def _registered(module: nn.Module) -> nn.Module:
    """The module, or a copy of it that shares its tensors, in which all of it can be seen and adapted.

    Some networks hide a part in a list, so that it is not saved; some switch off the gradients of their BatchNorm layers in
    the middle of a pass (`fix_bn`), which have been cut off from the user's by then, and belong to the adaptation.
    """
    children = {name: None if part is None else _registered(part) for name, part in module._modules.items()}
    lists = {
        name: nn.ModuleList(map(_registered, value))
        for name, value in vars(module).items()
        if isinstance(value, list) and value and all(isinstance(part, nn.Module) for part in value)
    }
    same = all(children[name] is part for name, part in module._modules.items())
    if same and not lists and not hasattr(module, "fix_bn"):
        return module
    copy = object.__new__(type(module))
    copy.__dict__ = {name: value for name, value in vars(module).items() if name not in lists}
    copy.__dict__["_modules"] = children | lists
    if hasattr(module, "fix_bn"):
        copy.__dict__["fix_bn"] = _nothing
    return copy


def _nothing(*_args) -> None:
    pass


def _refuse_without_network(network: nn.Module, name: str) -> None:
    if not any(isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)) for part in network.modules()):
        raise ValueError(
            f"{name} is computed by formulas, without a network: it has no normalisation layer, and nothing to adapt"
        )


def _prefixed(features: str | None) -> str | None:
    return None if features is None else f"net.{features}"


def _picture_half(network: nn.Module) -> str | None:
    """Of a CLIP, whose text half runs last: the name of the other one."""
    return next((f"net.{name}" for name, _ in network.named_modules() if name.rpartition(".")[2] == "visual"), None)
