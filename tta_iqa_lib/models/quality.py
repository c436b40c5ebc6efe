"""A blind quality model: normalise → features f → regressor g (chapter 3).

`model(images)` takes RGB in [0, 1], shape (B, 3, H, W), and gives scores (B,); input normalisation lives inside, so it
cannot be forgotten. `model(images, with_features=True)` gives (scores (B,), features (B, D)).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..store import atomic_write
from .features import run_with_features

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOMENTS = ("feature_mean", "feature_cov", "score_mean", "score_std")


class ScoringModel(nn.Module):
    """What every scorer of the library shares: the direction of its scores, the crop it likes, the source's moments.

    Attributes:
        higher_is_better: the direction of the scores.
        crop: height and width of the crops it was trained on, or None (any size).
        predicts: what the scores mean, in words.
        views: how many of the `imaging.symmetries` it was trained to score alike: 1, 2 (mirrored) or 8 (turned, too).
        side: pixels of the shorter side of the pictures it was trained on, or None (any size); larger ones are reduced to it.
        feature_mean: (D,), mean of the features over the source data, or None; as the three that follow.
        feature_cov: (D, D), their covariance.
        score_mean: (), mean of the scores over the source data.
        score_std: (), their standard deviation.
    """

    feature_mean: Tensor | None
    feature_cov: Tensor | None
    score_mean: Tensor | None
    score_std: Tensor | None

    def __init__(
        self,
        higher_is_better: bool = True,
        crop: int | None = None,
        predicts: str = "quality",
        views: int = 1,
        side: int | None = None,
    ):
        super().__init__()
        self.higher_is_better, self.predicts = higher_is_better, predicts
        self.crop, self.views, self.side = crop, views, side
        for name in MOMENTS:
            self.register_buffer(name, None)

    def set_moments(self, **moments: Tensor) -> None:
        """Remember the source's moments; names as in `MOMENTS`."""
        for name, value in moments.items():
            if name not in MOMENTS:
                raise KeyError(f"no source moment '{name}'")
            setattr(self, name, value.detach().clone())

    def forward(self, images: Tensor, with_features: bool = False):
        """(B, 3, H, W), RGB in [0, 1] → scores (B,); with features, (scores, features (B, D))."""
        raise NotImplementedError


class QualityModel(ScoringModel):
    """Your own two halves: `features` maps images to (B, D), `regressor` maps (B, D) to (B, 1) or (B,). Chapter 3, eq-model.

    Args:
        features, regressor: the modules f and g.
        mean, std: per-channel normalisation of RGB in [0, 1].
        about: higher_is_better, crop, predicts, views, side; see `ScoringModel`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: nn.Module,
        regressor: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **about,
    ):
        super().__init__(**about)
        self.features, self.regressor = features, regressor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, with_features: bool = False):
        """(B, 3, H, W) in [0, 1] → scores (B,); with features: (scores (B,), features (B, D))."""
        features = self.features((images - self.mean) / self.std).flatten(1)
        scores = self.regressor(features).reshape(images.shape[0])
        return (scores, features) if with_features else scores


class Block(nn.Module):
    """Two 3×3 convolutions with BatchNorm and a shortcut [he2016resnet]."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C′, H/s, W/s) for a block of C′ channels and stride s."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Sequential):
    """A ResNet of a few hundred thousand parameters: stem and one block a stage, global average. → (B, widths[-1])."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128)):
        stem = [nn.Conv2d(3, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        blocks = [
            Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip((widths[0], *widths), widths, strict=False))
        ]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small_model(widths: Sequence[int] = (16, 32, 64, 128), **about) -> QualityModel:
    """The book's model, untrained: `SmallResNet` and a linear regressor."""
    return QualityModel(SmallResNet(widths), nn.Linear(widths[-1], 1), **about)


class WrappedModel(ScoringModel):
    """Any module behind the library's interface; made by `wrap_model`."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, layer: str | None, score: Callable | None, mean, std, **about):
        super().__init__(**about)
        self.module, self.layer, self.score = module, layer, score
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor, with_features: bool = False):
        """(B, 3, H, W) in [0, 1] → scores (B,); with features: (scores (B,), features (B, D))."""
        inputs = (images - self.mean) / self.std
        if not with_features:
            return self._read(self.module(inputs), images.shape[0])
        output, features = run_with_features(self.module, self.layer, inputs)
        return self._read(output, images.shape[0]), features

    def _read(self, output, count: int) -> Tensor:
        if self.score is not None:
            output = self.score(output)
        while not isinstance(output, Tensor):
            if isinstance(output, dict):
                known = [key for key in ("score", "scores", "quality", "mos", "pred") if key in output]
                if not known and len(output) != 1:
                    raise ValueError(f"which of {list(output)} is the score? Pass score=lambda output: output[…]")
                output = output[known[0]] if known else next(iter(output.values()))
            elif isinstance(output, (tuple, list)) and output:
                output = output[0]
            else:
                raise ValueError(f"cannot read a score from {type(output).__name__}; pass score=…")
        if output.numel() != count:
            raise ValueError(
                f"expected one score per image; the module gave {tuple(output.shape)} for {count}; pass score=…"
            )
        return output.reshape(count)


def wrap_model(
    module: nn.Module,
    features: str | None = None,
    score: Callable | None = None,
    normalise: tuple[Sequence[float], Sequence[float]] | None = None,
    higher_is_better: bool = True,
    crop: int | None = None,
    views: int = 1,
    predicts: str = "quality",
    side: int | None = None,
) -> WrappedModel:
    """Put any quality model behind the library's interface. The module is used, not copied, and never changed. Chapter 11.

    Args:
        module: takes images (B, 3, H, W), gives (B,), (B, 1), a tuple whose first part is that, or a dictionary.
        features: name of the layer whose output, flattened to (B, D), serves as features (see `named_modules()`). None: what
            goes into the last linear layer, which is found when it runs.
        score: reads the scores from the module's output, where the rules above do not fit.
        normalise: (mean, std) per channel that the module expects; None: it takes RGB in [0, 1] as it is.
        higher_is_better: False for scores such as DMOS.
        crop, views, predicts, side: what it was trained on, see `ScoringModel`.

    Raises:
        ValueError: no layer of that name; views other than 1, 2 or 8.
    """
    names = [name for name, _ in module.named_modules() if name]
    if features is not None and features not in names:
        raise ValueError(
            f"no layer '{features}' in the module; pass features= one of {', '.join(names[-12:])} (last of {len(names)})"
        )
    if views not in (1, 2, 8):
        raise ValueError(f"views must be 1, 2 or 8; got {views!r}")
    mean, std = normalise or ((0.0,), (1.0,))
    like = next((p for p in module.parameters()), torch.zeros(()))
    mean, std = (torch.as_tensor(v, dtype=like.dtype, device=like.device).view(1, -1, 1, 1) for v in (mean, std))
    about = {"higher_is_better": higher_is_better, "crop": crop, "views": views, "predicts": predicts, "side": side}
    return WrappedModel(module, features, score, mean, std, **about)


def data_folder() -> Path:
    """The shipped data: inside an installed package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "data"
    return inside if inside.is_dir() else package.parent / "data"


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
        known = {key: about[key] for key in ("crop", "predicts", "views", "side") if key in about}
        if "backbone" in about:
            from .backbones import backbone_model

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
