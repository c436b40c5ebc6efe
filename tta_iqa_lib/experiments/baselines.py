"""Other methods of test-time adaptation, each in a few lines on the shared loop (chapter 9).

They were made for classification; here each is carried over to a score. Losses plug into `Adapter(losses=[…])`. The rest has
the adapter's `predict(images, batch_size, shuffle)`, so that an experiment can treat all alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..adaptation.adapter import Adapter
from ..adaptation.losses import Context
from ..imaging.crops import symmetries
from ..models.quality import ScoringModel
from ..models.training import score_all


@dataclass(frozen=True)
class Turns:
    """Maker of copies: the image turned by one, two and three quarters, as "turn1", "turn2", "turn3": as damaged as before.

    Attributes:
        count: so many of them.
        mirror: mirrored as well.
    """

    count: int = 3
    mirror: bool = False

    def __call__(self, images: Tensor, scorer, generator: torch.Generator) -> dict[str, Tensor]:
        base = images.flip(3) if self.mirror else images
        return {f"turn{turn}": base.rot90(turn, (2, 3)) for turn in range(1, self.count + 1)}


@dataclass(frozen=True)
class ScoreEntropy:
    """TENT [wang2021tent] for a score: entropy of its soft assignment to `bins` equally likely values of the source.

    The source's scores are taken as Gaussian; a score belongs to a bin's centre by a Gaussian of the bins' mean distance. The
    entropy is largest at the mean of the source, where the bins are dense: minimising it pushes scores outwards, as TENT
    pushes class scores to the corners.
    """

    weight: float = 1.0
    bins: int = 10

    def __call__(self, context: Context) -> Tensor:
        scores = (context.scores["clean"] - context.pseudo_scores.mean()) / context.score_std
        share = (torch.arange(self.bins, device=scores.device, dtype=scores.dtype) + 0.5) / self.bins
        centres = torch.special.ndtri(share)
        width = (centres[-1] - centres[0]) / (self.bins - 1)
        return (
            torch.distributions.Categorical(logits=-((scores[:, None] - centres) ** 2) / (2 * width**2))
            .entropy()
            .mean()
        )


@dataclass(frozen=True)
class ScoreVariance:
    """TENT's idea where there are no classes: scores of an image and of its turned views should agree.

    Attributes:
        copies: the turned views, at most as many as the model was trained on.
        reliable: leave out images whose views disagree by more than so many source deviations, as EATA and SAR leave out
            uncertain images [niu2022eata, niu2023sar]; None: keep all.
    """

    weight: float = 1.0
    copies: Turns = Turns(1, mirror=True)
    reliable: float | None = None

    def __call__(self, context: Context) -> Tensor:
        scores = torch.stack([context.scores[name] for name in ("clean", *self._names())]) / context.score_std
        variance = scores.var(0, correction=0)
        if self.reliable is not None:
            kept = variance.detach().sqrt() <= self.reliable
            if not kept.any():
                return context.skip("ScoreVariance", "no image's views agree well enough")
            variance = variance[kept]
        return variance.mean()

    def _names(self) -> list[str]:
        return [f"turn{i + 1}" for i in range(self.copies.count)]


@dataclass(frozen=True)
class Rotation:
    """TTT [sun2020ttt]: tell by how many quarter turns an image was turned, with a head trained on the source.

    Attributes:
        head: features (B, D) → logits (B, 4); see `rotation_head`.
    """

    head: nn.Linear
    weight: float = 1.0
    copies: Turns = Turns(3)

    def __call__(self, context: Context) -> Tensor:
        names = ("clean", "turn1", "turn2", "turn3")
        logits = torch.cat([self.head(context.standardised(name)) for name in names])
        truth = torch.arange(4, device=logits.device).repeat_interleave(len(context.pseudo_scores))
        return cross_entropy(logits, truth)


@torch.no_grad()
def rotation_head(model: ScoringModel, images: Tensor) -> nn.Linear:
    """Fit the head of `Rotation` on source images (N, 3, H, W): multinomial regression on the frozen, standardised features."""
    from sklearn.linear_model import LogisticRegression

    assert model.feature_mean is not None and model.feature_cov is not None
    turned = [images.rot90(turn, (2, 3)) for turn in range(4)]
    features = torch.cat([score_all(model, view, with_features=True)[1] for view in turned])
    features = (features - model.feature_mean) / model.feature_cov.diagonal().sqrt().clamp_min(1e-6)
    truth = torch.arange(4).repeat_interleave(len(images))
    fitted = LogisticRegression(C=0.1, max_iter=500).fit(features.numpy(), truth.numpy())
    head = nn.Linear(features.shape[1], 4)
    head.weight.copy_(torch.from_numpy(fitted.coef_))
    head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return head.requires_grad_(False)


@dataclass(frozen=True)
class ActMad:
    """ActMAD [mirza2023actmad]: the batch's activations should have the source's means and variances, layer by layer.

    As targets serve the moments that BatchNorm keeps, per channel (the original also keeps them per position).
    """

    weight: float = 1.0
    needs_moments = True

    def __call__(self, context: Context) -> Tensor:
        if not context.moments:
            return context.skip("ActMad", "the model has no BatchNorm layer that remembers its source")
        terms = []
        for source, batch in context.moments.values():
            unit = source.var.clamp_min(1e-12)
            terms += [
                ((batch.mean - source.mean).abs() / unit.sqrt()).mean(),
                ((batch.var - source.var).abs() / unit).mean(),
            ]
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class SubspaceAlignment:
    """SSA [adachi2025ssa]: in the directions in which the source's features vary, the batch should have their moments.

    A symmetric Kullback-Leibler divergence between Gaussians along each of the first principal axes of the source's
    features, weighted by how much an axis matters to the regressor.

    Attributes:
        axes: how many principal axes count.
    """

    weight: float = 1.0
    axes: int = 20

    def __call__(self, context: Context) -> Tensor:
        if len(context.pseudo_scores) < 2:
            return context.skip("SubspaceAlignment", "needs at least 2 images in a batch; got 1")
        model = context.model
        if model is None or model.feature_mean is None or model.feature_cov is None:
            return context.skip("SubspaceAlignment", "the model remembers no covariance of its source features")
        values, vectors = torch.linalg.eigh(model.feature_cov)
        values, vectors = values[-self.axes :].clamp_min(1e-8), vectors[:, -self.axes :]
        along = (context.features["clean"] - model.feature_mean) @ vectors / values.sqrt()  # source: mean 0, variance 1
        mean, var = along.mean(0), along.var(0, correction=0).clamp_min(1e-4)
        divergence = (var + mean**2 + (1 + mean**2) / var - 2) / 2
        importance = torch.ones_like(values)
        regressor = getattr(model, "regressor", None)
        if isinstance(regressor, nn.Linear):
            importance = 1 + (regressor.weight[0] @ vectors).abs() / regressor.weight.norm()
        return (importance * divergence).mean()


@dataclass(frozen=True)
class Average:
    """No adaptation: the score averaged over symmetric views and corner crops, at the compute that adaptation takes.

    Attributes:
        model: the source model.
        views: 1, 2 or 8 symmetric views.
        crops: 1, or 5: the whole and four crops of seven eighths of its side.
    """

    model: ScoringModel
    views: int = 8
    crops: int = 1

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,). Images do not influence one another."""
        height, width = (length * 7 // 8 for length in images.shape[2:])
        cuts = [images]
        if self.crops > 1:
            cuts += [
                images[..., y, x]
                for y in (slice(height), slice(-height, None))
                for x in (slice(width), slice(-width, None))
            ]
        parts = [view for cut in cuts for view in symmetries(cut, self.views)]
        return torch.stack([score_all(self.model, part) for part in parts]).mean(0)


@dataclass(frozen=True)
class PerImage:
    """MEMO's way [zhang2022memo]: each image is an episode of its own, whatever the batch size; `adapter` folds them."""

    adapter: Adapter

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        return self.adapter.predict(images, 1, shuffle=False)


@dataclass(frozen=True)
class Orders:
    """An ensemble of itself: the scores averaged over `count` orders of the images, hence over other batches."""

    adapter: Adapter
    count: int = 4

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,). The first order is that of `images`."""
        scores = []
        for seed in range(self.count):
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(images), generator=generator) if seed else torch.arange(len(images))
            part = self.adapter.predict(images[order], batch_size, shuffle=False)
            scores.append(part[order.argsort()])
        return torch.stack(scores).mean(0)


@dataclass(frozen=True)
class Stream:
    """Online: the state is carried from batch to batch, over the whole of `images`, in their order.

    Attributes:
        when: as `predict` in `Adapter.online`.
        passes: the stream shows the images so many times; the scores are those of the last time.
    """

    adapter: Adapter
    when: str = "after"
    passes: int = 1

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        with self.adapter.online(self.when):
            for _ in range(self.passes - 1):
                self.adapter.predict(images, batch_size, shuffle=shuffle)
            return self.adapter.predict(images, batch_size, shuffle=shuffle)
