"""Chapter 6, the relative rank loss: its checkers."""

import math

import torch

from ...adaptation.adapter import Adapter
from ...adaptation.rules import Shrink
from ...metrics import srcc
from .checker import Wrong, checker, close, yes_or_no
from .fresh import hazy_crops, source_model


@checker("ex06_1")
def ex06_1(margin_loss):
    """`margin_loss(anchor, mild, severe, margin, temperature) -> scalar`: right values, finite far out and at zero."""
    anchor = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    mild = anchor + torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]], dtype=torch.float64)  # distances 5 and 1
    severe = anchor + torch.tensor([[0.0, 4.0, 0.0], [3.0, 0.0, 0.0]], dtype=torch.float64)  # distances 4 and 3

    def expected(mild=(5.0, 1.0), severe=(4.0, 3.0), margin=0.7, temperature=0.5):
        terms = [math.log1p(math.exp((m - s + margin) / temperature)) for m, s in zip(mild, severe, strict=True)]
        return sum(terms) / 2

    value = torch.as_tensor(margin_loss(anchor, mild, severe, 0.7, 0.5))
    if value.numel() != 1:
        raise Wrong(f"expected one number for the batch; got shape {tuple(value.shape)}")
    for wrong, reason in (
        (2 * expected(), "this is the sum over the images; take the mean, or λ would depend on the batch size"),
        (expected(margin=-0.7), "the margin has the wrong sign: it should make the loss larger, not smaller"),
        (
            expected((4.0, 3.0), (5.0, 1.0)),
            "this rewards a severe copy that is nearer than the mild one: turn the order",
        ),
        (expected((25.0, 1.0), (16.0, 9.0)), "these are squared distances; take the norm itself"),
        (expected(temperature=2.0), "divide by the temperature instead of multiplying with it"),
        (expected(margin=0.35), "the margin is divided by the temperature, too: it stands inside the bracket"),
    ):
        if close(value, wrong):
            raise Wrong(reason)
    if not close(value, expected()):
        raise Wrong("the value is not the mean of log(1 + exp((d_mild − d_severe + δ) / τ)), d the Euclidean distances")

    far = margin_loss(torch.zeros(1, 2), torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.0, 1.0)
    if not torch.isfinite(torch.as_tensor(far)):
        raise Wrong(
            "with an order that is wrong by a thousand the loss overflows; do not write exp or log(sigmoid) yourself"
        )
    at_zero = torch.zeros(2, 3, requires_grad=True)
    with torch.enable_grad():
        loss = margin_loss(torch.zeros(2, 3), at_zero, torch.ones(2, 3), 0.1, 1.0)
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        raise Wrong("no gradient reaches the features; return a tensor that PyTorch computed, not a plain number")
    (slope,) = torch.autograd.grad(loss, at_zero)
    if not torch.isfinite(slope).all():
        raise Wrong("where a copy equals its image the gradient is NaN: the slope of a square root at zero is infinite")


@checker("ex06_2")
def ex06_2(credit):
    """`credit(model, images, quality, loss) -> (moments, loss, keep)`: what each gives in SRCC, and whether to keep the loss."""
    model, (hazy, labels) = source_model(), hazy_crops(32, seed=64)

    def by_labels(context):
        return -torch.corrcoef(torch.stack([context.scores["clean"], labels]))[0, 1]

    def against_labels(context):
        return -by_labels(context)

    for loss in (by_labels, against_labels):
        run = Adapter(model, [loss], Shrink(16)).run(hazy)
        source, control, after = (srcc(s, labels) for s in (run.source_scores, run.initial_scores, run.scores))
        last_entry = srcc(run.trace[-1]["scores"], labels)
        found = credit(model, hazy, labels, loss)
        try:
            *numbers, keep = found
            moments, by_loss = map(float, numbers)
        except (TypeError, ValueError):
            raise Wrong(
                f"three things are asked for: what the moments gave, what the loss gave, and True or False; got {found!r}"
            ) from None

        def near(a, b, found=(moments, by_loss)):
            return abs(found[0] - a) < 5e-4 and abs(found[1] - b) < 5e-4

        if near(control - source, after - control):
            if yes_or_no(keep) != (after > control):
                raise Wrong(
                    f"the numbers are right; but a loss that takes SRCC from {control:.3f} at the control to {after:.3f} is one "
                    f"to {'keep' if after > control else 'drop, although the source model had ' + format(source, '.3f')}"
                )
            continue
        for wrong, reason in (
            ((after - control, control - source), "the two are swapped: the moments' share comes first"),
            (
                (0.0, after - source),
                "all the credit goes to the loss; but the moments are re-measured before its first step, whatever it is",
            ),
            ((control - source, after - source), "the loss's share starts at the control, not at the source model"),
            (
                (control - source, last_entry - control),
                "the trace is noted *before* each step, so its last entry lacks a step",
            ),
            (
                (source - control, control - after),
                "both signs are turned: a gain is the later SRCC minus the earlier one",
            ),
        ):
            if near(*wrong):
                raise Wrong(reason)
        if abs(moments - (control - source)) < 5e-4:
            raise Wrong(
                f"the moments' share is right; the loss's is {after - control:+.3f}, yours is {by_loss:+.3f}: three steps, "
                "Shrink(16), SRCC against `quality`"
            )
        raise Wrong(
            f"the moments gave {control - source:+.3f} here and yours say {moments:+.3f}: the control re-measures with "
            "Shrink(16), takes no step, and is compared with the source model by SRCC against `quality`"
        )


@checker("ex06_3")
def ex06_3(degenerate):
    """`degenerate(images, mild, severe, share) -> (B,)` of True and False."""
    generator = torch.Generator().manual_seed(63)
    images = torch.rand(8, 3, 16, 16, generator=generator)
    noise, other = torch.randn(2, 8, 3, 16, 16, generator=generator)
    mild, severe = images.clone(), images.clone()
    mild[0], severe[0] = images[0] + 0.1 * noise[0], images[0] + 0.101 * noise[0]  # the same twice
    mild[1], severe[1] = images[1] + 0.1 * noise[1], images[1] + 0.1 * other[1]  # as strong, but different
    mild[2], severe[2] = images[2] + 1e-4 * noise[2], images[2] + 5e-4 * noise[2]  # weak, but five times apart
    # image 3: untouched
    mild[4], severe[4] = images[4] + 0.1 * noise[4], images[4] + 0.3 * noise[4]  # a good pair
    severe[5] = images[5] + 0.3 * noise[5]  # a good pair, too, though its mild copy is the image
    mild[6], severe[6] = images[6] + 0.1 * noise[6], images[6] + 0.125 * noise[6]  # a fifth apart: of squares, a 25th
    mild[7] = images[7] + 0.1 * noise[7]
    severe[7] = mild[7]
    severe[7, :, ::8, ::8] += 0.16  # a fifth apart in few pixels: on average, little
    result = torch.as_tensor(degenerate(images, mild, severe, 0.1))
    if result.shape != (8,):
        raise Wrong(
            f"one answer for each image: expected shape (8,), got {tuple(result.shape)}; mean over dimensions 1, 2, 3"
        )
    found = [bool(v) for v in result]
    if found == [False, True, True, False, True, True, True, True]:
        raise Wrong("True and False are swapped: True means that the pair teaches nothing")
    if not found[0]:
        raise Wrong(
            "pair 0 is the same picture twice, to a hundredth, and yours says that it teaches something: compare the copies "
            "with *each other*, rms(severe − mild), with share × rms(severe − image)"
        )
    if found[4]:
        raise Wrong(
            "pair 4 is a good one, with copies as far from each other as two thirds of the severe distance: `share` = 0.1 of "
            "that distance is the limit, above it a pair is not degenerate"
        )
    if found[1]:
        raise Wrong(
            "two copies that are equally far from the image, or whose differences cancel, can still be different pictures: "
            "square the difference between the copies before you average"
        )
    if found[2]:
        raise Wrong(
            "a weak pair is not degenerate if its levels differ in proportion: compare with share × the severe copy's"
        )
    if not found[3]:
        raise Wrong(
            "a pair that leaves its image untouched teaches nothing, too: compare with ≤, and do not divide by zero"
        )
    if found[5]:
        raise Wrong(
            "a mild copy may be the image itself: the pair still teaches, as its severe copy is another picture"
        )
    if found[6]:
        raise Wrong("the copies are a fifth of the severe distance apart: are these mean squares? Take their roots")
    if found[7]:
        raise Wrong(
            "a strong difference in few pixels counts: take the root mean square, not the mean absolute difference"
        )
    if found != [True, False, False, True, False, False, False, False]:
        raise Wrong(f"expected True for the same twice and for the untouched image alone (0 and 3); got {found}")
    if bool(torch.as_tensor(degenerate(images[4:5], mild[4:5], severe[4:5], 0.9))[0]) is not True:
        raise Wrong(
            "`share` is not used: copies that differ by two thirds of the severe distance are degenerate at 0.9"
        )
