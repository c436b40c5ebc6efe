"""Model files, the shipped ones among them: how they are written and read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..store import atomic_write, data_folder
from .backbones import backbone_model
from .quality import MOMENTS, QualityModel
from .small import small_model


def save_model(model: QualityModel, path: str | Path, about: dict, half: bool = False) -> None:
    """Write a model as safetensors: weights, source moments, and `about` (configuration, scores) as JSON.

    Args:
        about: what `load_source_model` builds the model from: crop, predicts, views, side, and widths of a `small_model` or
            backbone and hidden of a `backbone_model`.
        half: matrices in half precision, and of the symmetric `feature_cov` one triangle: a quarter of its size.
    """
    path = Path(path)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors = {name: _halved(value) if value.ndim > 1 else value for name, value in tensors.items()}
        if model.feature_cov is not None:
            tensors["feature_cov"] = tensors["feature_cov"][_triangle(model.feature_cov)]
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata={"about": json.dumps(about, sort_keys=True)})


def _halved(value: Tensor) -> Tensor:
    half = value.half()
    return half if half.isfinite().all() else value


def _triangle(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the upper triangle, the diagonal with it."""
    rows, columns = torch.triu_indices(*matrix.shape)
    return rows, columns


def read_about(path: str | Path) -> dict:
    """Configuration and scores that a model file carries.

    Raises:
        ValueError: not a file that `save_model` wrote; names it and says what is wrong.
    """
    return _read_model(Path(path))[0]


def load_source_model(source: int | str | Path = 0) -> QualityModel:
    """A source model, ready to score: in evaluation mode, gradients off.

    Args:
        source: 0, 1 or 2, the models shipped in data/models that were trained on TinyShift independently (0 is the default
            model of the book); "photographs", the shipped one of human opinions; or the path of a file that `save_model` wrote.

    Raises:
        FileNotFoundError: no such file; says how to train one.
        ValueError: not a file that `save_model` wrote; names it and says what is wrong.
    """
    shipped = data_folder() / "models" / (f"source-{source}" if isinstance(source, int) else source)
    path = shipped.with_name(f"{shipped.name}.safetensors")
    path = path if isinstance(source, int) or path.is_file() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no source model at '{path}'; `tta-iqa train` makes one")
    about, tensors = _read_model(path)
    try:
        known = {key: about[key] for key in ("crop", "predicts", "views", "side", "recipe") if key in about}
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and then replaced
            if "backbone" in about:
                model = backbone_model(about["backbone"], pretrained=False, hidden=about["hidden"], **known)
            else:
                model = small_model(about["widths"], **{"views": 8} | known)
        model.set_moments(**_whole_moments({name: tensors.pop(name) for name in MOMENTS if name in tensors}))
        model.load_state_dict({**model.state_dict(), **tensors})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # another architecture
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"'{path}' holds another model than `tta-iqa train` writes ({reason[:200]})") from error
    return model.eval().requires_grad_(False)


def _read_model(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What `save_model` wrote: about, tensors."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (KeyError, json.JSONDecodeError):
        raise ValueError(f"'{path}' is no model of `tta-iqa train`: it does not say how it was made") from None
    except (SafetensorError, RuntimeError) as error:
        with path.open("rb") as file:
            pointer = file.read(24) == b"version https://git-lfs."
        reason = "Git LFS has left a pointer in its place; `git lfs pull` fetches it" if pointer else error
        raise ValueError(f"'{path}' is no model, or only a part of one: {reason}") from None
    if not isinstance(about, dict):
        raise ValueError(f"'{path}' is no model of `tta-iqa train`: it does not say how it was made")
    return about, tensors


def _whole_moments(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """In single precision, the covariance from its triangle."""
    moments = {name: value.float() for name, value in kept.items()}
    if moments and moments["feature_cov"].ndim == 1:
        width = len(moments["feature_mean"])
        rows, columns = _triangle(cov := torch.empty(width, width))
        cov[rows, columns] = cov[columns, rows] = moments["feature_cov"]
        moments["feature_cov"] = cov
    return moments
