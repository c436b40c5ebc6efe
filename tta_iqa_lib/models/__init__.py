"""What is adapted: quality models, their training, their export."""

from . import training
from .backbones import backbone_model, torchvision_model
from .quality import QualityModel, ScoringModel
from .saving import load_source_model, save_model
from .small import small_model
from .wrapping import wrap_model

__all__ = [
    "QualityModel",
    "ScoringModel",
    "backbone_model",
    "load_source_model",
    "save_model",
    "small_model",
    "torchvision_model",
    "training",
    "wrap_model",
]
