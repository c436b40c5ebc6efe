"""The method: statistics, copies, losses, the loop, gates, and the adapter that puts them together.

Which statistics does BatchNorm normalise with? A layer computes γ (x − μ) / √(v + ε) + β. Training leaves it with the *source's*
μ_s and v_s. At test time a `Statistics` rule decides, from the source's moments and those of the test batch, which μ and v are
used instead.
"""

from .adapter import Adapter
from .batches import balanced_batches
from .context import Context
from .copies import Ladder, Pair
from .functional import contrastive_groups, group_contrastive_loss, relative_rank_loss, score_order_loss
from .gates import Drifted, ShiftGate
from .loop import adapt_batch
from .losses import Anchor, GroupContrastive, RelativeRank, ScoreOrder
from .moments import Measured, Moments, batch_moments, blend, mean_shift, measure, sampling_error, variance_shift
from .normalisation import NORM_LAYERS, LateNormAffine, batchnorm_layers, norm_affine
from .passes import Layout, Pass
from .recipes import DEFAULT_RECIPE, RECIPES, recipe_of
from .rules import Adaptive, Batch, Blend, Carried, Ema, First, Shrink, Source, Statistics
from .screens import Blank
from .state import Inference, Optimisation, Recipe, Result, State
from .stateless import Stateless

__all__ = [
    "DEFAULT_RECIPE",
    "NORM_LAYERS",
    "RECIPES",
    "Adapter",
    "Adaptive",
    "Anchor",
    "Batch",
    "Blank",
    "Blend",
    "Carried",
    "Context",
    "Drifted",
    "Ema",
    "First",
    "GroupContrastive",
    "Inference",
    "Ladder",
    "LateNormAffine",
    "Layout",
    "Measured",
    "Moments",
    "Optimisation",
    "Pair",
    "Pass",
    "Recipe",
    "RelativeRank",
    "Result",
    "ScoreOrder",
    "ShiftGate",
    "Shrink",
    "Source",
    "State",
    "Stateless",
    "Statistics",
    "adapt_batch",
    "balanced_batches",
    "batch_moments",
    "batchnorm_layers",
    "blend",
    "contrastive_groups",
    "group_contrastive_loss",
    "mean_shift",
    "measure",
    "norm_affine",
    "recipe_of",
    "relative_rank_loss",
    "sampling_error",
    "score_order_loss",
    "variance_shift",
]
