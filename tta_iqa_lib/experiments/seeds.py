"""What is random in a run, each thing with a seed of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

ALL = ("source", "order", "copies")


@dataclass(frozen=True)
class Seeds:
    """The seeds of one run.

    Attributes:
        source: of the source model: which of the shipped ones, counted round; on opinions, the seed of its training.
        order: of the images, hence which of them share a batch.
        copies: of what the method draws, such as distorted copies.
    """

    source: int
    order: int
    copies: int

    @classmethod
    def of_run(cls, number: int, vary: Collection[str] = ALL) -> Seeds:
        """The seeds of run `number` of a grid, the "seed" of the results files.

        Args:
            vary: the seeds that follow the number; the others are those of run 0.

        Raises:
            ValueError: no seed of that name.
        """
        if unknown := set(vary) - set(ALL):
            raise ValueError(f"no seed '{min(unknown)}'; there are {', '.join(ALL)}")
        source, order, copies = (number if name in vary else 0 for name in ALL)
        return cls(source, 1000 + order, copies)  # so that order and copies share no stream of random numbers
