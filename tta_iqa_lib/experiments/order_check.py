"""Did adapting help? A check without opinions: made-up damage, whose order is known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..adaptation.adapter import Adapter
from ..adaptation.episodes import averaged, on_scale
from ..adaptation.loop import adapt_batch, checked
from ..adaptation.passes import Layout
from ..adaptation.rules import Carried, Source
from ..adaptation.state import State
from ..adaptation.stateless import Stateless
from ..imaging.albums import KINDS, SEVERITIES
from ..imaging.checks import as_tuple, check_number
from ..imaging.distortions import distort
from ..metrics import Interval, bootstrap


@dataclass(frozen=True)
class OrderCheck:
    """How often the worse of two versions of one picture scores lower.

    Attributes:
        source, adapted: the share of pairs in the right order, in [0, 1]; a tie counts half.
        difference: adapted − source, paired: the interval draws pictures.
        pairs: how many pairs there were.
        decision: whose scores the adapter gave: "adapted", "initial" or "source".
    """

    source: Interval
    adapted: Interval
    difference: Interval
    pairs: int
    decision: str

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval of the difference lies on one side of zero, else "cannot tell"."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "cannot tell"

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs in the right order: source {self.source}, {self.decision} {self.adapted}, "
            f"difference {self.difference.signed()}: {self.verdict}"
        )


def order_check(
    adapter: Adapter,
    images: Tensor,
    kinds: Sequence[str] = KINDS,
    severities: Sequence[float] = SEVERITIES[1:],
    together: bool = False,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> OrderCheck:
    """Make worse copies of a batch, and ask the source model and the adapted one for their order. Needs no opinions.

    It sees only the order of versions of *one* picture, not that of different pictures; chapter 11 measures what that is worth.

    Args:
        adapter: each call starts from the source model, inside an `online` block, too.
        images: (B, 3, H, W) in [0, 1], the batch as it would be scored.
        kinds: of damage; the pictures get them in turn, one each.
        severities: of the copies, rising, in (0, 1]; the picture itself comes before the first.
        together: adapt to pictures and copies as one batch. False: adapt to the pictures, and score the copies with what that
            left: the same parameters, statistics and scale.
        groups: (B,) labels of pictures that belong together, such as what they show: the intervals draw those.
        seed: of the noise in the copies, and of the draws.

    Raises:
        ValueError: bad images, kinds or severities; fewer than two pictures; or labels that do not fit.
    """
    crops = adapter.recipe.inference.crops_per_image
    images = checked(images, adapter.model)
    pictures = len(images) // crops
    if pictures < 2 or len(images) % crops:
        raise ValueError(f"images must be at least two whole pictures of {crops} crops each; got {len(images)} rows")
    if not (kinds := as_tuple("kinds", kinds)):
        raise ValueError("kinds must name at least one distortion; got none")
    levels = as_tuple("severities", severities)
    for level in levels:
        check_number("severities", level, 0, 1)
    if not levels or sorted({0.0, *levels}) != [0.0, *levels]:
        raise ValueError(f"severities must rise from above 0; got {severities!r}")
    labels = None if groups is None else as_tuple("groups", groups)
    if labels is not None and len(labels) != pictures:
        raise ValueError(f"groups: {len(labels)} labels for {pictures} pictures")

    generator = torch.Generator(images.device).manual_seed(seed)
    of_row = [kinds[row // crops % len(kinds)] for row in range(len(images))]
    versions = torch.cat([images, *(distort(images, of_row, level, generator) for level in levels)])
    source, adapted, decision = (_together if together else _held)(adapter, versions, len(images))
    rising = 1 if adapter.model.higher_is_better else -1
    shares = [
        _shares(rising * scores.unflatten(0, (len(levels) + 1, pictures, crops)).mean(2))
        for scores in (source, adapted)
    ]
    intervals = [
        bootstrap(lambda rows, values=values: float(values[rows].mean()), pictures, labels, seed=seed)
        for values in (*shares, shares[1] - shares[0])
    ]
    return OrderCheck(*intervals, pairs=pictures * len(levels) * (len(levels) + 1) // 2, decision=decision)


def _shares(scores: Tensor) -> np.ndarray:
    """(K, pictures), higher is better, from the best version to the worst → of each picture, the share of pairs in order."""
    first, second = torch.triu_indices(len(scores), len(scores), 1)
    return ((scores[first] - scores[second]).sign().double().mean(0) / 2 + 0.5).cpu().numpy()


def _together(adapter: Adapter, versions: Tensor, count: int) -> tuple[Tensor, Tensor, str]:
    """Scores of all versions by the source and adapted to all of them, and the decision."""
    (result,), _ = adapt_batch(adapter.model, State(), versions, adapter.recipe)
    return result.source_scores, result.scores, result.decision


def _held(adapter: Adapter, versions: Tensor, count: int) -> tuple[Tensor, Tensor, str]:
    """The same, adapted to the first `count` rows, the pictures as they are."""
    inference, network = adapter.recipe.inference, Stateless(adapter.model)
    (result,), state = adapt_batch(adapter.model, State(), versions[:count], adapter.recipe)

    @torch.no_grad()
    def score(rule, params, moments) -> Tensor:
        return averaged(network, versions, inference.views, rule, params, carried=moments).scores

    source = score(Source(), {}, {})
    if result.decision == "source":
        return source, source, result.decision
    found = [score(Carried(), state.params if result.decision == "adapted" else {}, state.moments)]
    for rule in inference.ensemble:
        with torch.no_grad():
            used = network(versions[:count], rule, layout=Layout(crops=inference.crops_per_image)).used
        found.append(source if rule == Source() else score(Carried(), {}, used))
    if not inference.ensemble and not inference.match_source:
        return source, found[0], result.decision
    matched = [on_scale(scores, scores[:count], source[:count]) for scores in found]
    return source, torch.stack(matched).mean(0), result.decision
