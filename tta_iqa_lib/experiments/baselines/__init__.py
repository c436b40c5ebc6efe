"""Other methods of test-time adaptation, each in a few lines on the shared loop.

They were made for classification; here each is carried over to a score. Losses plug into `Adapter(losses=[…])`. The rest has
the adapter's `predict(images, batch_size, shuffle)`, so that an experiment can treat all alike.
"""

from .actmad import ActMad
from .alignment import SubspaceAlignment
from .average import Average
from .entropy import ScoreEntropy
from .lean import Lean
from .quantiles import QuantileMatching, source_quantiles
from .rotation import Rotation, rotation_head
from .turns import Turns
from .variance import ScoreVariance
from .wrappers import Orders, PerImage, Stream

__all__ = [
    "ActMad",
    "Average",
    "Lean",
    "Orders",
    "PerImage",
    "QuantileMatching",
    "Rotation",
    "ScoreEntropy",
    "ScoreVariance",
    "Stream",
    "SubspaceAlignment",
    "Turns",
    "rotation_head",
    "source_quantiles",
]
