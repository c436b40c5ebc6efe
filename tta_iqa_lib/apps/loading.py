"""Which model is meant: a name, a file, a network of timm or pyiqa, a function of one's own."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from torch import nn

from ..models import QualityModel, ScoringModel, load_source_model, wrap_model
from ..models.backbones import read_weights
from ..models.foreign import from_pyiqa, pyiqa_metric

DEFAULT_MODEL = "photographs"


def load_model(name: str | Path = DEFAULT_MODEL, weights: str | Path | None = None) -> ScoringModel:
    """A model ready to score: in evaluation mode, gradients off, on the CPU.

    Args:
        name: "photographs", the shipped model of human opinions; "source-0", "source-1" or "source-2", those of TinyShift;
            the path of a file that `tta-iqa train` wrote; "timm:NAME", a network with one output, which needs `weights`;
            "pyiqa:NAME", a metric of the package pyiqa; "package.module:function", called without arguments, which gives a
            quality model or a module that `wrap_model` takes. The folder that one works in is searched for the package, too.
        weights: a file (.safetensors, or of torch.save) of named tensors that are loaded into the network.

    Raises:
        FileNotFoundError, ValueError: no such model, or weights that do not fit; says what to do.
    """
    name = str(name)
    family, _, rest = name.partition(":")
    if family == "timm":
        model = _from_timm(rest, weights)
    elif family == "pyiqa":
        model = _from_pyiqa(rest, weights)
    elif re.fullmatch(r"[A-Za-z_][\w.]+:[A-Za-z_]\w*", name) and not os.path.exists(name):
        model = call_by_name(name)
        if isinstance(model, nn.Module) and not isinstance(model, ScoringModel):
            model = wrap_model(model)
        if not isinstance(model, ScoringModel):
            raise ValueError(f"'{name}' gave a {type(model).__name__}, not a quality model")
        if weights:
            _load(model, weights, name)
    else:
        if weights:
            raise ValueError(
                f"--weights goes with timm:NAME, pyiqa:NAME and package.module:function; '{name}' has its own"
            )
        model = load_source_model(name)
    return model.cpu().eval().requires_grad_(False)


def import_by_name(name: str):
    """The object "package.module:name". The folder that one works in is searched, too.

    Raises:
        ValueError: no such module, one that fails to import, or no such name in it.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever somebody's module raises when it is imported
        raise ValueError(f"cannot get '{name}': {type(error).__name__}: {error}") from error


def call_by_name(name: str, *arguments):
    """What the function "package.module:function" gives.

    Raises:
        ValueError: as `import_by_name`, or it fails.
    """
    function = import_by_name(name)
    try:
        return function(*arguments)
    except Exception as error:
        raise ValueError(f"'{name}' failed: {type(error).__name__}: {error}") from error


def _from_timm(name: str, weights: str | Path | None) -> QualityModel:
    """A regressor that somebody trained with timm: one output, before it the pooled features."""
    import timm

    if not timm.is_model(name):
        close = timm.list_models(f"*{name}*")[:5] or ["see timm.list_models()"]
        raise ValueError(f"no network '{name}' in timm ({', '.join(close)})")
    if not weights:
        raise ValueError(
            f"timm's '{name}' was trained on classes, not on quality: --weights FILE names those of your regressor "
            "(num_classes=1), and `tta-iqa train --backbone` makes one"
        )
    network: Any = timm.create_model(name, pretrained=False, num_classes=1)
    _load(network, weights, f"timm:{name}")
    regressor = network.get_classifier()
    if not isinstance(regressor, nn.Linear):
        raise ValueError(f"timm's '{name}' does not end in a linear layer; build it in a function of your own")
    network.reset_classifier(0)
    config: dict = vars(network)["pretrained_cfg"]  # timm declares it nowhere
    about = {"crop": config["input_size"][-1], "predicts": f"what '{weights}' was trained on"}
    return QualityModel(network, regressor, config["mean"], config["std"], **about)


def _from_pyiqa(name: str, weights: str | Path | None) -> ScoringModel:
    """The weights go by the names that pyiqa gives them."""
    try:
        metric = pyiqa_metric(name)
    except ImportError as error:
        raise ValueError(f"--model pyiqa:{name}: {error}") from None
    for own in ("num_crop", "test_sample"):  # HyperIQA, TReS, MANIQA cut crops themselves; here pictures come in crops
        if hasattr(metric.net, own):
            setattr(metric.net, own, 1)
    if weights:
        _load(metric.net, weights, f"pyiqa:{name}")
    return from_pyiqa(metric)


def _load(module: nn.Module, weights: str | Path, name: str) -> None:
    """All of the weights into all of the module, by name; into the network inside, where their names are its."""
    state = read_weights(weights)
    inner = getattr(module, "module", None)
    target = inner if isinstance(inner, nn.Module) and set(state) <= set(inner.state_dict()) else module
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"'{weights}' does not fit '{name}': {reason[:300]}") from None
