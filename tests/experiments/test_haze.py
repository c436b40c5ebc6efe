"""The demonstration with the model of people's opinions."""

import pytest
import torch
from helpers import tiny_model

from tta_iqa_lib.experiments.haze import InHaze, in_haze, table
from tta_iqa_lib.imaging.albums import album
from tta_iqa_lib.imaging.distortions import distort
from tta_iqa_lib.metrics import srcc


def test_agreement_is_with_the_source_in_clear_air():
    model = tiny_model()
    model.crop, model.views = 64, 1
    nothing, thick = in_haze(model, (0.0, 0.8))
    assert nothing.source == pytest.approx(1) and nothing.severity == 0
    with torch.no_grad():
        clear = album(64).images
        assert thick.source == pytest.approx(srcc(model(distort(clear, "haze", 0.8)), model(clear)))
    assert thick.source != thick.adapted


def test_the_table_has_a_line_a_haze():
    assert table([InHaze(0.3, 0.5, 0.75)]).splitlines() == ["  haze    source   adapted", "   0.3      0.50      0.75"]
