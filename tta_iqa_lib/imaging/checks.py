"""What cannot be is refused in one wording: the name of the argument, what it wants, what it got."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def check_count(name: str, value: object, smallest: int) -> None:
    """A whole number of at least `smallest`.

    Raises:
        ValueError: it is not; True and 2.0 are none, either.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < smallest:
        raise ValueError(f"{name} must be a whole number of at least {smallest}; got {value!r}")


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, above: bool = False) -> None:
    """A finite number in [low, high], or with `above` in (low, high].

    Raises:
        ValueError: it is not; True and NaN are none, either.
    """
    number: Any = math.nan if isinstance(value, bool) or not isinstance(value, Real) else value
    if -math.inf < number < math.inf and (low < number if above else low <= number) and number <= high:
        return  # NaN fails every comparison
    if high < math.inf:
        wanted = f"lie in {'(' if above else '['}{low:g}, {high:g}]"
    else:
        wanted = "be a finite number"
        if low > -math.inf:
            wanted += f" {'above' if above else 'of at least'} {low:g}"
    raise ValueError(f"{name} must {wanted}; got {value!r}")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """One of some texts or whole numbers.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, (str, Integral)) or isinstance(value, bool) or value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}; got {value!r}")


def as_tuple(name: str, values: Iterable) -> tuple:
    """The members of a list or another sequence; a text is none.

    Raises:
        TypeError: it has no members.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list or a tuple; got {values!r}")
    return tuple(values)


def check_images(images: object, smallest: int = 1) -> None:
    """Floating-point images (B, 3, H, W), of at least a pixel, B at least `smallest`. Of their values see `check_range`.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"expected images as a tensor (B, 3, H, W); got {type(images).__name__}")
    right = images.ndim == 4 and images.shape[1] == 3 and min(images.shape[2:]) > 0
    if not (right and len(images) >= smallest and images.is_floating_point()):
        got = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"expected floating-point images (B, 3, H, W) with B ≥ {smallest}; got {got}")


def check_image(image: object) -> None:
    """A picture (3, H, W) of at least a pixel.

    Raises:
        ValueError: it is not.
    """
    got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
    if not (isinstance(image, Tensor) and image.ndim == 3 and len(image) == 3 and image.numel()):
        raise ValueError(f"expected an image (3, H, W); got {got}")


def check_range(images: Tensor) -> None:
    """RGB in [0, 1]; a hundredth beyond is passed over, as a resized picture overshoots. It waits for the device.

    Raises:
        ValueError: values beyond it, or that are not finite.
    """
    low, high = torch.stack(images.detach().aminmax()).tolist()  # one transfer from the device
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("the images hold values that are not finite (NaN or infinity)")
    if low < -0.01 or high > 1.01:
        raise ValueError(
            f"expected RGB in [0, 1]; got values from {low:.3g} to {high:.3g}. "
            "Divide 8-bit values by 255, and leave normalising to the model (wrap_model(…, normalise=…))"
        )
