"""The published procedure, as a switchboard of its faults.

A second implementation, on purpose: it moves BatchNorm's running statistics by PyTorch's own training mode, as the authors'
code does, and can commit five of that code's faults one by one. Written from a description, not copied. The library's own
loop (`adapt`) has none of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..adaptation import batchnorm_layers, norm_affine
from ..adaptation.batches import balanced_batches
from ..adaptation.functional import group_contrastive_loss, relative_rank_loss
from ..imaging.distortions import distort, gaussian_noise, jpeg_compress
from ..models.quality import ScoringModel

FAULTS = {
    "no-zero-grad": "gradients add up over steps and batches, and Adam's memory survives the reset",
    "box-blur": "mild and severe blur are the same box filter, on average to a twentieth of a grey level",
    "gc-off": "one batch of at most three images turns the group contrastive loss off for good",
    "train-mode": "scores are predicted in training mode, with the batch's own statistics",
    "log-mean": "the group contrastive loss is −log mean P instead of −mean log P",
}


def box_blur(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian cut to 5×5 taps, (B, 3, H, W): at σ ≥ 5 all taps are alike."""
    offsets = torch.arange(-2, 3, dtype=images.dtype, device=images.device)
    profile = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (profile[:, None] * profile / profile.sum() ** 2).expand(3, 1, 5, 5)
    return conv2d(pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)


@dataclass
class Published:
    """Rank and group contrastive loss, three Adam steps on γ and β, in training mode; reset after each batch.

    The γ and β are BatchNorm's; of a model without, those of its other normalisation layers.

    Attributes:
        model: the source model; a copy is adapted.
        faults: names out of `FAULTS`; none: the procedure as described, `tuple(FAULTS)`: the reference mode.
        gradients: False replays the same forward passes and moves nothing but the running statistics: the matched control.
        seed: of the distorted copies.
        before: a first batch of so many images, adapted to and thrown away: the short end of a data set that the run went
            through before. Only what outlives a batch can make a difference.
    """

    model: ScoringModel
    faults: Iterable[str] = ()
    gradients: bool = True
    steps: int = 3
    lr: float = 1e-3
    seed: int = 0
    before: int = 0

    def __post_init__(self):
        self.faults = tuple(self.faults)
        if not norm_affine(self.model):
            raise ValueError("nothing to adapt: the model has no normalisation layer with γ and β")
        unknown = sorted(set(self.faults) - set(FAULTS))
        if unknown:
            raise ValueError(f"no fault '{unknown[0]}'; there are {', '.join(FAULTS)}")

    @property
    def carries(self) -> bool:
        """Whether a batch's scores depend on the batches before it."""
        return bool({"no-zero-grad", "gc-off"} & set(self.faults))

    def predict(self, images: Tensor, batch_size: int = 32, shuffle: bool = False) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,), batch after batch, as a stream."""
        ended = [list(range(self.before))] if self.before else []
        batches = (images[rows] for rows in ended + balanced_batches(len(images), batch_size))
        return torch.cat(list(self.stream(batches))[len(ended) :])

    @torch.inference_mode(False)
    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Batches (B, 3, H, W) in [0, 1] → scores (B,) of each, as they come."""
        model = copy.deepcopy(self.model).eval()
        source = {name: t.clone() for name, t in model.state_dict().items()}
        layers = batchnorm_layers(model)
        params = [p for layer in layers.values() for p in layer.parameters(recurse=False)]
        params = params or list(norm_affine(model).values())  # a transformer's LayerNorm
        for p in model.parameters():
            p.requires_grad_(False)
        for p in params:
            p.requires_grad_(self.gradients)
        optimizer, contrast = torch.optim.Adam(params, self.lr), True
        for batch in batches:
            model.load_state_dict(source)
            if "no-zero-grad" not in self.faults:
                optimizer = torch.optim.Adam(params, self.lr)
                optimizer.zero_grad()
            enough = len(batch) >= 4
            if not enough and "gc-off" in self.faults:
                contrast = False
            self._adapt(model, layers, batch, optimizer, contrast and enough)
            model.train("train-mode" in self.faults)
            with torch.no_grad():
                scores = model(batch)
            model.eval()
            yield scores

    def _adapt(self, model, layers, batch: Tensor, optimizer, contrast: bool) -> None:
        with torch.no_grad():
            pseudo = model(batch)
            mild, severe = self._copies(model, batch)
        pseudo = pseudo if model.higher_is_better else -pseudo
        for layer in layers.values():
            layer.train()  # from here on every forward pass moves the running statistics
        with torch.set_grad_enabled(self.gradients):
            for _ in range(self.steps):
                if "no-zero-grad" not in self.faults:
                    optimizer.zero_grad()
                # In the authors' order: mild, severe, clean; then clean again for the contrastive loss.
                z_mild, z_severe, z = (model(x, with_features=True)[1] for x in (mild, severe, batch))
                loss = relative_rank_loss(*(self._units(f) for f in (z, z_mild, z_severe)))
                if contrast:
                    features = self._units(model(batch, with_features=True)[1])
                    form = "log-mean" if "log-mean" in self.faults else "mean-log"
                    loss = loss + group_contrastive_loss(features, pseudo, form=form)
                if self.gradients:
                    loss.backward()
                    optimizer.step()
        model.eval()

    def _units(self, features: Tensor) -> Tensor:
        """Features in source deviations, as in the library's own losses, so that only the switches differ."""
        mean, cov = self.model.feature_mean, self.model.feature_cov
        if mean is None or cov is None:
            return features
        std = cov.diagonal().sqrt().clamp_min(1e-6)
        return (features - mean) / std / features.shape[1] ** 0.5

    def _copies(self, model, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Mild and severe copies at the published levels, of the kind whose scores differ most, image by image."""
        generator = torch.Generator(batch.device).manual_seed(self.seed)
        ones = torch.ones(len(batch), device=batch.device)
        pairs = [
            (jpeg_compress(batch, 85 * ones), jpeg_compress(batch, 50 * ones)),
            # severity s has σ = 0.2 s²: variances of 1e-5 and 5e-5
            tuple(gaussian_noise(batch, (v**0.5 / 0.2) ** 0.5 * ones, generator).clamp(0, 1) for v in (1e-5, 5e-5)),
            (box_blur(batch, 12), box_blur(batch, 50))
            if "box-blur" in self.faults
            else (distort(batch, "blur", 0.3), distort(batch, "blur", 0.7)),
        ]
        gaps = torch.stack([(model(mild) - model(severe)).abs() for mild, severe in pairs])
        choice, rows = gaps.argmax(0), torch.arange(len(batch), device=batch.device)
        mild, severe = (torch.stack(side)[choice, rows] for side in zip(*pairs, strict=True))
        return mild, severe
