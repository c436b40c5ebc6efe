"""A blind quality model: normalise → features f → regressor g.

`model(images)` takes RGB in [0, 1], shape (B, 3, H, W), and gives scores (B,); input normalisation lives inside, so it
cannot be forgotten. `model(images, with_features=True)` gives (scores (B,), features (B, D)).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..imaging.checks import as_tuple, check_choice, check_count, check_number
from ..imaging.crops import VIEWS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOMENTS = ("feature_mean", "feature_cov", "score_mean", "score_std")


class ScoringModel(nn.Module):
    """What every scorer of the library shares: the direction of its scores, the crop it likes, the source's moments.

    Attributes:
        higher_is_better: the direction of the scores.
        crop: height and width of the crops it was trained on, or None (any size).
        predicts: what the scores mean, in words.
        views: how many of the `imaging.symmetries` it was trained to score alike: 1, 2 (mirrored) or 8 (turned, too).
        side: pixels of the shorter side of the pictures it was trained on, or None (any size); larger ones are reduced to it.
        recipe: name of the recipe that it is adapted by (`adaptation.RECIPES`), or None: the default one.
        feature_mean: (D,), mean of the features over the source data, or None; as the three that follow.
        feature_cov: (D, D), their covariance.
        score_mean: (), mean of the scores over the source data.
        score_std: (), their standard deviation.
    """

    feature_mean: Tensor | None
    feature_cov: Tensor | None
    score_mean: Tensor | None
    score_std: Tensor | None

    def __init__(
        self,
        higher_is_better: bool = True,
        crop: int | None = None,
        predicts: str = "quality",
        views: int = 1,
        side: int | None = None,
        recipe: str | None = None,
    ):
        super().__init__()
        check_choice("views", views, VIEWS)
        for name, pixels in (("crop", crop), ("side", side)):
            if pixels is not None:
                check_count(name, pixels, 1)
        self.higher_is_better, self.predicts = higher_is_better, predicts
        self.crop, self.views, self.side, self.recipe = crop, views, side, recipe
        for name in MOMENTS:
            self.register_buffer(name, None)

    def set_moments(self, **moments: Tensor) -> None:
        """Remember the source's moments; names as in `MOMENTS`."""
        for name, value in moments.items():
            if name not in MOMENTS:
                raise KeyError(f"no source moment '{name}'")
            setattr(self, name, value.detach().clone())

    def forward(self, images: Tensor, with_features: bool = False):
        """(B, 3, H, W), RGB in [0, 1] → scores (B,); with features, (scores, features (B, D))."""
        raise NotImplementedError


def per_channel(name: str, values: float | Sequence[float], above: float = -math.inf) -> list[float]:
    """One finite number above `above` for all channels, or three, one each.

    Raises:
        TypeError, ValueError: they are not.
    """
    given: Any = values.tolist() if isinstance(values, Tensor) else values
    numbers = [given] if isinstance(given, Real) else as_tuple(name, given)
    for number in numbers:
        check_number(name, number, above, above=True)
    if len(numbers) not in (1, 3):
        raise ValueError(f"{name} must hold one number, or one for each of three channels; got {values!r}")
    return [float(number) for number in numbers]


class QualityModel(ScoringModel):
    """Your own two halves: `features` maps images to (B, D), `regressor` maps (B, D) to (B, 1) or (B,).

    Args:
        features, regressor: the modules f and g.
        mean, std: per-channel normalisation of RGB in [0, 1].
        about: higher_is_better, crop, predicts, views, side, recipe; see `ScoringModel`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: nn.Module,
        regressor: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **about,
    ):
        super().__init__(**about)
        self.features, self.regressor = features, regressor
        self.register_buffer("mean", torch.tensor(per_channel("mean", mean)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(per_channel("std", std, above=0)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor, with_features: bool = False):
        """(B, 3, H, W) in [0, 1] → scores (B,); with features: (scores (B,), features (B, D))."""
        features = self.features((images - self.mean) / self.std).flatten(1)
        scores = self.regressor(features).reshape(images.shape[0])
        return (scores, features) if with_features else scores


def __getattr__(name: str):
    """What stood here once and now has a module of its own."""
    from . import saving, small, wrapping

    moved = {
        small: ("Block", "SmallResNet", "small_model"),
        wrapping: ("WrappedModel", "wrap_model"),
        saving: ("data_folder", "load_source_model", "read_about", "save_model"),
    }
    for module, names in moved.items():
        if name in names:
            thing = getattr(module, name)
            warnings.warn(f"{name} is now in {thing.__module__}", DeprecationWarning, stacklevel=2)
            return thing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
