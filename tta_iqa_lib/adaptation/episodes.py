"""The episodes that share a pass: what their losses see, the gradient, the scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..imaging.crops import symmetries
from .context import Context
from .moments import Moments
from .optimise import Flat
from .protocols import PlainLoss, is_scoring_model
from .rules import Carried, Source, Statistics
from .state import Recipe
from .stateless import Layout, Memory, Pass, Stateless


def averaged(
    network: Stateless, images: Tensor, views: int, *arguments, record: bool = False, memory=None, **options
) -> Pass:
    """A pass whose scores are averaged over the symmetric views of the images; all else is of the images as they are."""
    plain, *turned = symmetries(images, views)
    others = [network(view, *arguments, **options).scores for view in turned]
    found = network(plain, *arguments, record=record, memory=memory, **options)
    return replace(found, scores=torch.stack([found.scores, *others]).mean(0)) if others else found


def on_scale(values: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
    """`values` on the line that gives the numbers `own` the mean and the spread of `wanted`, over the last dimension."""
    spread, unit = (part.std(-1, correction=0, keepdim=True) for part in (own, wanted))
    least = (1e-6 * unit).clamp_min(1e-12)  # rounding is no order
    return (values - own.mean(-1, keepdim=True)) / spread.maximum(least) * unit + wanted.mean(-1, keepdim=True)


@dataclass
class EpisodeBatch:
    """The episodes that are adapted together: what their passes share.

    Attributes:
        images: (E·B, 3, H, W). copies: by name, likewise. source: the source's pass over the images.
        carried: moments of a stream.
    """

    network: Stateless
    recipe: Recipe
    images: Tensor
    copies: dict[str, Tensor]
    source: Pass
    episodes: int
    carried: dict[str, Moments]
    views: dict[str, Tensor] = field(init=False)
    rows: Tensor = field(init=False)
    layout: Layout = field(init=False)

    def __post_init__(self):
        size, crops = len(self.images) // self.episodes, self.recipe.inference.crops_per_image
        self.views = {"clean": self.images} | self.copies
        blocks = [rows.unflatten(0, (self.episodes, size)) for rows in self.views.values()]  # (E, B, 3, H, W) each
        self.rows = torch.cat(blocks, 1).flatten(0, 1) if len(blocks) > 1 else self.images  # (E·V·B, 3, H, W)
        self.layout = Layout(self.episodes, size, crops)

    @property
    def sign(self) -> float:
        return 1.0 if self.network.model.higher_is_better else -1.0

    def picked(self) -> tuple[dict[str, Tensor], list[str]]:
        """The parameters to adapt, and names that the model does not know."""
        assert self.recipe.optimisation is not None
        found = dict(self.recipe.optimisation.params(self.network.model))
        known = dict(self.network.model.named_parameters(remove_duplicate=False))
        unique = {id(known[name]): name for name in reversed(found) if name in known}  # tied: under their first name
        return (
            {name: known[name] for name in found if name in known and unique[id(known[name])] == name},
            [name for name in found if name not in known],
        )

    def score(
        self, params: dict[str, Tensor], memory: Memory | None = None, statistics: Statistics | None = None
    ) -> Pass:
        """The images' scores under a rule, the recipe's unless said, averaged over the symmetric views."""
        inference = self.recipe.inference
        kept = memory.of_images(self.layout) if memory and self.source.rowwise else None
        layout = replace(self.layout, images=None)
        with torch.no_grad():
            return averaged(
                self.network,
                self.images,
                inference.views,
                statistics or inference.statistics,
                params,
                memory=kept,
                layout=layout,
                carried=self.carried,
            )

    def others(self) -> list[Tensor]:
        """Scores (E·B,) of the source's parameters under each further rule of the ensemble, on the source's scale."""
        rules = self.recipe.inference.ensemble
        plain = [self.source if rule == Source() else self.score({}, statistics=rule) for rule in rules]
        return [self.matched(found.scores) for found in plain]

    def matched(self, scores: Tensor) -> Tensor:
        """(E·B,) → the same with the mean and the spread of the source's scores, episode by episode."""
        own, source = (part.unflatten(0, (self.episodes, -1)) for part in (scores, self.source.scores))
        return on_scale(own, own, source).flatten()

    def combined(self, scores: Tensor, others: list[Tensor]) -> Tensor:
        """What is returned for scores (E·B,): as they are, or on the source's scale and averaged with `others`."""
        if not others and not self.recipe.inference.match_source:
            return scores
        return torch.stack([self.matched(scores), *others]).mean(0)

    def gradient(self, layout: Flat, flat: Tensor, memory: Memory) -> tuple[list[Tensor], Tensor | None, list[dict]]:
        """The loss of each episode, the gradient (E, P) of their sum, or None where nothing depends on the parameters."""
        with torch.enable_grad():
            found = self._forward(layout.views(flat), memory)
            losses, notes = [], []
            for context in self._contexts(found):
                loss, note = episode_loss(self.recipe.losses, context, self.sign)
                losses.append(loss)
                notes.append(note)
            if not any(loss.requires_grad for loss in losses):
                return losses, None, notes
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), [flat], allow_unused=True)
        return losses, gradient, notes

    def _forward(self, params: dict[str, Tensor], memory: Memory) -> Pass:
        """One pass over the images and their copies, which are normalised with the images' moments."""
        assert self.recipe.optimisation is not None
        options = {
            "carried": self.carried,
            "record": any(loss.needs_moments for loss in self.recipe.losses),
            "through": self.recipe.optimisation.grad_through_statistics,
        }
        rule = self.recipe.inference.statistics
        if self.source.rowwise:
            return self.network(self.rows, rule, params, layout=self.layout, memory=memory, **options)
        # Some layer cannot tell the rows apart: the images first, then their copies under the same moments.
        images = self.network(self.images, rule, params, **options)
        options |= {"carried": images.used, "record": False}
        copies = [self.network(copy, Carried(), params, **options) for copy in self.copies.values()]
        passes = [images, *copies]
        return replace(
            images,
            scores=torch.cat([one.scores for one in passes]),
            features=torch.cat([one.features for one in passes if one.features is not None]),
        )

    def _contexts(self, found: Pass) -> Iterator[Context]:
        """Cut the rows of one pass into what each episode's losses see."""
        model, size = self.network.model, self.layout.images or 0
        assert is_scoring_model(model) and found.features is not None and self.source.features is not None
        mean, cov = model.feature_mean, model.feature_cov
        score_mean, score_std = model.score_mean, model.score_std
        for e, rows in enumerate(
            zip(found.scores.chunk(self.episodes), found.features.chunk(self.episodes), strict=True)
        ):
            own = slice(e * size, (e + 1) * size)
            scores, features = (dict(zip(self.views, part.split(size), strict=True)) for part in rows)
            f0, s0 = self.source.features[own], self.source.scores[own]
            yield Context(
                features=features,
                scores={name: self.sign * part for name, part in scores.items()},
                images={name: part[own] for name, part in self.views.items()},
                pseudo_scores=self.sign * s0,
                feature_mean=f0.mean(0) if mean is None else mean,
                feature_std=(f0.std(0, correction=0) if cov is None else cov.diagonal().sqrt()).clamp_min(1e-6),
                score_mean=self.sign * (s0.mean() if score_mean is None else score_mean),
                score_std=(s0.std(correction=0) if score_std is None else score_std).clamp_min(1e-6),
                model=model,
                moments={
                    layer: (of_source, Moments(batch.mean[e], batch.var[e]))
                    for layer, (of_source, batch) in found.measured.items()
                },
            )

    def notes(self, final: Pass) -> dict[str, str]:
        """What of the recipe could not reach the model."""
        if self.recipe.inference.statistics.uses_batch and not final.used:
            return {"statistics": "no BatchNorm layer ran in the model's pass: it may normalise by hand"}
        return {}


def episode_loss(losses: tuple[PlainLoss, ...], context: Context, sign: float) -> tuple[Tensor, dict]:
    """Weighted sum of one episode's losses; and what the trace shall tell of it."""
    values: dict[str, Tensor] = {}
    for loss in losses:
        name = loss.name
        if name in values or name in ("loss", "scores"):  # two lambdas, or a name that the trace needs itself
            name = f"{name}-{len(values) + 1}"
        values[name] = loss.weight * loss(context)
    total = torch.stack([value.reshape(()) for value in values.values()]).sum()
    trace = {"loss": total.detach(), **{name: value.detach() for name, value in values.items()}}
    trace["scores"] = sign * context.scores["clean"].detach()
    return total, {"trace": trace, "skipped": context.skipped, "depends": total.requires_grad}
