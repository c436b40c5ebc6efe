"""Chapter 3, a blind quality model: its checkers."""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from ...imaging.crops import resize_to
from ...imaging.scenes import PHOTOGRAPHS, photograph
from ...models.saving import load_source_model
from .checker import Wrong, checker, close, in_either_precision


@checker("ex03_1")
def ex03_1(score):
    """`score({"logits": (B, 10)}) -> (B,)`: the expected grade, grades 1 to 10."""
    logits = 2 * torch.randn(6, 10, generator=torch.Generator().manual_seed(31))
    value = in_either_precision(lambda logits: score({"logits": logits}), logits)
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.shape != (6,):
        raise Wrong(f"expected one grade for each of 6 images, shape (6,); got {tuple(value.shape)}")
    weights = np.exp(logits.double().numpy())
    chances, grades = weights / weights.sum(1, keepdims=True), np.arange(1, 11)
    expected = (chances * grades).sum(1)
    if close(value, expected):
        return
    if close(value, expected - 1):
        raise Wrong("the grades run from 1 to 10, not from 0 to 9: column 0 is grade 1")
    if close(value, logits.argmax(1) + 1) or close(value, logits.argmax(1)):
        raise Wrong("this is the most likely grade, not the expected one: two images with one peak would tie")
    if close(value, (logits.numpy() * grades).sum(1)):
        raise Wrong("logits are not probabilities: apply a softmax before you average the grades")
    if close(value, 11 - expected):
        raise Wrong("the order is reversed: column 9 is the best grade")
    over_images = weights / weights.sum(0, keepdims=True)
    if close(value, (over_images * grades).sum(1)):
        raise Wrong("the softmax runs over the images; probabilities add up to one within an image (dim=1)")
    if close(value, chances.mean(1) * 55) or close(value, chances @ grades / 10):
        raise Wrong("do not divide by the number of grades: the probabilities are the weights already")
    raise Wrong("not the expected grade: softmax each row, then add up grade times probability")


class _Name(str):
    """A name with another hash, as each start of Python gives it."""

    def __hash__(self):
        return hash(("another start", str(self)))


def _with_other_hashes(split, content: np.ndarray) -> np.ndarray:
    """The same split as seed 0 makes, of names that hash differently."""
    return np.asarray(split(np.array([_Name(name) for name in content], dtype=object), 0.25, 0)).astype(bool)


def _global_state() -> tuple:
    """Of NumPy's global generator: its numbers, and how many of them are used up."""
    state = np.random.get_state(legacy=False)["state"]
    return state["pos"], state["key"].tolist()


@checker("ex03_2")
def ex03_2(split):
    """`split(content, share, seed) -> (N,) bool`: whole contents held out."""
    generator = np.random.default_rng(32)
    names = np.array([f"scene-{i:02d}" for i in range(24)])
    sizes = generator.integers(5, 25, len(names))
    content = generator.permutation(np.repeat(names, sizes))

    def mask(seed, share=0.25):
        found = np.asarray(split(content, share, seed))
        if found.shape != content.shape:
            raise Wrong(f"expected a mask with one value for each of {len(content)} crops; got shape {found.shape}")
        return found.astype(bool)

    before = _global_state()
    first = mask(0)
    if _global_state() != before:
        raise Wrong(
            "this moves the caller's random numbers: draw from a generator of your own, np.random.default_rng(seed)"
        )
    if first.all() or not first.any():
        raise Wrong("one side of the split is empty")
    both = set(content[first]) & set(content[~first])
    if both:
        raise Wrong(f"{len(both)} contents stand on both sides, '{min(both)}' among them: draw contents, not crops")
    if not np.array_equal(first, mask(0)):
        raise Wrong("the same seed gave two different splits: make a generator from the seed")
    others = [mask(seed) for seed in (1, 2, 3)]
    if all(np.array_equal(first, other) for other in others):
        raise Wrong("the seed changes nothing: the contents must be drawn at random")
    held = np.array(
        [np.isin(names, content[mask(seed, 0.5)]) for seed in range(200)]
    )  # a row a seed, a column a content
    large = sizes > np.median(sizes)
    if held[:, large].mean() - held[:, ~large].mean() > 0.07:
        raise Wrong(
            "contents with many crops are held out more often: draw from the names, each once, not from the crops"
        )
    if 0.35 < held.mean() < 0.44:
        raise Wrong("with share = 0.5 fewer contents are held out, on average: draw them without replacement")
    for found, share in ((first, 0.25), *((other, 0.25) for other in others), (mask(4, 0.5), 0.5)):
        of_contents, of_crops = len(set(content[found])) / len(names), found.mean()
        if min(abs(of_contents - share), abs(of_crops - share)) > 0.08:
            if share == 0.25 and abs(of_contents - 0.75) < 0.08:
                raise Wrong("the sides are swapped: True marks the crops to test on, a share of about 0.25")
            raise Wrong(f"with share = {share} the test side holds {of_contents:.0%} of the contents")
    if not np.array_equal(first, _with_other_hashes(split, content)):
        raise Wrong(
            "the order of a `set` of names changes whenever Python starts anew, and with it the split: sort the names first"
        )


@checker("ex03_3")
def ex03_3(average):
    """`average(score, images) -> (B,)`: the mean score over the eight symmetries of the square, in one call of `score`."""
    generator = torch.Generator().manual_seed(33)
    images = torch.rand(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    calls = []

    def score(batch):
        calls.append(len(batch))
        return (batch * weight).sum((1, 2, 3)) + ((batch * weight).sum((1, 2, 3))) ** 2

    value = torch.as_tensor(average(score, images), dtype=torch.float64)
    called = len(calls)
    if value.shape != (4,):
        raise Wrong(f"expected one score for each of 4 images, shape (4,); got {tuple(value.shape)}")
    array = images.numpy()
    turns = [np.rot90(array, k, (2, 3)) for k in range(4)]
    views = [torch.from_numpy(np.ascontiguousarray(v)) for t in turns for v in (t, t[..., ::-1])]
    scores = torch.stack([score(v) for v in views])  # turn 0, its mirror image, turn 1, …
    if close(value, scores.mean(0)):
        if called > 1:
            raise Wrong(f"the mean is right, but `score` was called {called} times: put all views into one batch")
        return
    sides = [(scores[::2], scores[1::2][rows]) for rows in ([0, 1, 2, 3], [0, 3, 2, 1])]  # turned or mirrored first
    orders = [join(pair) for pair in sides for join in (torch.cat, lambda pair: torch.stack(pair, 1))]
    if any(close(value, order.reshape(4, 8).mean(1)) for order in orders):
        raise Wrong(
            "scores of different images were averaged: after `torch.cat(views)` view i holds rows i·B to (i + 1)·B"
        )
    if close(value, score(torch.stack(views).mean(0))):
        raise Wrong("you averaged the pictures; average the scores of the views")
    if close(value, scores[::2].mean(0)):
        raise Wrong("only the four turns: mirror each of them as well")
    if close(value, scores[:2].mean(0)):
        raise Wrong("only the image and its mirror image: the quarter turns are missing")
    if close(value, scores.sum(0)):
        raise Wrong("this is the sum over the views; divide by 8, so that scores keep their scale")
    if close(value, scores.amax(0)) or close(value, scores.median(0).values):
        raise Wrong("take the mean of the eight scores, not the largest or the middle one")
    flips = [array, array[..., ::-1], array[..., ::-1, :], array[..., ::-1, ::-1]]
    twice = [score(torch.from_numpy(np.ascontiguousarray(np.rot90(v, k, (2, 3))))) for v in flips for k in (0, 1)]
    once = [score(torch.from_numpy(np.ascontiguousarray(v))) for v in flips]
    repeated = [score(torch.from_numpy(np.ascontiguousarray(np.rot90(v, k, (2, 3))))) for v in flips for k in (0, 2)]
    if any(close(value, torch.stack(found).mean(0)) for found in (once, repeated)):
        raise Wrong("some views are missing or counted twice: mirroring along both axes is a half turn")
    assert close(torch.stack(twice).mean(0), scores.mean(0))  # four mirrorings, each also turned once: the same eight
    raise Wrong("not the mean over the eight views: turn about the axes (2, 3), by 0 to 3 quarters, each also mirrored")


def _sharpness(images: torch.Tensor) -> torch.Tensor:
    y = images.mean(1)
    return (4 * y[:, 1:-1, 1:-1] - y[:, :-2, 1:-1] - y[:, 2:, 1:-1] - y[:, 1:-1, :-2] - y[:, 1:-1, 2:]).var((1, 2))


def _scorers() -> tuple:
    """The right verdict, a scorer, and what another verdict has not seen."""
    with torch.random.fork_rng(devices=[]):  # a network draws its first weights, which are then replaced
        model = load_source_model()
    return (
        ("higher is better", model, "this is the book's source model"),
        ("lower is better", lambda x: 100 - 100 * model(x), "the same model as a DMOS: high is bad"),
        ("do not use", _sharpness, "it is sharpness, which rises with noise: look at each kind alone"),
        ("do not use", lambda x: x.mean((1, 2, 3)), "this scorer sees nothing but brightness"),
        (
            "do not use",
            lambda x: torch.full((len(x),), 0.5),
            "it says 0.5 to everything: no change is neither up nor down",
        ),
        (
            "do not use",
            lambda x: model(avg_pool2d(x, 2)),
            "it is blind to JPEG: count pictures, not the mean of their changes, and in each kind by itself",
        ),
        (
            "do not use",
            lambda x: -model(avg_pool2d(x, 2)),
            "turned round, and still blind to JPEG: each kind must rise",
        ),
    )


@checker("ex03_4")
@torch.no_grad()
def ex03_4(which_way):
    """`which_way(score, images) -> verdict`: is higher better, lower, or should the scorer not be used?"""
    generator, crops = torch.Generator().manual_seed(34), []
    for name in PHOTOGRAPHS:
        image = resize_to(photograph(name), 240)
        for _ in range(2):
            y, x = (int(torch.randint(0, length - 95, (), generator=generator)) for length in image.shape[1:])
            crops.append(image[:, y : y + 96, x : x + 96])
    images = torch.stack(crops)
    for verdict, scorer, seen in _scorers():
        found = which_way(scorer, images)
        if found not in ("higher is better", "lower is better", "do not use"):
            raise Wrong(f"expected one of the three verdicts; got {found!r}")
        if found != verdict:
            raise Wrong(f"your verdict is {found!r} and should be {verdict!r}: {seen}")
