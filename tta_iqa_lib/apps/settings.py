"""All that decides the scores of a list of files, in words that another process understands."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from ..imaging.crops import square_side
from ..models import ScoringModel
from ..models.training import memory_layout
from ..store import identity
from ..store.code import code_hash
from .loading import DEFAULT_MODEL, import_by_name, load_model
from .scorers import Scorer

PRECISIONS = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Settings:
    """How files are scored.

    Attributes:
        model, weights: see `load_model`.
        method: see `Scorer`; None: the model alone.
        batch_size: pictures that are adapted to together.
        crops: of each picture; a square number.
        seed: draws the batches, and the copies that a loss asks for.
        device: "cpu", "cuda", "cuda:1" …
        precision: of the model's numbers, one of `PRECISIONS`.
        threads: of PyTorch on the CPU, as the order of its sums depends on them.
    """

    model: str = DEFAULT_MODEL
    weights: str | None = None
    method: str | None = None
    batch_size: int = 32
    crops: int = 4
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1

    def __post_init__(self):
        square_side(self.crops)
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device must be cpu, cuda, cuda:1 …; got {self.device!r}") from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"there is no '{self.device}' here: {torch.cuda.device_count()} GPUs are seen")

    def load(self) -> ScoringModel:
        """The model, on its device; one of ours on a CPU with its channels last, a quarter faster for the photographs model.

        Raises:
            OSError, ValueError: as `load_model`.
        """
        model = load_model(self.model, self.weights).to(self.device, getattr(torch, self.precision))
        own = ":" not in self.model  # somebody else's may call view() on what a convolution gives
        if own and torch.device(self.device).type == "cpu":
            model = model.to(memory_format=memory_layout(model, 8))
        return model

    def scorer(self) -> Scorer:
        """The model with its method.

        Raises:
            OSError, ValueError: as `load` and `Scorer`.
        """
        return Scorer(self.load(), self.method, self.crops, self.seed)

    def identity(self, scorer: Scorer) -> str:
        """A hash of the model's content, the method, the library's code and PyTorch's version, the same in every process.

        Raises:
            Unidentified: nothing tells this model, or a function in it, from another.
        """
        plain = asdict(self) | {"device": torch.device(self.device).type, "model": None, "weights": None}
        own = import_by_name(self.method) if self.method and ":" in self.method else None
        code = code_hash("apps.scoring")
        return identity([code, torch.__version__, plain, scorer.model, own])
