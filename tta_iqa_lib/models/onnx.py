"""The source model as an ONNX file that still adapts, for the page that scores your own photographs (chapter 5).

ONNX writes a network down as a list of plain operations, which runs without PyTorch: in a browser, too. A usual export
freezes what BatchNorm knows about its data. Here every such layer measures the batch inside the graph, and a second input,
the share α, says how much of that counts:

    scores = graph(images, alpha)    # as model(images) under stateless(model, Blend(alpha)); at α = 0 as plain inference

The graph is written down operation by operation: what happens in it can be read below, and it needs the package `onnx` only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from .quality import Block, QualityModel

OPSET = 17  # the vocabulary of operations: of 2022, so that older runtimes read the file, too
IR_VERSION = 8  # the format of the file that came with it


class _Graph:
    """A list of operations under construction. A value is known by its name."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Tensor | np.ndarray) -> str:
        """A weight, stored in the file → its name."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        name = f"weight_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32), name))
        return name

    def apply(self, operation: str, *inputs: str, **attributes) -> str:
        """One operation on values → the name of its result."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def mix(self, old: str, new: str) -> str:
        """(1 − α)·old + α·new."""
        return self.apply("Add", self.apply("Mul", "rest", old), self.apply("Mul", "alpha", new))

    def normalise(self, layer: nn.BatchNorm2d, x: str) -> str:
        """BatchNorm under `Blend(α)`: the exact mixture of the source's moments and those of the batch."""
        everywhere = {"axes": [0, 2, 3], "keepdims": 1}  # over images and positions: (1, C, 1, 1)
        source_mean, source_var = (
            self.constant(moment.view(1, -1, 1, 1)) for moment in (layer.running_mean, layer.running_var)
        )
        mean = self.apply("ReduceMean", x, **everywhere)
        centred = self.apply("Sub", x, mean)
        var = self.apply("ReduceMean", self.apply("Mul", centred, centred), **everywhere)
        apart = self.apply("Sub", mean, source_mean)
        between = self.apply("Mul", self.apply("Mul", "alpha", "rest"), self.apply("Mul", apart, apart))
        blended = self.mix(source_mean, mean), self.apply("Add", self.mix(source_var, var), between)
        mean, var = (self.apply("Reshape", moment, "channels") for moment in blended)
        gamma, beta = self.constant(layer.weight), self.constant(layer.bias)
        return self.apply("BatchNormalization", x, gamma, beta, mean, var, epsilon=layer.eps)

    def layer(self, module: nn.Module, x: str) -> str:
        """One layer of a `SmallResNet`, or several, on the value `x` → the name of the result."""
        match module:
            case nn.Sequential():
                for part in module:
                    x = self.layer(part, x)
                return x
            case Block():
                y = self.apply("Relu", self.layer(module.bn1, self.layer(module.conv1, x)))
                y = self.layer(module.bn2, self.layer(module.conv2, y))
                return self.apply("Relu", self.apply("Add", y, self.layer(module.shortcut, x)))
            case nn.Conv2d(bias=None, groups=1, dilation=(1, 1), padding_mode="zeros"):
                attributes = {"strides": list(module.stride), "pads": list(module.padding) * 2}
                return self.apply("Conv", x, self.constant(module.weight), **attributes)
            case nn.BatchNorm2d():
                return self.normalise(module, x)
            case nn.Linear():
                return self.apply("Gemm", x, self.constant(module.weight), self.constant(module.bias), transB=1)
            case nn.ReLU():
                return self.apply("Relu", x)
            case nn.AdaptiveAvgPool2d(output_size=1):
                return self.apply("GlobalAveragePool", x)
            case nn.Flatten():
                return self.apply("Flatten", x)
            case nn.Identity():
                return x
        raise TypeError(f"no ONNX operation is known here for {module}; only the layers of a small_model are")


def export_model(model: QualityModel, path: str | Path) -> Path:
    """Write a `small_model` as ONNX, with the share α of the batch as a second input.

    The graph takes `images`, (B, 3, H, W) float32 RGB in [0, 1] (H and W are the model's crop, if it has one), and `alpha`,
    () float32 in [0, 1]; it gives `scores`, (B,). The moments are measured over all B images of the call, so the images to
    adapt to go in together.

    Returns:
        the path, for convenience.

    Raises:
        TypeError: the model has layers other than those of a `small_model`.
    """
    graph = _Graph()
    graph.constants += [
        numpy_helper.from_array(np.array(value), name)
        for name, value in (("channels", [-1]), ("flat", [-1]), ("one", np.float32(1)))
    ]
    graph.nodes.append(helper.make_node("Sub", ["one", "alpha"], ["rest"]))
    x = graph.apply("Sub", "images", graph.constant(model.mean))
    x = graph.apply("Div", x, graph.constant(model.std))
    x = graph.layer(nn.Sequential(model.features, nn.Flatten(), model.regressor), x)
    graph.nodes.append(helper.make_node("Reshape", [x, "flat"], ["scores"]))

    sides = [model.crop] * 2 if model.crop else ["height", "width"]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["count", 3, *sides])
    alpha = helper.make_tensor_value_info("alpha", TensorProto.FLOAT, [])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["count"])
    whole = helper.make_graph(graph.nodes, "quality", [images, alpha], [scores], graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    file = helper.make_model(whole, opset_imports=opset, ir_version=IR_VERSION, producer_name="tta_iqa_lib")
    onnx.checker.check_model(file, full_check=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(file, path)
    return path
