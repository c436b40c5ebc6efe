"""The album: the one small folder that runs through the book, of the photographs that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from .crops import grid_crops, resize_to
from .distortions import distort
from .scenes import PHOTOGRAPHS, photograph

KINDS = ("blur", "jpeg", "noise")
SEVERITIES = (0.0, 0.35, 0.7)


@dataclass(frozen=True)
class Album:
    """Eight photographs, each as it is, a little worse and much worse: 24 pictures.

    Attributes:
        images: (24, 3, S, S), RGB in [0, 1]; three after one another show one photograph.
        names: "cat-0-sharp", "cat-1-jpeg", "cat-2-jpeg", ...
        photographs: what each of the 24 shows, a name of `PHOTOGRAPHS`.
        severities: 0, 0.35 or 0.7 for each.
    """

    images: torch.Tensor
    names: tuple[str, ...]
    photographs: tuple[str, ...]
    severities: tuple[float, ...]

    def save(self, folder: str | Path) -> list[Path]:
        """Write 24 PNG files, named after the pictures, into a folder that is made where it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.png" for name in self.names]
        for file, image in zip(files, self.images, strict=True):
            Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(file)
        return files


def album(size: int = 224, side: int | None = None) -> Album:
    """The album, of the middle `size` × `size` pixels of each photograph.

    Args:
        side: scale the photograph to this shorter side first, at least `size`; `size` itself where None.
    """
    generator, images, names, severities = torch.Generator().manual_seed(0), [], [], []
    for i, name in enumerate(PHOTOGRAPHS):
        middle, kind = grid_crops(resize_to(photograph(name), side or size), size, 1), KINDS[i % len(KINDS)]
        for step, severity in enumerate(SEVERITIES):
            images.append(distort(middle, kind, severity, generator))
            names.append(f"{name}-{step}-{kind if step else 'sharp'}")
            severities.append(severity)
    shown = tuple(name for name in PHOTOGRAPHS for _ in SEVERITIES)
    return Album(torch.cat(images), tuple(names), shown, tuple(severities))
