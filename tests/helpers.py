"""Models, images and losses small enough for unit tests, and a photograph of a module's whole state."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import (
    Adaptive,
    Batch,
    Blend,
    Ema,
    First,
    GroupContrastive,
    Layout,
    Moments,
    Pass,
    RelativeRank,
    Shrink,
    Source,
    Stateless,
    batchnorm_layers,
)
from tta_iqa_lib.adaptation.context import Context
from tta_iqa_lib.models.quality import QualityModel, ScoringModel


def seeded(build, seed: int = 0):
    """`build()` with PyTorch's global generator seeded, and left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _settle(model: nn.Module) -> nn.Module:
    """Moments, γ and β that are not those of a fresh layer, so that no test can pass by leaving them out."""
    with torch.no_grad():
        for layer in batchnorm_layers(model).values():
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0, 0.2)
    return model.eval()


def tiny_model(seed: int = 0, **about) -> QualityModel:
    """A `small_model` of two narrow stages, in evaluation mode."""
    return seeded(lambda: _settle(tta.small_model((4, 6), **about)), seed)


def tiny_mixed(seed: int = 0) -> nn.Sequential:
    """BatchNorm of images and BatchNorm of vectors in one module, (B, 3, H, W) → (B, 1)."""

    def build():
        return nn.Sequential(
            nn.Conv2d(3, 5, 3, 2), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 3, 2), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1),
        )  # fmt: skip

    return seeded(lambda: _settle(build()), seed)


def pictures(count: int, size: int = 32, seed: int = 0) -> Tensor:
    """(count, 3, size, size) in [0, 1]: soft shapes of differing contrast with a little grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = interpolate(torch.rand(count, 3, 5, 5, generator=generator), (size, size), mode="bicubic")
    contrast = 0.3 + 0.7 * torch.rand(count, 1, 1, 1, generator=generator)
    grain = 0.05 * torch.randn(count, 3, size, size, generator=generator)
    return (0.5 + contrast * (coarse - 0.5) + grain).clamp(0, 1)


def vectors(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    """(count, width) in double precision."""
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def context(features: dict[str, Tensor], pseudo_scores: Tensor, scores: dict[str, Tensor] | None = None) -> Context:
    """A `Context` of given features and scores whose source had mean 0 and deviation 1."""
    clean = features["clean"]
    width = clean.shape[1]
    return Context(
        features=features,
        scores=scores or {"clean": pseudo_scores},
        images={},
        pseudo_scores=pseudo_scores,
        feature_mean=clean.new_zeros(width),
        feature_std=clean.new_ones(width),
        score_mean=clean.new_zeros(()),
        score_std=clean.new_ones(()),
    )


def snapshot(module: nn.Module) -> dict:
    """Everything of a module that a borrower could have changed, comparable with ==.

    Tensors by identity, bytes and version counter (which also betrays a change that was undone), gradients, modes,
    hooks, and the attributes of every submodule.
    """
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {
        "tensors": [
            (name, id(t), t._version, t.requires_grad, t.grad is None, t.detach().cpu().numpy().tobytes())
            for name, t in tensors
        ],
        "modules": [
            (
                name,
                part.training,
                sorted(vars(part)),
                id(vars(part).get("forward")),
                [len(value or ()) for key, value in sorted(vars(part).items()) if key.endswith("_hooks")],
            )
            for name, part in module.named_modules()
        ],
    }


def plain(*levels: float) -> Tensor:
    """One image of 8 × 8 equal pixels for each level."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()


METHOD = (RelativeRank(), GroupContrastive())
FAST = (GroupContrastive(),)  # no copies
RULES = [
    Source(),
    Batch(),
    Blend(0.7),
    Blend(0.7, exact=False),
    Shrink(4),
    Ema(0.3),
    Adaptive(),
    First(Blend(0.7), 0.5),
]
MODELS = {"images": tiny_model, "images and vectors": tiny_mixed}


def plain_scores(model, images) -> Tensor:
    """(B,) of plain inference."""
    with torch.no_grad():
        return model(images)


def mean_score(context) -> Tensor:
    """A loss of somebody's own: raise the scores."""
    return -context.scores["clean"].mean()


def far(a: Tensor, b: Tensor, margin: float = 1e-6) -> bool:
    """Does some element differ by more than `margin`?"""
    return not torch.allclose(a, b, rtol=0, atol=margin)


class LayerNormModel(ScoringModel):
    """A quality model without BatchNorm: `norm` stands between its features and its scores."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, 4), norm, nn.Linear(6, 1)

    def forward(self, images, with_features=False):
        features = self.norm(self.conv(images).relu().mean((2, 3)))
        scores = self.head(features)[:, 0]
        return (scores, features) if with_features else scores


def moments_of(x: Tensor) -> Moments:
    """Mean and variance per channel of (N, C, …), by their definitions."""
    flat = x.transpose(0, 1).flatten(1)
    mean = flat.mean(1)
    return Moments(mean, (flat - mean[:, None]).square().mean(1))


def close(a, b, tolerance: float = 1e-12) -> bool:
    """Are two sequences of tensors equal to rounding?"""
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in zip(a, b, strict=True))


def one_pass(model, rule, rows, params=None, grad=False, episodes=1, images=None, **options) -> Pass:
    """One pass; `episodes` and `images` are its layout."""
    with torch.set_grad_enabled(grad):
        return Stateless(model)(rows, rule, params, layout=Layout(episodes, images), **options)


def moments_used(model, rule, rows, **options) -> dict[str, Moments]:
    """By layer, the moments that a pass normalised with."""
    return one_pass(model, rule, rows, **options).used


def series(count: int, width: int = 6, spread: float = 1.0, seed: int = 0) -> Tensor:
    """(count, width, 3, 3): each image has means of its own, N(0, spread²), and pixels of deviation 1 around them."""
    generator = torch.Generator().manual_seed(seed)
    means = spread * torch.randn(count, width, 1, 1, generator=generator, dtype=torch.float64)
    return means + torch.randn(count, width, 3, 3, generator=generator, dtype=torch.float64)


def tiny_scorer() -> QualityModel:
    """By name, for a command line: `--model helpers:tiny_scorer`."""
    return tiny_model(crop=32)
