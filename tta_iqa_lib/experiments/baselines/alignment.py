"""SSA and PSC: features with the moments of the source, along its principal axes and across them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...adaptation.context import Context


@dataclass(frozen=True)
class SubspaceAlignment:
    """SSA [adachi2025ssa]: in the directions in which the source's features vary, the batch should have their moments.

    A symmetric Kullback-Leibler divergence between Gaussians along each of the first principal axes of the source's
    features, weighted by how much an axis matters to the regressor.

    Attributes:
        axes: how many principal axes count.
        complement: align what is left outside the axes as well, its mean and its variance as a whole: after PSC, the
            successor of SSA.
    """

    weight: float = 1.0
    axes: int = 20
    complement: bool = False

    def __call__(self, context: Context) -> Tensor:
        if len(context.pseudo_scores) < 2:
            return context.skip("SubspaceAlignment", "needs at least 2 images in a batch; got 1")
        model = context.model
        if model is None or model.feature_mean is None or model.feature_cov is None:
            return context.skip("SubspaceAlignment", "the model remembers no covariance of its source features")
        spectrum, vectors = torch.linalg.eigh(model.feature_cov)
        values, vectors = spectrum[-self.axes :].clamp_min(1e-8), vectors[:, -self.axes :]
        centred = context.features["clean"] - model.feature_mean
        along = centred @ vectors / values.sqrt()  # source: mean 0, variance 1
        mean, var = along.mean(0), along.var(0, correction=0).clamp_min(1e-4)
        divergence = (var + mean**2 + (1 + mean**2) / var - 2) / 2
        importance = torch.ones_like(values)
        regressor = getattr(model, "regressor", None)
        if isinstance(regressor, nn.Linear):
            importance = 1 + (regressor.weight[0] @ vectors).abs() / regressor.weight.norm()
        loss = (importance * divergence).mean()
        if self.complement and len(spectrum) > self.axes:
            across = centred - centred @ vectors @ vectors.T
            unit = spectrum[: -self.axes].sum().clamp_min(1e-8)  # the source's variance outside the axes
            mean, var = across.mean(0).square().sum() / unit, (across.var(0, correction=0).sum() / unit).clamp_min(1e-4)
            loss = loss + (var + mean + (1 + mean) / var - 2) / 2
        return loss
