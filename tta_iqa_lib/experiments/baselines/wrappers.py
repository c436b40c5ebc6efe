"""Adapters used in another way: image by image, in several orders, as a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...adaptation.adapter import Adapter
from ...adaptation.state import Result


@dataclass(frozen=True)
class PerImage:
    """MEMO's way [zhang2022memo]: each image is an episode of its own, whatever the batch size; `adapter` folds them."""

    adapter: Adapter

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        return self.adapter.predict(images, 1, shuffle=False)


@dataclass(frozen=True)
class Orders:
    """An ensemble of itself: the scores averaged over `count` orders of the images, hence over other batches."""

    adapter: Adapter
    count: int = 4

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,). The first order is that of `images`."""
        scores = []
        for seed in range(self.count):
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(images), generator=generator) if seed else torch.arange(len(images))
            part = self.adapter.predict(images[order], batch_size, shuffle=False)
            scores.append(part[order.argsort()])
        return torch.stack(scores).mean(0)


@dataclass(frozen=True)
class Stream:
    """Online: the state is carried from batch to batch, over the whole of `images`, in their order.

    Attributes:
        when: as `predict` in `Adapter.online`.
        passes: the stream shows the images so many times; the scores are those of the last time.
        restart: as in `Adapter.online`.
    """

    adapter: Adapter
    when: str = "after"
    passes: int = 1
    restart: Callable[[Result], bool] | None = None

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        with self.adapter.online(self.when, self.restart):
            for _ in range(self.passes - 1):
                self.adapter.predict(images, batch_size, shuffle=shuffle)
            return self.adapter.predict(images, batch_size, shuffle=shuffle)
