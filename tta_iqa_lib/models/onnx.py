"""A quality model as an ONNX file that still adapts, for the page that scores your own photographs.

ONNX writes a network down as a list of plain operations, which runs without PyTorch: in a browser, too. A usual export
freezes what BatchNorm knows about its data. Here every such layer measures the batch inside the graph, and a second input,
the share α, says how much of that counts:

    scores = graph(images, alpha)    # as Stateless(model)(images, Blend(alpha)); at α = 0 as plain inference
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..adaptation.moments import blend
from ..adaptation.normalisation import batchnorm_layers
from ..adaptation.rules import Statistics
from ..adaptation.stateless import Stateless
from .quality import ScoringModel

OPSET = 18  # the oldest vocabulary of operations that PyTorch's exporter writes: of 2022


@dataclass(frozen=True)
class _Share(Statistics):
    """`Blend` with a share that is an input of the graph."""

    alpha: Tensor

    def __call__(self, source, batch, previous, count):
        return blend(source, batch, self.alpha)


class _Adapting(nn.Module):
    def __init__(self, model: ScoringModel):
        super().__init__()
        self.network = Stateless(copy.deepcopy(model).requires_grad_(False))
        self.module = self.network.module  # the exporter wants to know all modules

    def forward(self, images: Tensor, alpha: Tensor) -> Tensor:
        return self.network(images, _Share(alpha)).scores


def export_model(model: ScoringModel, path: str | Path) -> Path:
    """Write a model with BatchNorm layers as ONNX: "images" (count, 3, H, W) in [0, 1] and "alpha" () → "scores" (count,).

    H and W are the model's crop; without one, any size.

    Raises:
        ValueError: the model has no BatchNorm layers.
    """
    if not batchnorm_layers(model):
        raise ValueError("the model has no BatchNorm layers: there is nothing for alpha to share")
    path, side = Path(path), model.crop or 96
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {0: torch.export.Dim("count", max=4096)}
    if model.crop is None:
        sizes |= {2: torch.export.Dim("height", min=16, max=4096), 3: torch.export.Dim("width", min=16, max=4096)}
    example = torch.linspace(0, 1, 4 * 3 * side * side).view(4, 3, side, side), torch.tensor(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own insides
        torch.onnx.export(
            _Adapting(model).eval(),
            example,
            path,
            input_names=["images", "alpha"],
            output_names=["scores"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes={"images": sizes, "alpha": {}},
            verbose=False,
        )
    return path
