"""The method: statistics, copies, losses, the loop, gates, and the adapter that puts them together (chapters 5 to 8, and 10).

Which statistics does BatchNorm normalise with? A layer computes γ (x − μ) / √(v + ε) + β. Training leaves it with the *source's*
μ_s and v_s. At test time a `Statistics` rule decides, from the source's moments and those of the test batch, which μ and v are
used instead.
"""

from .adapter import DEFAULT_GATE, DEFAULT_STATISTICS, Adapter, balanced_batches
from .control import NORM_LAYERS, Control, batchnorm_layers, controlled, norm_affine
from .copies import Ladder, Pair
from .gates import Drifted, ShiftGate
from .loop import adapt_batch
from .losses import (
    Anchor,
    Context,
    GroupContrastive,
    RelativeRank,
    ScoreOrder,
    contrastive_groups,
    group_contrastive_loss,
    relative_rank_loss,
    score_order_loss,
)
from .moments import Measured, Moments, batch_moments, blend, displacement, measure, sampling_error, stretch
from .rules import Adaptive, Batch, Blend, Ema, First, Shrink, Source, Statistics
from .state import Recipe, Result, State

__all__ = [
    "DEFAULT_GATE",
    "DEFAULT_STATISTICS",
    "NORM_LAYERS",
    "Adapter",
    "Adaptive",
    "Anchor",
    "Batch",
    "Blend",
    "Context",
    "Control",
    "Drifted",
    "Ema",
    "First",
    "GroupContrastive",
    "Ladder",
    "Measured",
    "Moments",
    "Pair",
    "Recipe",
    "RelativeRank",
    "Result",
    "ScoreOrder",
    "ShiftGate",
    "Shrink",
    "Source",
    "State",
    "Statistics",
    "adapt_batch",
    "balanced_batches",
    "batch_moments",
    "batchnorm_layers",
    "blend",
    "contrastive_groups",
    "controlled",
    "displacement",
    "group_contrastive_loss",
    "measure",
    "norm_affine",
    "relative_rank_loss",
    "sampling_error",
    "score_order_loss",
    "stretch",
]
