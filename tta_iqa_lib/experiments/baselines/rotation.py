"""TTT: by how many quarter turns was it turned?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...adaptation.context import Context
from ...models.quality import ScoringModel
from ...models.training import score_all
from .turns import Turns


@dataclass(frozen=True)
class Rotation:
    """TTT [sun2020ttt]: tell by how many quarter turns an image was turned, with a head trained on the source.

    Attributes:
        head: features (B, D) → logits (B, 4); see `rotation_head`.
    """

    head: nn.Linear
    weight: float = 1.0
    copies: Turns = field(default_factory=lambda: Turns(3))

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
