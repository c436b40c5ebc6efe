"""What is run: the grids of the experiments, by name."""

from __future__ import annotations

from dataclasses import dataclass

from ..datasets.tinyshift import TARGETS
from .methods import ALPHAS, CHEAP, FAIR, LEVERS, LOSS_LEVERS, MAIN, MOMENTA, PASSES, SAVINGS, STEPS, STREAMS
from .published import FAULTS
from .seeds import ALL, Seeds


@dataclass(frozen=True)
class Grid:
    """What to run.

    Attributes:
        name: of the results file.
        methods, targets, seeds, batch_sizes: every combination is a run. A seed is a number; see `Seeds.of_run`.
        vary: what the seeds draw: all three of "source", "order" and "copies", or fewer, to see what one of them does alone.
        images: at most so many of each target, spread over its contents (None: all).
        order: "shuffled"; "by-content": images of one content follow one another; or "by-quality": the best images come in
            other batches than the worst.
        online: carry the state from batch to batch.
        keep_scores: store the score of every image, for intervals.
    """

    name: str
    methods: tuple[str, ...] = MAIN
    targets: tuple[str, ...] = ("source/test", *TARGETS)
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_sizes: tuple[int, ...] = (32, 8)
    images: int | None = None
    order: str = "shuffled"
    online: bool = False
    keep_scores: bool = True
    vary: tuple[str, ...] = ALL

    def __post_init__(self):
        if self.keep_scores and "source" not in self.methods:
            raise ValueError(f"grid '{self.name}' keeps scores for intervals against the source: add it to the methods")
        Seeds.of_run(0, self.vary)  # a misspelt one is told here, and not after hours

    def runs(self) -> list[tuple[str, str, int, int]]:
        """(method, target, seed, batch size) of every run; slow methods first, so that processes end together."""
        grid = [(m, t, s, b) for m in self.methods for t in self.targets for s in self.seeds for b in self.batch_sizes]
        return grid[::-1]


_DEVELOPMENT = ("target/dusk", "source/test")
_FULL = ("source", "bn-blend", "bn-adaptive", "rank+gc", "recipe")  # the methods of the full grid
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_FEW = ("source/test", "target/dusk", "target/haze-physical", "target/unseen")
GRIDS = {
    grid.name: grid
    for grid in (
        Grid("headline", images=160),
        Grid("demo", ("source", "bn-blend", "recipe"), tuple(TARGETS), (0,), (32,), 64),
        Grid(
            "alpha",
            tuple(f"alpha-{a}" for a in ALPHAS),
            _DEVELOPMENT,
            batch_sizes=_SIZES,
            keep_scores=False,
        ),
        *(
            Grid(
                "ema" if order == "shuffled" else f"ema-{order}",
                ("source", "bn-batch", "bn-blend", *(f"ema{form}-{m}" for m in MOMENTA for form in ("", "-exact"))),
                _DEVELOPMENT,
                batch_sizes=_SIZES,
                order=order,
                keep_scores=False,
            )
            for order in ("shuffled", "by-content")
        ),
        Grid(
            "one-sided",
            ("source", "bn-batch", "bn-blend"),
            _DEVELOPMENT,
            batch_sizes=(32,),
            images=160,
            order="by-quality",
        ),
        Grid(
            "steps", tuple(f"steps-{n}" for n in STEPS), _DEVELOPMENT, batch_sizes=(32,), images=192, keep_scores=False
        ),
        # The fair experiment (chapters 9 and 10).
        Grid("recipe", CHEAP, seeds=(0, 1, 2, 3, 4), images=96),
        Grid("worlds", ("source", "recipe", "normalisations"), images=64),
        Grid("levers", ("source", "recipe-open", *(f"lever-{n}" for n in (*LEVERS, "four orders"))), images=64),
        Grid(
            "loss-levers",
            ("source", "recipe-open", *(f"lever-{n}" for n in LOSS_LEVERS)),
            seeds=(0,),
            batch_sizes=(32,),
            images=64,
        ),
        Grid("fair", FAIR, seeds=(0, 1, 2, 3, 4), images=64),
        *(
            Grid(
                name,
                ("source", "views", "recipe-open", "recipe"),
                ("source/test-large",),
                (0, 1, 2),
                _SIZES,
                order=order,
            )
            for name, order in (("gate", "shuffled"), ("gate-one-sided", "by-quality"))
        ),
        Grid("faults", ("source", "published-control", "published", *(f"fault-{n}" for n in FAULTS)), images=64),
        Grid(
            "gc-off",
            ("source", "published-control", "control-gc-off-after-three", "published", "fault-gc-off-after-three"),
            images=64,
        ),
        *(
            Grid(f"sizes-{order}{'-online' * online}", _FULL, _FEW, (0, 1, 2), _SIZES, 64, order, online, False)
            for order in ("shuffled", "by-content")
            for online in (False, True)
        ),
        Grid(
            "savings",
            ("source", "bn-blend", *(f"saving-{n}{f}" for f in ("", "-frozen") for n in SAVINGS)),
            _FEW,
            images=64,
        ),
        Grid(
            "streams",
            ("source", "bn-blend", *(f"stream-{name}-{n}" for name in STREAMS for n in PASSES)),
            _FEW,
            batch_sizes=(32,),
            images=96,
        ),
    )
}
