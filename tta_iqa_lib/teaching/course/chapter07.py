"""Chapter 7, the group contrastive loss: its checkers."""

import math

import torch
from torch.overrides import TorchFunctionMode

from .checker import Wrong, checker, close


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
        ([-v for v in expected], "this is −log r; the exercise asks for log r, which is never positive"),
        ([math.exp(v) for v in expected], "this is r itself; return its logarithm"),
        (
            by_hand(lambda p, row: math.log(p / sum(row))),
            "the positive belongs into the denominator, too, or r can exceed one",
        ),
        (by_hand(lambda p, row: math.log(p / (p + sum(row) / 3))), "add the negatives up; this takes their mean"),
    ):
        if close(found, wrong):
            raise Wrong(reason)
    if not close(found, expected):
        raise Wrong(
            "the value is not log r with every similarity divided by the temperature; equation (3) has the steps"
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


@checker("ex07_2")
def ex07_2(groups):
    """`groups(scores, fraction) -> (low, high)`: disjoint, of at least two, truly apart; else empty."""

    def answer(scores, fraction):
        scores = torch.tensor(scores)
        low, high = groups(scores, fraction)
        low, high = (torch.as_tensor(g) for g in (low, high))
        if any(g.numel() and (g.is_floating_point() or g.dtype == torch.bool) for g in (low, high)):
            raise Wrong("return the indices of the images, whole numbers, not their scores and not a mask")
        return sorted(low.tolist()), sorted(high.tolist())

    spread = [0.3, 0.9, 0.1, 0.8, 0.5, 0.7, 0.2, 0.6, 0.4]
    low, high = answer(spread, 0.4)  # ⌊3.6⌋ = 3 of nine
    if (low, high) == ([1, 3, 5], [0, 2, 6]):
        raise Wrong("low and high are swapped: return the group of the lowest scores first")
    if len(low) == 4 or len(high) == 4:
        raise Wrong("k is rounded down: 0.4 of nine images makes groups of three")
    if (low, high) != ([0, 2, 6], [1, 3, 5]):
        raise Wrong(f"for {spread} with fraction 0.4 the groups are [0, 2, 6] and [1, 3, 5], not {low} and {high}")
    if answer(spread[:5], 0.25) != ([0, 2], [1, 3]):
        raise Wrong(
            "each group has at least two images, also where fraction · B is smaller: every image needs a positive"
        )
    if answer([0.1, 0.4, 0.2, 0.3], 0.25) != ([0, 2], [1, 3]):
        raise Wrong("four images are two groups of two: refuse only if 2k is *larger* than the number of images")
    if answer([0.1, 0.2, 0.3], 0.25) != ([], []):
        raise Wrong("three images cannot form two groups of two without sharing one: return two empty tensors")
    if answer([0.5] * 8, 0.25) != ([], []):
        raise Wrong("where all scores are tied the groups are arbitrary: return two empty tensors")
    if answer([0.2, 0.5, 0.5, 0.5, 0.5, 0.9], 0.4) != ([], []):
        raise Wrong("the inner edges are tied here: the low group must score below the high group, with no equality")
    if answer([0.2, 0.2, 0.2, 0.9, 0.9, 0.9], 0.25) == ([], []):
        raise Wrong("ties inside one group do no harm: refuse only if the low group is not below the high one")


@checker("ex07_3")
def ex07_3(pull_and_push):
    """`pull_and_push(positive, negatives, temperature) -> ((), (k,))`: the gradient of -log r, compared with autograd."""
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
            raise Wrong("these are the derivatives of log r; the loss is −log r, so turn both signs")
        if close(pull, tau * d_positive) and close(push, tau * d_negatives):
            raise Wrong(
                "the factor 1/τ is missing: the similarities are divided by the temperature before the exponential"
            )
        if close(push, (negatives / tau).softmax(0) / tau):
            raise Wrong(
                "the shares of the negatives must count the positive in the denominator; they do not add up to one"
            )
        if close(pull, torch.full_like(pull, -1 / tau)):
            raise Wrong("the positive stands in the denominator, too: where r is near one, nothing pulls any more")
        if not close(push, d_negatives):
            raise Wrong(
                "the derivative for the negatives is not share / τ, the share taken among positive and negatives"
            )
        if not close(pull, d_positive):
            raise Wrong("the derivative for the positive is not (r − 1) / τ; all derivatives together add up to zero")
    pull, push = (torch.as_tensor(p) for p in pull_and_push(torch.tensor(0.3), torch.tensor([0.9, 0.2]), 0.001))
    if not (torch.isfinite(pull).all() and torch.isfinite(push).all()):
        raise Wrong("at a temperature of 0.001 it overflows: use softmax, which subtracts the largest exponent first")
    if not close(push.detach(), [1000.0, 0.0]):
        raise Wrong("at a temperature of 0.001 the most similar negative takes the whole push, 1/τ")
