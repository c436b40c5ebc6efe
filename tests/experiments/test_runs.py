"""One run: its order, its model, its draws."""

import numpy as np
import torch

from tta_iqa_lib.experiments.runs import load_target, run_one
from tta_iqa_lib.models.quality import load_source_model


def test_a_run_keeps_the_target_s_order():
    """The images are shuffled before they are batched; the scores come back in place."""
    scores = run_one("source", "target/dusk", 0, 8, 24)
    images, _, _ = load_target("target/dusk", 24)
    with torch.no_grad():
        expected = load_source_model(0)(images)
    assert np.allclose(scores, expected, atol=1e-4)
