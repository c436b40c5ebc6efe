"""Chapter 6: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import torch
from torch.nn.functional import logsigmoid, softplus

from tta_iqa_lib import Adapter, Batch, Shrink, Source, srcc


def norms(anchor, mild, severe):
    return torch.linalg.vector_norm(mild - anchor, dim=1), torch.linalg.vector_norm(severe - anchor, dim=1)


def margin_reference(anchor, mild, severe, margin, temperature):
    near, far = norms(anchor, mild, severe)
    return softplus((near - far + margin) / temperature).mean()


def margin_by_logsigmoid(anchor, mild, severe, margin, temperature):
    near, far = (
        torch.stack([(c - a).norm() for c, a in zip(copies, anchor, strict=True)]) for copies in (mild, severe)
    )
    return -sum(logsigmoid((f - n - margin) / temperature) for n, f in zip(near, far, strict=True)) / len(near)


def margin_with(change):
    def answer(anchor, mild, severe, margin, temperature):
        near, far = norms(anchor, mild, severe)
        return change(near, far, margin, temperature)

    return answer


def margin_by_root(anchor, mild, severe, margin, temperature):
    near, far = (((c - anchor) ** 2).sum(1).sqrt() for c in (mild, severe))
    return softplus((near - far + margin) / temperature).mean()


EX06_1_WRONG = {
    "sum over the images": margin_with(lambda n, f, m, t: softplus((n - f + m) / t).sum()),
    "wrong sign": margin_with(lambda n, f, m, t: softplus((n - f - m) / t).mean()),
    "turn the order": margin_with(lambda n, f, m, t: softplus((f - n + m) / t).mean()),
    "squared distances": margin_with(lambda n, f, m, t: softplus((n**2 - f**2 + m) / t).mean()),
    "instead of multiplying": margin_with(lambda n, f, m, t: softplus((n - f + m) * t).mean()),
    "inside the bracket": margin_with(lambda n, f, m, t: softplus((n - f) / t + m).mean()),
    "overflows": margin_with(lambda n, f, m, t: torch.log(1 + torch.exp((n - f + m) / t)).mean()),
    "gradient is NaN": margin_by_root,
    "one number": margin_with(lambda n, f, m, t: softplus((n - f + m) / t)),
    "not a plain number": margin_with(lambda n, f, m, t: float(softplus((n - f + m) / t).mean())),
    "Euclidean": lambda a, m, s, margin, t: softplus(((m - a).abs().sum(1) - (s - a).abs().sum(1) + margin) / t).mean(),
}


def credit(model, images, quality, loss, steps=3, statistics=None, target=None):
    """(source, control, after): SRCC at each."""
    run = Adapter(model, [loss], statistics or Shrink(16), steps=steps).run(images)
    target = quality if target is None else run.source_scores
    return [srcc(scores, target) for scores in (run.source_scores, run.initial_scores, run.scores)]


def credit_reference(*arguments):
    source, control, after = credit(*arguments)
    return control - source, after - control, after > control


def credit_of_three_adapters(model, images, quality, loss):
    source, control, after = (
        srcc(Adapter(model, losses, statistics)(images), quality)
        for losses, statistics in (((), Source()), ((), Shrink(16)), ([loss], Shrink(16)))
    )
    return tuple(map(torch.tensor, (control - source, after - control, after > control)))


def credit_from_the_trace(model, images, quality, loss):
    trace = Adapter(model, [loss], Shrink(16)).run(images).trace
    source, control, _ = credit(model, images, quality, loss)
    return control - source, srcc(trace[-1]["scores"], quality) - control, True


def all_to_the_loss(*arguments):
    source, _, after = credit(*arguments)
    return 0.0, after - source, True


def from_the_source(*arguments):
    source, control, after = credit(*arguments)
    return control - source, after - source, True


def kept_if_all_of_it_is_a_gain(*arguments):
    source, control, after = credit(*arguments)
    return control - source, after - control, after > source


EX06_2_WRONG = {
    "all the credit goes to the loss": all_to_the_loss,
    "swapped": lambda *a: (*credit_reference(*a)[1::-1], True),
    "starts at the control": from_the_source,
    "lacks a step": credit_from_the_trace,
    "both signs": lambda *a: (*(-part for part in credit_reference(*a)[:2]), True),
    "three steps": lambda *a: (credit_reference(*a)[0], credit(*a, steps=1)[2] - credit(*a)[1], True),
    "re-measures with": lambda *a: (credit(*a, statistics=Batch())[1] - credit(*a)[0], 0.0, True),
    "three things": lambda *a: credit_reference(*a)[:2],
    "Shrink(16), takes no step": lambda *a: (1 - credit(*a, target="source")[1], 0.0, True),
    "one to drop": kept_if_all_of_it_is_a_gain,
    "one to keep": lambda *a: (*credit_reference(*a)[:2], False),
    "True or False": lambda *a: (*credit_reference(*a)[:2], "keep"),
}


def rms(difference):
    return difference.square().mean((1, 2, 3)).sqrt()


def degenerate_reference(images, mild, severe, share):
    return rms(severe - mild) <= share * rms(severe - images)


def degenerate_by_loop(images, mild, severe, share):
    return [
        bool(((s - m) ** 2).mean() <= share**2 * ((s - i) ** 2).mean())
        for i, m, s in zip(images.numpy(), mild.numpy(), severe.numpy(), strict=True)
    ]


EX06_3_WRONG = {
    "shape (8,)": lambda i, m, s, share: (s - m).square().mean().sqrt() <= share * (s - i).square().mean().sqrt(),
    "swapped": lambda i, m, s, share: rms(s - m) > share * rms(s - i),
    "equally far": lambda i, m, s, share: (rms(s - i) - rms(m - i)).abs() <= share * rms(s - i),
    "the same picture twice": lambda i, m, s, share: rms(m - i) == 0,
    "pair 4": lambda i, m, s, share: torch.ones(8, dtype=bool) if len(i) == 8 else rms(s - m) <= share * rms(s - i),
    "in proportion": lambda i, m, s, share: rms(s - m) < 1 / 255,
    "untouched": lambda i, m, s, share: rms(s - m) < share * rms(s - i),
    "may be the image itself": lambda i, m, s, share: (rms(s - m) <= share * rms(s - i)) | (rms(m - i) == 0),
    "Take their roots": lambda i, m, s, share: rms(s - m) ** 2 <= share * rms(s - i) ** 2,
    "few pixels": lambda i, m, s, share: (s - m).abs().mean((1, 2, 3)) <= share * (s - i).abs().mean((1, 2, 3)),
    "`share` is not used": lambda i, m, s, share: rms(s - m) <= 0.1 * rms(s - i),
}

CASES = {
    "ex06_1": ([margin_reference, margin_by_logsigmoid], EX06_1_WRONG),
    "ex06_2": ([credit_reference, credit_of_three_adapters], EX06_2_WRONG),
    "ex06_3": ([degenerate_reference, degenerate_by_loop], EX06_3_WRONG),
}
