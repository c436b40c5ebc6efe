"""Chapter 3: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np
import torch

from tta_iqa_lib.imaging.crops import symmetries
from tta_iqa_lib.imaging.distortions import distort

GRADES = torch.arange(1, 11, dtype=torch.float64)


def grade_by_hand(output):
    weights = np.exp(output["logits"].numpy())
    return [float((row / row.sum() * np.arange(1, 11)).sum()) for row in weights]


def split_by_sorting(content, share, seed):
    names = sorted(set(content.tolist()))
    np.random.default_rng(seed).shuffle(names)
    chosen = set(names[: int(share * len(names))])
    return torch.tensor([name in chosen for name in content])


def split_by_images(content, share, seed):
    chosen, rows = [], np.zeros(len(content), bool)
    for name in np.random.default_rng(seed).permutation(np.unique(content)):
        if rows.mean() >= share - 0.02:
            break
        chosen.append(name)
        rows = np.isin(content, chosen)
    return rows.astype(int)


def split_isin(content, share, seed):
    names = np.unique(content)
    return np.isin(content, np.random.default_rng(seed).choice(names, round(share * len(names)), replace=False))


def split_by_first_place(content, share, seed):
    """In the order in which the names come, which is the same in each run."""
    names = list(dict.fromkeys(content.tolist()))
    chosen = np.random.default_rng(seed).permutation(len(names))[: round(share * len(names))]
    return np.array([names.index(name) in chosen for name in content.tolist()])


def split_drawing_crops(content, share, seed):
    """Crops are drawn until enough contents are named: those with many crops come first."""
    chosen = list(dict.fromkeys(np.random.default_rng(seed).permutation(content).tolist()))
    return np.isin(content, chosen[: round(share * len(chosen))])


def split_drawing_again(content, share, seed):
    names = np.unique(content)
    return np.isin(content, np.random.default_rng(seed).choice(names, round(share * len(names))))


def split_of_a_set(content, share, seed):
    names = list(set(content.tolist()))
    return np.isin(content, np.random.default_rng(seed).choice(names, round(share * len(names)), replace=False))


def split_reseeding(content, share, seed):
    np.random.seed(seed)
    names = np.unique(content)
    return np.isin(content, np.random.choice(names, round(share * len(names)), replace=False))


def in_one_batch(score, images):
    return score(torch.cat(symmetries(images, 8))).view(8, -1).mean(0)


def by_transposing(score, images):
    flips = [images, images.flip(2), images.flip(3), images.flip(2, 3)]
    views = torch.stack([w for v in flips for w in (v, v.transpose(2, 3))], 1)  # (B, 8, 3, H, H): image by image
    return score(views.flatten(0, 1)).view(-1, 8).mean(1).tolist()


def in_place(score, images):
    value = in_one_batch(score, images)
    images.copy_(images.flip(3))
    return value


KINDS = ("blur", "jpeg", "noise")


def changes(score, images, kinds=KINDS):
    """(kinds, B): how the score of each picture changes."""
    worse = [distort(images, kind, 0.7, torch.Generator().manual_seed(1)) for kind in kinds]
    return torch.stack([score(w) - score(images) for w in worse])


def verdict(falls, rises):
    return "higher is better" if falls else "lower is better" if rises else "do not use"


def which_way(score, images, kinds=KINDS, share=0.75):
    found = changes(score, images, kinds)
    down, up = ((sign * found > 0).double().mean(1).min() for sign in (-1, 1))
    return verdict(down >= share, up >= share)


def which_way_in_one_batch(score, images):
    """All copies in one call of the scorer, and counts in NumPy."""
    kinds = [kind for kind in KINDS for _ in images]
    worse = distort(images.repeat(3, 1, 1, 1), kinds, 0.7, torch.Generator().manual_seed(2))
    found = score(torch.cat([images, worse])).numpy().reshape(4, -1)
    falls, rises = ((compare(found[1:], found[:1])).mean(1) for compare in (np.less, np.greater))
    return verdict((falls >= 0.75).all(), (rises >= 0.75).all())


def pooled(score, images):
    found = changes(score, images)
    return verdict((found < 0).double().mean() >= 0.75, (found > 0).double().mean() >= 0.75)


EX03_4_WRONG = {
    "high is bad": lambda score, x: "higher is better" if which_way(score, x) != "do not use" else "do not use",
    "look at each kind alone": lambda score, x: which_way(score, x, ("blur", "jpeg")),
    "in each kind by itself": pooled,
    "sees nothing but": lambda score, x: verdict(*((s * changes(score, x).mean(1) > 0).all() for s in (-1, 1))),
    "0.5 to everything": lambda score, x: verdict(*((s * changes(score, x) >= 0).all() for s in (-1, 1))),
    "but brightness": lambda score, x: which_way(score, x, share=0.3),
    "the book's source model": lambda score, x: which_way(lambda y: -score(y), x),
    "should be 'higher is better'": lambda score, x: "do not use",
    "each kind must rise": lambda score, x: verdict(
        (changes(score, x) < 0).double().mean(1).min() >= 0.75, (changes(score, x) > 0).double().mean() >= 0.75
    ),
    "one of the three verdicts": lambda score, x: bool((changes(score, x) < 0).all()),
    "changed its inputs": lambda score, x: which_way(score, x.mul_(0.9)),
}

CASES = {
    "ex03_1": (
        [lambda o: o["logits"].softmax(1) @ GRADES, lambda o: o["logits"].softmax(1) @ GRADES.float(), grade_by_hand],
        {
            "from 1 to 10, not from 0": lambda o: o["logits"].softmax(1) @ (GRADES - 1),
            "most likely grade": lambda o: o["logits"].argmax(1) + 1,
            "logits are not probabilities": lambda o: o["logits"] @ GRADES,
            "over the images": lambda o: o["logits"].softmax(0) @ GRADES,
            "order is reversed": lambda o: o["logits"].softmax(1) @ GRADES.flip(0),
            "divide by the number": lambda o: (o["logits"].softmax(1) * GRADES).mean(1),
            "one grade for each": lambda o: o["logits"].softmax(1),
        },
    ),
    "ex03_2": (
        [split_isin, split_by_sorting, split_by_images, split_by_first_place],
        {
            "many crops": split_drawing_crops,
            "without replacement": split_drawing_again,
            "order of a `set`": split_of_a_set,
            "caller's random numbers": split_reseeding,
            "a generator of your own": lambda c, share, seed: split_isin(
                c, share, seed * int(1 + 0 * np.random.random())
            ),
            "both sides": lambda c, share, seed: np.random.default_rng(seed).random(len(c)) < share,
            "seed changes nothing": lambda c, share, seed: np.isin(c, np.unique(c)[: round(share * len(np.unique(c)))]),
            "two different splits": lambda c, share, seed: split_isin(c, share, None),
            "sides are swapped": lambda c, share, seed: ~split_isin(c, share, seed),
            "of the contents": lambda c, share, seed: split_isin(c, 0.1, seed),
            "one value for each": lambda c, share, seed: np.flatnonzero(split_isin(c, share, seed)),
        },
    ),
    "ex03_3": (
        [in_one_batch, by_transposing],
        {
            "8 times": lambda score, x: sum(score(v) for v in symmetries(x, 8)) / 8,
            "different images": lambda score, x: score(torch.cat(symmetries(x, 8))).view(-1, 8).mean(1),
            "averaged the pictures": lambda score, x: score(torch.stack(symmetries(x, 8)).mean(0)),
            "only the four turns": lambda score, x: sum(score(x.rot90(k, (2, 3))) for k in range(4)) / 4,
            "quarter turns are missing": lambda score, x: (score(x) + score(x.flip(3))) / 2,
            "half turn": lambda score, x: (
                sum(score(v.rot90(k, (2, 3))) for v in (x, x.flip(3), x.flip(2), x.flip(2, 3)) for k in (0, 2)) / 8
            ),
            "sum over the views": lambda score, x: sum(score(v) for v in symmetries(x, 8)),
            "not the largest": lambda score, x: torch.stack([score(v) for v in symmetries(x, 8)]).amax(0),
            "changed its inputs": in_place,
            "about the axes": lambda score, x: sum(score(v.roll(1, 3)) for v in symmetries(x, 8)) / 8,
        },
    ),
    "ex03_4": ([which_way, which_way_in_one_batch], EX03_4_WRONG),
}
