"""Adapting scorers that keep their promises or break some: whom exercise 12.5 has reviewed."""

from collections.abc import Callable

import torch

from ...adaptation.adapter import Adapter
from ...adaptation.rules import Batch, Ema
from .fresh import source_model


def suspects() -> list[tuple[Callable[[], Callable], set[str], str]]:
    """(makes a fresh scorer, the promises that it breaks, what to tell somebody who judges otherwise)."""
    model = source_model()
    adapter = Adapter(model, statistics=Batch())

    def remembers(share):
        streaming = Adapter(model, statistics=Ema(share))
        block = streaming.online()
        block.__enter__()
        return lambda images, block=block: streaming(images)  # the block lasts as long as the scorer

    def looks_back():
        before: list[torch.Tensor] = []

        def score(images):
            both = adapter(torch.cat([*before[-1:], images]))
            before.append(images.clone())
            return both[-len(images) :]

        return score

    def writes(then: Callable = adapter):
        return lambda images: then(images.mul_(0.9))

    def out_of_step(turn):
        return lambda: lambda images: turn(adapter(images))

    def drifts(step):
        calls: list[int] = []

        def score(images):
            calls.append(1)
            return adapter(images) + step * len(calls)

        return score

    return [
        (
            lambda: lambda images: images[:, 0, 0, 0].clone(),
            set(),
            "a sound scorer was refused: where the pictures change places, `images[p]`, compare with the first scores in "
            "the same places, `first[p]`",
        ),
        (
            lambda: adapter,
            set(),
            "a sound scorer was refused: scores that differ by less than .0001 differ by rounding",
        ),
        (
            lambda: remembers(0.3),
            {"repeat"},
            "a stream carries statistics from batch to batch; the same batch gets other scores",
        ),
        (
            lambda: remembers(0.01),
            {"repeat"},
            "a stream that learns slowly passes: its scores move by some thousandths",
        ),
        (looks_back, {"repeat"}, "a scorer whose scores depend on the batch before passes: try `others` in between"),
        *(
            (
                lambda step=step: drifts(step),
                {"repeat"},
                f"scores that {how} with each call pass: differences have no sign",
            )
            for step, how in ((0.01, "rise"), (-0.01, "fall"))
        ),
        (
            out_of_step(lambda scores: scores.roll(1)),
            {"order"},
            "scores that belong to their neighbours pass: shuffle the pictures (moving all on by one cannot show it), and "
            "compare picture by picture",
        ),
        (out_of_step(lambda s: s.flip(0)), {"order"}, "scores in reverse order pass: reversed pictures cannot show it"),
        (
            lambda: lambda images: torch.cat([adapter(half) for half in images.split(4)]),
            {"order"},
            "a scorer that adapts to the first four and the last four apart passes: shuffle all pictures",
        ),
        (lambda: writes(), {"input"}, "a scorer that darkens the pictures it is given passes"),
        (
            lambda: lambda images: adapter(images.mul_(1 - 5e-5)),
            {"input"},
            "a scorer that changes its pictures by very little passes: the tolerance is for scores; pictures must be equal",
        ),
        (lambda: writes(remembers(0.3)), {"input", "repeat"}, "two promises are broken; name both"),
    ]
