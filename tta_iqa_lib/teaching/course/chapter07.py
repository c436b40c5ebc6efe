"""Chapter 7, the group contrastive loss: its checkers."""

import math
from functools import cache

import torch
from torch.overrides import TorchFunctionMode

from ...datasets.tinyshift import tinyshift
from ...imaging.distortions import distort
from .checker import Wrong, checker, close, yes_or_no
from .fresh import source_model


class _Calls(TorchFunctionMode):
    """Notes the names of the functions of PyTorch that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


READY_MADE = {"logsumexp", "logaddexp", "log_softmax", "softmax", "cross_entropy", "softplus", "logsigmoid"}


@checker("ex07_1")
def ex07_1(log_ratio):
    """`log_ratio(positive, negatives, temperature) -> (B,)`: equation (1) at any temperature, with max, exp and log alone."""
    positive = torch.tensor([0.5, -0.2], dtype=torch.float64)
    negatives = torch.tensor([[0.1, 0.4, -0.6], [0.3, 0.3, 0.9]], dtype=torch.float64)
    tau = 0.5

    def by_hand(combine):
        rows = zip(positive.tolist(), negatives.tolist(), strict=True)
        return [combine(math.exp(p / tau), [math.exp(s / tau) for s in row]) for p, row in rows]

    with _Calls() as calls:
        found = torch.as_tensor(log_ratio(positive, negatives, tau))
    if found.shape != (2,):
        raise Wrong(f"one number for each image: expected shape (2,), got {tuple(found.shape)}")
    expected = by_hand(lambda p, row: math.log(p / (p + sum(row))))
    for wrong, reason in (
        ([-v for v in expected], "this is −log P; the exercise asks for log P, which is never positive"),
        ([math.exp(v) for v in expected], "this is P itself; return its logarithm"),
        (
            by_hand(lambda p, row: math.log(p / sum(row))),
            "the positive belongs into the denominator, too, or P can exceed one",
        ),
        (by_hand(lambda p, row: math.log(p / (p + sum(row) / 3))), "add the negatives up; this takes their mean"),
    ):
        if close(found, wrong):
            raise Wrong(reason)
    if not close(found, expected):
        raise Wrong(
            "the value is not log P with every similarity divided by the temperature; equation (3) has the steps"
        )
    rows = torch.tensor([1.0, -1.0, -0.5]), torch.tensor([[0.9, 1.0], [1.0, -1.0], [-0.6, -0.5]])
    cold = torch.as_tensor(log_ratio(*rows, 0.001))
    if not torch.isfinite(cold).all():
        raise Wrong(
            "at a temperature of 0.001 it overflows, or takes the logarithm of zero: before the exponential subtract, in "
            "each row, the largest of the positive and the negatives"
        )
    if not close(cold, [-math.log(2), -2000.0, -math.log(2)]):
        raise Wrong("at a temperature of 0.001 the value is wrong; is something clamped or rounded on the way?")
    if used := calls.names & READY_MADE:
        raise Wrong(f"right, with `{min(used)}` ready made; now write it yourself, with max, exp, sum and log")


@cache
def _scores() -> tuple[torch.Tensor, torch.Tensor]:
    """The source model's scores of crops of its own kind, and of the same crops in haze, both from the worst to the best."""
    model, (images, quality, _) = source_model(), tinyshift("source/test")
    images = images[quality.argsort()]
    with torch.no_grad():
        plain, hazy = (torch.cat([model(part) for part in x.split(50)]) for x in (images, distort(images, "haze", 0.5)))
    return plain, hazy


def _apart(scores: torch.Tensor) -> float:
    """How far the mean of the best quarter lies above that of the worst."""
    ranking, k = scores.sort().values, max(2, len(scores) // 4)
    return float(ranking[-k:].mean() - ranking[:k].mean())


@checker("ex07_2")
def ex07_2(worth_grouping):
    """`worth_grouping(scores, home) -> bool`: are the groups of a folder half as far apart as those at home?"""
    generator, (home, hazy) = torch.Generator().manual_seed(72), _scores()
    worst = slice(len(home) // 5)

    def find(pictures, low, high):
        """24 scores whose groups are so far apart, compared with those of `home`."""
        while True:
            scores = pictures[torch.randperm(len(pictures), generator=generator)[:24]]
            if low < _apart(scores) / _apart(home) < high:
                return scores

    def answer(scores, home=home):
        verdict = worth_grouping(scores, home)
        return yes_or_no(verdict)

    mixed, damaged, narrow = find(hazy, 0.7, 2), find(hazy[worst], 0, 0.42), find(home, 0.58, 0.66)
    found = {name: answer(scores) for name, scores in (("mixed", mixed), ("damaged", damaged), ("narrow", narrow))}
    if found["mixed"] < found["damaged"]:
        raise Wrong("the verdicts are turned: True where the groups are far enough apart")
    if found["damaged"]:
        raise Wrong(
            "a folder of the worst fifth only passes: its best quarter does score above its worst, as in any folder. How far, "
            "compared with `home`?"
        )
    if not (found["mixed"] and found["narrow"]):
        raise Wrong(
            "a mixed folder is refused: compare the means of its two groups, and those of the groups of `home`; half of that "
            "distance is enough"
        )
    hundred = [answer(100 * scores + 7, 100 * home + 7) for scores in (mixed, damaged)]
    if hundred != [True, False]:
        raise Wrong("on a scale of 0 to 100 the verdicts change: measure the distance in units of that of `home`")
    if answer(home[[0, len(home) // 2, -1]]):
        raise Wrong("three pictures have no two groups of two: the answer is False, whatever their scores")


@checker("ex07_3")
def ex07_3(pull_and_push):
    """`pull_and_push(positive, negatives, temperature) -> ((), (k,))`: the gradient of -log P, compared with autograd."""
    positive = torch.tensor(0.3, dtype=torch.float64)
    negatives = torch.tensor([0.5, -0.1, 0.2, 0.45], dtype=torch.float64)
    for tau in (0.2, 3.0):
        leaf, leaves = positive.clone().requires_grad_(), negatives.clone().requires_grad_()
        with torch.enable_grad():
            loss = torch.logsumexp(torch.cat([leaf[None], leaves]) / tau, 0) - leaf / tau
        d_positive, d_negatives = torch.autograd.grad(loss, (leaf, leaves))
        pull, push = (torch.as_tensor(part).detach() for part in pull_and_push(positive, negatives, tau))
        if push.shape != (4,) or pull.numel() != 1:
            raise Wrong(f"expected a scalar and shape (4,); got {tuple(pull.shape)} and {tuple(push.shape)}")
        pull = pull.reshape(())
        if close(pull, -d_positive) and close(push, -d_negatives):
            raise Wrong("these are the derivatives of log P; the loss is −log P, so turn both signs")
        if close(pull, tau * d_positive) and close(push, tau * d_negatives):
            raise Wrong(
                "the factor 1/τ is missing: the similarities are divided by the temperature before the exponential"
            )
        if close(push, (negatives / tau).softmax(0) / tau):
            raise Wrong(
                "the shares of the negatives must count the positive in the denominator; they do not add up to one"
            )
        if close(pull, torch.full_like(pull, -1 / tau)):
            raise Wrong("the positive stands in the denominator, too: where P is near one, nothing pulls any more")
        if not close(push, d_negatives):
            raise Wrong(
                "the derivative for the negatives is not share / τ, the share taken among positive and negatives"
            )
        if not close(pull, d_positive):
            raise Wrong("the derivative for the positive is not (P − 1) / τ; all derivatives together add up to zero")
    pull, push = (torch.as_tensor(p) for p in pull_and_push(torch.tensor(0.3), torch.tensor([0.9, 0.2]), 0.001))
    if not (torch.isfinite(pull).all() and torch.isfinite(push).all()):
        raise Wrong("at a temperature of 0.001 it overflows: use softmax, which subtracts the largest exponent first")
    if not close(push.detach(), [1000.0, 0.0]):
        raise Wrong("at a temperature of 0.001 the most similar negative takes the whole push, 1/τ")
