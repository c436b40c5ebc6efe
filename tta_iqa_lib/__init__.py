"""Test-time adaptation for blind image quality assessment: the library of the book."""

from .adapt import Adapter
from .batchnorm import Adaptive, Batch, Blend, Ema, First, Shrink, Source
from .benchmark import tinyshift
from .distortions import distort
from .gate import Drifted, ShiftGate
from .images import ImageError, photograph, read_image
from .loop import adapt_batch
from .losses import (
    Anchor,
    Context,
    GroupContrastive,
    RelativeRank,
    ScoreOrder,
    group_contrastive_loss,
    relative_rank_loss,
    score_order_loss,
)
from .metrics import evaluate, krcc, plcc, srcc
from .models import QualityModel, load_source_model, small_model, torchvision_model, wrap_model
from .state import Result, State
from .views import Pair

__version__ = "0.2.0"

__all__ = [
    "Adapter",
    "Adaptive",
    "Anchor",
    "Batch",
    "Blend",
    "Context",
    "Drifted",
    "Ema",
    "First",
    "GroupContrastive",
    "ImageError",
    "Pair",
    "QualityModel",
    "RelativeRank",
    "Result",
    "ScoreOrder",
    "ShiftGate",
    "Shrink",
    "Source",
    "State",
    "adapt_batch",
    "distort",
    "evaluate",
    "group_contrastive_loss",
    "krcc",
    "load_source_model",
    "photograph",
    "plcc",
    "read_image",
    "relative_rank_loss",
    "score_order_loss",
    "small_model",
    "srcc",
    "tinyshift",
    "torchvision_model",
    "wrap_model",
]
