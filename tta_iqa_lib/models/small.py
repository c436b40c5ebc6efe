"""The book's own network, small enough to be trained on a laptop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .quality import QualityModel


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
