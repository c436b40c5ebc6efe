"""Somebody else's module behind the library's interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident

import torch
from torch import Tensor, nn

from .quality import ScoringModel


class WrappedModel(ScoringModel):
    """Any module behind the library's interface; made by `wrap_model`."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, layer: str, score: Callable | None, mean, std, higher_is_better: bool):
        super().__init__(higher_is_better=higher_is_better)
        self.module, self.layer, self.score = module, layer, score
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor, with_features: bool = False):
        """(B, 3, H, W) in [0, 1] → scores (B,); with features: (scores (B,), features (B, D))."""
        caught: list[Tensor] = []
        thread = get_ident()

        def catch(_module, _inputs, output) -> None:
            if get_ident() == thread:  # another thread may use the module at the same time
                caught.append(output)

        # A hook for the time of one call: the user's module keeps no trace of it.
        handle = self.module.get_submodule(self.layer).register_forward_hook(catch)
        try:
            output = self.module((images - self.mean) / self.std)
        finally:
            handle.remove()
        scores = self._read(output, images.shape[0])
        if not with_features:
            return scores
        if not caught or not isinstance(caught[-1], Tensor):
            raise RuntimeError(f"the feature layer '{self.layer}' gave no tensor in this forward pass")
        return scores, caught[-1].flatten(1)

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
    features: str = "avgpool",
    score: Callable | None = None,
    normalise: tuple[Sequence[float], Sequence[float]] | None = None,
    higher_is_better: bool = True,
) -> WrappedModel:
    """Put any quality model behind the library's interface. The module is used, not copied, and never changed.

    Args:
        module: takes images (B, 3, H, W), gives (B,), (B, 1), a tuple whose first part is that, or a dictionary.
        features: name of the layer whose output, flattened to (B, D), serves as features (see `named_modules()`).
        score: reads the scores from the module's output, where the rules above do not fit.
        normalise: (mean, std) per channel that the module expects; None: it takes RGB in [0, 1] as it is.
        higher_is_better: False for scores such as DMOS.

    Raises:
        ValueError: no layer of that name.
    """
    names = [name for name, _ in module.named_modules() if name]
    if features not in names:
        raise ValueError(
            f"no layer '{features}' in the module; pass features= one of {', '.join(names[-12:])} (last of {len(names)})"
        )
    mean, std = normalise or ((0.0,), (1.0,))
    like = next((p for p in module.parameters()), torch.zeros(()))
    mean, std = (torch.as_tensor(v, dtype=like.dtype, device=like.device).view(1, -1, 1, 1) for v in (mean, std))
    return WrappedModel(module, features, score, mean, std, higher_is_better)
