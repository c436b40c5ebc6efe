"""What goes into a forward pass and what comes out, as values: layout, pass, memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .moments import Measured, Moments


@dataclass(frozen=True)
class Layout:
    """How the rows of a pass are laid out: one block an episode, its images first, then their copies.

    Attributes:
        episodes: E, so many blocks of equal length.
        images: B, so many rows of a block are the test images that moments come from (None: all of them).
        crops: so many consecutive images show parts of one picture (see `measure`).
    """

    episodes: int = 1
    images: int | None = None
    crops: int = 1


@dataclass(frozen=True)
class Pass:
    """What one forward pass gave.

    Attributes:
        scores: the module's output; of a scoring model (rows,).
        features: (rows, D), of a scoring model; else None.
        used: the moments that normalised, by BatchNorm layer, (C,) or (E, C) each, in the order of the pass.
        measured: (source moments, `Measured` of the images), likewise; of a pass with `record`.
        rowwise: did every BatchNorm layer see one row an image? Where patches or crops are folded into the batch, episodes and
            copies cannot be told apart.
    """

    scores: Tensor
    features: Tensor | None
    used: dict[str, Moments]
    measured: dict[str, tuple[Moments, Measured]]
    rowwise: bool


@dataclass
class Memory:
    """Outputs of modules that do not depend on the adapted parameters, so that later steps need not compute them again.

    Attributes:
        kept: by place in the pass, each with its version: what was changed in place is not kept.
        used, measured: of the BatchNorm layers.
        open: is the next pass to fill it?
    """

    kept: dict[tuple, tuple[Tensor, int]] = field(default_factory=dict)
    used: dict[str, Moments] = field(default_factory=dict)
    measured: dict[str, tuple[Moments, Measured]] = field(default_factory=dict)
    open: bool = True

    def of_images(self, layout: Layout) -> Memory:
        """The same of the images alone, without their copies."""
        blocks = {place: rows.unflatten(0, (layout.episodes, -1)) for place, (rows, _) in self.kept.items()}
        kept = {place: rows[:, : layout.images].flatten(0, 1) for place, rows in blocks.items()}
        return Memory({place: (rows, rows._version) for place, rows in kept.items()}, self.used, self.measured, False)

    def close(self, used: dict[str, Moments], measured: dict[str, tuple[Moments, Measured]]) -> None:
        """End the pass that filled it."""
        self.kept = {place: (rows, version) for place, (rows, version) in self.kept.items() if rows._version == version}
        self.used, self.measured, self.open = used, measured, False
