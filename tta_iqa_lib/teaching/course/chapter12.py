"""Chapter 12, reading research code: its checkers."""

import numpy as np
import torch

from ...experiments.published import box_blur
from ...imaging.distortions import gaussian_blur
from ...metrics import srcc
from .checker import Wrong, checker, close
from .fresh import hazy_crops
from .suspects import suspects


def _adam(start, batches, loss, steps, lr, memory=False, gradients: bool | str = False, reset=True):
    """Adam by its formulas, in float64 as given. The switches keep what an episode should forget."""
    first, second, count, total = torch.zeros_like(start), torch.zeros_like(start), 0, torch.zeros_like(start)
    p, out = start.clone(), []
    for batch in batches:
        if reset:
            p = start.clone()
        if not memory:
            first, second, count = torch.zeros_like(start), torch.zeros_like(start), 0
        if gradients != "all":
            total = torch.zeros_like(start)
        for _ in range(steps):
            leaf = p.clone().requires_grad_(True)
            (own,) = torch.autograd.grad(loss(leaf, batch), leaf)
            total = own + (total if gradients else 0)
            count += 1
            first, second = 0.9 * first + 0.1 * total, 0.999 * second + 0.001 * total**2
            p = p - lr * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
        out.append(p)
    return torch.stack(out)


@checker("ex12_1", may_write=True)
def ex12_1(adapt):
    """`adapt(start (D,), batches, loss, steps, lr) -> (N, D)`: episodic Adam, compared with its formulas written out."""
    generator = torch.Generator().manual_seed(121)
    start = torch.randn(4, generator=generator, dtype=torch.float64)
    batches = [k + torch.randn(n, 4, generator=generator, dtype=torch.float64) for k, n in ((3, 5), (-2, 6), (1, 5))]
    scale = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)

    def loss(p, batch):
        return (scale * (p - batch.mean(0)) ** 2).sum()

    arguments = batches, loss, 3, 0.3
    given = start.clone()
    answer = adapt(given, *arguments)
    answer = torch.stack(list(answer)).detach() if isinstance(answer, (list, tuple)) else torch.as_tensor(answer)
    if not torch.equal(given.detach(), start):
        raise Wrong(
            "`start` has changed: `start.requires_grad_(True)` is `start` itself, so each step moves it; work on "
            "`start.detach().clone()`, and give back `p` of each batch as a copy"
        )
    if given.requires_grad:
        raise Wrong(
            "`start` now asks for gradients: `requires_grad_` changes the tensor that it is called on; call it on a copy"
        )
    if answer.shape != (3, 4):
        raise Wrong(f"expected one row of parameters a batch, shape (3, 4); got {tuple(answer.shape)}")
    if close(answer, _adam(start, *arguments)):
        return
    if close(answer[0], answer[1]) and close(answer[1], answer[2]):
        raise Wrong("all rows are the same: each must be a copy of the parameters as they were after its own batch")
    if not close(answer[0], _adam(start, *arguments)[0]):
        if close(answer[0], _adam(start, *arguments, gradients="batch")[0]):
            raise Wrong("gradients add up from step to step: they must be cleared before each backward pass")
        if close(answer[0], _adam(start, batches, loss, 1, 0.3)[0]):
            raise Wrong("this is one step a batch; `steps` were asked for")
        raise Wrong("not even the first batch is right: is it Adam with this `lr`, and `steps` steps?")
    if close(answer, _adam(start, *arguments, memory=True, reset=False)) or close(
        answer, _adam(start, *arguments, reset=False)
    ):
        raise Wrong("the parameters are carried from batch to batch: each batch must begin at `start`")
    if close(answer, _adam(start, *arguments, memory=True)):
        raise Wrong("Adam's memory survives the reset: its running averages come from earlier batches")
    raise Wrong(
        "the first batch is right, later ones are not: something outlives a batch (parameters, .grad, Adam's memory)"
    )


@checker("ex12_2")
def ex12_2(averaged_and_pooled):
    """`averaged_and_pooled(scores, quality, batch_size) -> (mean SRCC within, pooled SRCC)`."""
    generator = np.random.default_rng(122)
    quality = np.concatenate([generator.uniform(0, 1, 6) + level for level in (0, 3, 1, 2)] + [[4.0, 0.5]])
    level = np.repeat([3, 0, 2, 1, 0], 6)[: len(quality)] * 2.0  # batches stand in the wrong order
    scores = quality % 1 + level + 0.3 * generator.uniform(0, 1, len(quality))
    parts = [slice(i, i + 6) for i in range(0, 24, 6)]
    within = float(np.mean([srcc(scores[p], quality[p]) for p in parts]))
    pooled = srcc(scores, quality)
    answer = averaged_and_pooled(torch.tensor(scores), torch.tensor(quality), 6)
    if np.shape(answer) != (2,):
        raise Wrong("expected two numbers: the average within the batches, and the pooled value")
    average, together = (float(x) for x in answer)
    if close(average, pooled) and close(together, within):
        raise Wrong("the two are swapped: first the average within the batches, then the pooled value")
    plain = [np.corrcoef(scores[p], quality[p])[0, 1] for p in parts]
    if close(average, np.mean(plain)):
        raise Wrong("this is the linear correlation; SRCC asks about ranks")
    if close(together, srcc(scores[:24], quality[:24])):
        raise Wrong("the images of the small last batch are missing from the pooled value")
    if not close(together, pooled):
        raise Wrong("the pooled value is not the SRCC of all images together; it knows nothing of batches")
    last = srcc(scores[24:], quality[24:])
    if np.isnan(average) or close(average, (4 * within + last) / 5) or close(average, (24 * within + 2 * last) / 26):
        raise Wrong("a batch of two images counts in your average; its correlation is always 1, -1 or undefined")
    if not close(average, within):
        raise Wrong("the average within the batches is not right: every batch of at least three images counts once")
    uneven = averaged_and_pooled(torch.tensor(scores[:10]), torch.tensor(quality[:10]), 6)
    one, two = (srcc(scores[p], quality[p]) for p in (slice(0, 6), slice(6, 10)))
    if close(uneven[0], (6 * one + 4 * two) / 10):
        raise Wrong("batches are weighted by their size: each counts once")
    if close(uneven[0], one):
        raise Wrong("a last batch of four was left out; only batches of fewer than three are")
    if not close(uneven[0], (one + two) / 2):
        raise Wrong("the average within the batches is not right for a last batch of four images")
    of_three = averaged_and_pooled(torch.tensor(scores[:9]), torch.tensor(quality[:9]), 6)
    if not close(of_three[0], (one + srcc(scores[6:9], quality[6:9])) / 2):
        raise Wrong("a last batch of exactly three images counts: only batches of *fewer* than three are left out")


@checker("ex12_3")
def ex12_3(in_step):
    """`in_step([(rows, scores), ...]) -> (N,)`: scores in the data set's order, the first one of a repeated row."""
    true = torch.tensor([0.3, 0.9, 0.1, 0.7, 0.5, 0.2, 0.8])
    order = torch.tensor([2, 0, 6, 1, 5, 3, 4])
    parts = [(rows, true[rows]) for rows in order.split(3)]
    came = true[order]
    answer = torch.as_tensor(in_step(parts)).float()
    if answer.shape != true.shape:
        raise Wrong(f"expected one score for each of the 7 images, shape (7,); got {tuple(answer.shape)}")
    if close(answer, came):
        raise Wrong("these are the scores in the order in which they came: still out of step with the opinions")
    if close(answer, came[order]):
        raise Wrong("`scores[rows]` takes from places; here the scores must be put into places")
    if close(answer, true.sort().values):
        raise Wrong("the scores themselves were sorted; it is the images' places that give the order")
    if not close(answer, true):
        raise Wrong("place i must hold the score of image i")
    padded = [*parts, (torch.tensor([2, 0]), torch.tensor([9.0, 8.0]))]
    answer = torch.as_tensor(in_step(padded)).float()
    if answer.shape != true.shape:
        raise Wrong("a row that comes twice is one image: the answer must keep its length")
    if close(answer[0], 8.0) or close(answer[2], 9.0):
        raise Wrong("a row came twice, and its last score was kept; keep the first")
    if not close(answer, true):
        raise Wrong("with a row that comes twice the scores are wrong: keep the first score of each row")
    for row in (2, 3):
        inside = [(torch.tensor([row, row]), torch.tensor([float(true[row]), 9.0])), *parts]
        if not close(torch.as_tensor(in_step(inside)).float(), true):
            raise Wrong("a row came twice *within* one part, and its later score was kept; keep the first")


@checker("ex12_4")
def ex12_4(steps_are_real):
    """`steps_are_real(worsen, images, levels) -> bool`: each level at least half a grey level farther than the one before."""
    images = 0.2 + 0.6 * torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(124))
    pattern = torch.where(torch.rand(images.shape, generator=torch.Generator().manual_seed(7)) < 0.5, -1.0, 1.0)
    kept = images.clone()

    def shifted(x, grey):  # a mean absolute difference of so many grey levels, and a mean difference of nearly zero
        return x + pattern * abs(grey) / 255

    def blurred(x, sigma):
        return gaussian_blur(x, torch.full((len(x),), sigma / 4))

    def one_pixel(x, grey):
        y = x.clone()
        y[:, :, 0, 0] = (y[:, :, 0, 0] + grey / 255).clamp(0, 1)
        return y

    cases = [
        (
            shifted,
            [2, 4, 8],
            True,
            "three clear steps are real; noise has a mean of zero, so take absolute differences",
        ),
        (shifted, [8, 4], False, "the severe copy is nearer to the original than the mild one, and you answered True"),
        (shifted, [4, -4], False, "two copies at the same distance from the original are no step"),
        (box_blur, [12, 50], False, "the published blur pair passes: its levels differ by less than half a grey level"),
        (shifted, [2, 6, 4, 9], False, "the second step goes back; every step must be looked at, not only the ends"),
        (shifted, [0.1, 4], False, "the first level is nearly the original itself, and you answered True"),
        (
            shifted,
            [2, 2.2, 2.4, 2.8],
            False,
            "steps of a fifth of a grey level pass; at least half a grey level is needed",
        ),
        (shifted, [0.55, 1.1, 1.65], True, "steps of .55 of a grey level are refused; half a grey level is enough"),
        (shifted, [2, 2.45], False, "a step of .45 of a grey level passes; at least half a grey level is needed"),
        (
            shifted,
            [0.45, 2],
            False,
            "the first level is .45 of a grey level from the original; half a grey level is needed",
        ),
        (one_pixel, [40, 90], False, "a single pixel changes, and you answered True: take the mean over all pixels"),
        (blurred, [0.5, 1.0, 3.0], True, "a Gaussian blur of 0.5, 1 and 3 pixels has real steps"),
    ]
    for worsen, levels, expected, reason in cases:
        answer = steps_are_real(worsen, images, levels)
        if np.shape(answer) != () or bool(answer) != expected:
            raise Wrong(reason)
    if not torch.equal(images, kept):
        raise Wrong("your function changed the images it was given")


@checker("ex12_5", may_write=True)
def ex12_5(review):
    """`review(make, images, others) -> set`: which of three promises does a fresh scorer, what `make()` gives, break?"""
    images, others = hazy_crops(16, 125)[0].split(8)
    for make, broken, reason in suspects():
        given = images.clone(), others.clone()
        answer = review(make, *given)
        if not isinstance(answer, (set, frozenset, list, tuple)) or not set(answer) <= {"repeat", "order", "input"}:
            raise Wrong(
                f"the answer is a set of 'repeat', 'order' and 'input', empty for a sound scorer; got {answer!r}"
            )
        answer = set(answer)
        if not all(map(torch.equal, given, (images, others))):
            raise Wrong("a scorer wrote into the pictures that you were given: give each call a copy")
        if answer == broken:
            continue
        if "order" in answer and broken == {"repeat"}:
            raise Wrong(
                "a scorer that remembers was charged with 'order', too: try each promise on a scorer of its own, make()"
            )
        if ("input" in broken and "order" in answer) or (broken == {"input"} and "repeat" in answer):
            raise Wrong("what a scorer wrote into its pictures went on to the next call: give each call a copy")
        raise Wrong(reason)
