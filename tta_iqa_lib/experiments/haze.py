"""The shipped model of people's opinions on the album in haze: a demonstration, not evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..adaptation.adapter import Adapter
from ..adaptation.rules import Source
from ..imaging.albums import album
from ..imaging.distortions import distort
from ..metrics import srcc
from ..models.quality import QualityModel


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


def in_haze(model: QualityModel, severities: Iterable[float] = (0.3, 0.6, 0.8)) -> list[InHaze]:
    """Score the album in clear air, then all of them in haze, with and without adaptation."""
    assert model.crop is not None
    clear = album(model.crop, getattr(model, "side", None)).images
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
