"""How equal two runs are, and what a GPU launches."""

import pytest
import torch

from tta_iqa_lib.adaptation.adapter import Adapter
from tta_iqa_lib.experiments import on_gpu


def test_on_a_cpu_the_same_batch_has_the_same_scores():
    found = on_gpu.how_equal("small", "statistics only", False, True, "cpu")
    assert found["largest difference"] == 0 < found["spread"]
    assert not torch.are_deterministic_algorithms_enabled(), "set back"


def test_runs_that_differ_are_told_by_how_much(monkeypatch):
    class Drifting(Adapter):
        runs = 0

        def __call__(self, images):
            Drifting.runs += 1
            return super().__call__(images) + 0.25 * Drifting.runs

    monkeypatch.setattr(on_gpu, "Adapter", Drifting)
    found = on_gpu.how_equal("small", "no adaptation", False, False, "cpu")
    assert found["largest difference"] == pytest.approx(0.25 * (on_gpu.TIMES - 1), abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recording_launches_graphs_in_place_of_kernels():
    eager, captured = (on_gpu.launches("small", "rank + gc", how) for how in (False, True))
    assert eager["graphs"] == 0 < captured["graphs"] and captured["launches"] < eager["launches"] / 10
    assert 0 < captured["busy_ms"] <= captured["wall_ms"]
