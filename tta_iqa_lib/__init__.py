"""Test-time adaptation for blind image quality assessment: the library of the book."""

from . import adaptation, apps, datasets, imaging, metrics, models  # noqa: F401 (the rooms, by their names)
from .adaptation import Adaptive, Batch, Blend, Ema, First, Shrink, Source
from .adaptation.adapter import Adapter
from .adaptation.copies import Pair
from .adaptation.gates import Drifted, ShiftGate
from .adaptation.loop import adapt_batch
from .adaptation.losses import (
    Anchor,
    Context,
    GroupContrastive,
    RelativeRank,
    ScoreOrder,
    group_contrastive_loss,
    relative_rank_loss,
    score_order_loss,
)
from .adaptation.state import Result, State
from .datasets.tinyshift import tinyshift
from .imaging.distortions import distort
from .imaging.files import ImageError, photograph, read_image
from .metrics import evaluate, krcc, plcc, srcc
from .models.backbones import backbone_model, torchvision_model
from .models.quality import QualityModel, load_source_model, small_model, wrap_model

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
    "backbone_model",
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
