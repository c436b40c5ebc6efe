"""Somebody else's module behind the library's interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..imaging.checks import as_tuple
from .features import run_with_features
from .quality import ScoringModel, per_channel


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
    """Put any quality model behind the library's interface. The module is used, not copied, and never changed.

    Args:
        module: takes images (B, 3, H, W), gives (B,), (B, 1), a tuple whose first part is that, or a dictionary.
        features: name of the layer whose output, flattened to (B, D), serves as features (see `named_modules()`). None: what
            goes into the last linear layer, which is found when it runs.
        score: reads the scores from the module's output, where the rules above do not fit.
        normalise: (mean, std) per channel that the module expects; None: it takes RGB in [0, 1] as it is.
        higher_is_better: False for scores such as DMOS.
        crop, views, predicts, side: what it was trained on, see `ScoringModel`.

    Raises:
        TypeError, ValueError: no module; no layer of that name; an impossible setting.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module; got {module!r}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "module is compiled by TorchScript, which hides its layers: wrap the Python module it was made of"
        )
    lazy = next((name for name, p in module.named_parameters() if is_lazy(p)), None)
    if lazy is not None:
        raise ValueError(f"module has no values yet for its parameter '{lazy}': let it score an image first")
    names = [name for name, _ in module.named_modules() if name]
    if features is not None and features not in names:
        raise ValueError(
            f"features: no layer {features!r} in the module; pass one of {', '.join(names[-12:])} (last of {len(names)})"
        )
    if not (score is None or callable(score)):
        raise TypeError(f"score must be a function of the module's output, or None; got {score!r}")
    looks = as_tuple("normalise", normalise or (0.0, 1.0))
    if len(looks) != 2:
        raise ValueError(f"normalise must be a pair (mean, std); got {normalise!r}")
    mean, std = per_channel("normalise", looks[0]), per_channel("normalise", looks[1], above=0)
    like = next((p for p in module.parameters()), torch.zeros(()))
    mean, std = (torch.as_tensor(v, dtype=like.dtype, device=like.device).view(1, -1, 1, 1) for v in (mean, std))
    about = {"higher_is_better": higher_is_better, "crop": crop, "views": views, "predicts": predicts, "side": side}
    return WrappedModel(module, features, score, mean, std, **about)
