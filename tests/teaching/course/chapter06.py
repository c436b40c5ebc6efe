"""Chapter 6: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np
import torch
from torch.nn.functional import logsigmoid, softplus


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


def choose_reference(q_mild, q_severe, least):
    gap, kind = (q_mild - q_severe).max(dim=0)
    return torch.where(gap > least, kind, -1)


def choose_by_loop(q_mild, q_severe, least):
    columns = (np.asarray(q_mild) - np.asarray(q_severe)).T
    return [int(c.argmax()) if c.max() > least else -1 for c in columns]


def choose_with(change):
    return lambda mild, severe, least: change(mild - severe, least)


EX06_2_WRONG = {
    "absolute gap": choose_with(lambda g, at: torch.where(g.abs().amax(0) > at, g.abs().argmax(0), -1)),
    "must answer −1": choose_with(lambda g, at: g.argmax(0)),
    "wrong way round": choose_with(lambda g, at: torch.where((-g).amax(0) > at, (-g).argmax(0), -1)),
    "dimension 0": choose_with(lambda g, at: g.argmax(1)),
    "exactly `least`": choose_with(lambda g, at: torch.where(g.amax(0) >= at, g.argmax(0), -1)),
    "cut gaps off at zero": choose_with(
        lambda g, at: torch.where(g.clamp_min(0).amax(0) > at, g.clamp_min(0).argmax(0), -1)
    ),
    "may be negative": choose_with(lambda g, at: torch.where(g.amax(0) > max(at, -0.1), g.argmax(0), -1)),
    "`least` is not used": choose_with(lambda g, at: torch.where(g.amax(0) > 0.05, g.argmax(0), -1)),
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
    "ex06_2": ([choose_reference, choose_by_loop], EX06_2_WRONG),
    "ex06_3": ([degenerate_reference, degenerate_by_loop], EX06_3_WRONG),
}
