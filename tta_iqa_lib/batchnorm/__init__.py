"""Which statistics does BatchNorm normalise with? Made explicit (chapter 5).

A BatchNorm layer computes γ (x − μ) / √(v + ε) + β. Training leaves it with the *source's* μ_s and v_s. At test time a
`Statistics` rule decides, from the source's moments and those of the test batch, which μ and v are used instead.
"""

from .control import NORM_LAYERS, Control, batchnorm_layers, controlled, norm_affine
from .moments import Measured, Moments, batch_moments, blend, displacement, measure, sampling_error, stretch
from .rules import Adaptive, Batch, Blend, Ema, First, Shrink, Source, Statistics

__all__ = [
    "NORM_LAYERS",
    "Adaptive",
    "Batch",
    "Blend",
    "Control",
    "Ema",
    "First",
    "Measured",
    "Moments",
    "Shrink",
    "Source",
    "Statistics",
    "batch_moments",
    "batchnorm_layers",
    "blend",
    "controlled",
    "displacement",
    "measure",
    "norm_affine",
    "sampling_error",
    "stretch",
]
