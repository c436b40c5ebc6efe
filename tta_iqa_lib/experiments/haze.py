"""The shipped model of people's opinions on bundled photographs in haze: a demonstration, not evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adaptation.adapter import Adapter
from ..adaptation.rules import Source
from ..imaging.crops import grid_crops, resize_to
from ..imaging.distortions import distort
from ..imaging.scenes import PHOTOGRAPHS, photograph
from ..metrics import srcc
from ..models.quality import QualityModel

DAMAGES = ("blur", "jpeg", "noise")
SEVERITIES = (0.0, 0.35, 0.7)


@dataclass(frozen=True)
class InHaze:
    """How scores in haze agree with the source model's scores of the same pictures in clear air.

    Attributes:
        severity: of the haze.
        source, adapted: SRCC of the source model's scores, and of the adapted ones.
    """

    severity: float
    source: float
    adapted: float


def damaged_photographs(side: int, crop: int) -> Tensor:
    """(24, 3, crop, crop): the middle of each bundled photograph, scaled to a shorter side of `side`; sharp, then made worse."""
    generator, found = torch.Generator().manual_seed(0), []
    for i, name in enumerate(PHOTOGRAPHS):
        middle = grid_crops(resize_to(photograph(name), side), crop, 1)
        found += [distort(middle, DAMAGES[i % len(DAMAGES)], severity, generator) for severity in SEVERITIES]
    return torch.cat(found)


def in_haze(model: QualityModel, severities: Iterable[float] = (0.3, 0.6, 0.8)) -> list[InHaze]:
    """Score `damaged_photographs` in clear air, then all of them in haze, with and without adaptation."""
    assert model.crop is not None
    clear = damaged_photographs(getattr(model, "side", None) or model.crop, model.crop)
    plain, adapted = Adapter(model, losses=(), statistics=Source(), views=model.views), Adapter(model)
    expected, found = plain(clear), []
    for severity in severities:
        hazy = distort(clear, "haze", severity)
        found.append(InHaze(severity, srcc(plain(hazy), expected), srcc(adapted(hazy), expected)))
    return found


def table(found: Iterable[InHaze]) -> str:
    """One line for each haze."""
    lines = [f"{'haze':>6s}{'source':>10s}{'adapted':>10s}"]
    return "\n".join(lines + [f"{f.severity:6.1f}{f.source:10.2f}{f.adapted:10.2f}" for f in found])
