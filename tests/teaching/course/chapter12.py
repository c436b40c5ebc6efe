"""Chapter 12: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

from itertools import pairwise

import numpy as np
import torch
from scipy import stats

from tta_iqa_lib.metrics import srcc


def adapt(start, batches, loss, steps, lr):
    out = []
    for batch in batches:
        p = start.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([p], lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(p, batch).backward()
            optimizer.step()
        out.append(p.detach())
    return torch.stack(out)


def adapt_with_one_optimiser(start, batches, loss, steps, lr):
    p = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([p], lr)
    out = []
    for batch in batches:
        p.data.copy_(start)
        optimizer.state.clear()
        for _ in range(steps):
            (p.grad,) = torch.autograd.grad(loss(p, batch), p)
            optimizer.step()
        out.append(p.detach().clone())
    return out


def faulty(zero=True, memory=False, reset=True, copies=True, leave=None):
    def run(start, batches, loss, steps, lr):
        p = start.detach().clone().requires_grad_(True)
        optimizer, out = torch.optim.Adam([p], lr), []
        for batch in batches:
            if reset:
                p.data.copy_(start)
            if not memory:
                optimizer.state.clear()
                optimizer.zero_grad()
            for _ in range(leave or steps):
                if zero:
                    optimizer.zero_grad()
                loss(p, batch).backward()
                optimizer.step()
            out.append(p.detach().clone() if copies else p.detach())
        return torch.stack(out)

    return run


def as_printed(start, batches, loss, steps, lr):
    p = start.requires_grad_(True)
    optimizer = torch.optim.Adam([p], lr)
    out = []
    for batch in batches:
        p.data = start.data
        for _ in range(steps):
            loss(p, batch).backward()
            optimizer.step()
        out.append(p.detach())
    return out


def leaves_a_flag(start, batches, loss, steps, lr):
    answer = adapt(start, batches, loss, steps, lr)
    start.requires_grad_(True)
    return answer


EX12_1_WRONG = {
    "asks for gradients": leaves_a_flag,
    "`start` has changed": as_printed,
    "from step to step": faulty(zero=False),
    "Adam's memory": faulty(memory=True),
    "carried from batch to batch": faulty(reset=False),
    "all rows are the same": faulty(copies=False),
    "one step a batch": faulty(leave=1),
    "something outlives": lambda start, batches, loss, steps, lr: torch.cat(
        [adapt(start, batches[:1], loss, steps, lr), faulty(zero=False)(start, batches[1:], loss, steps, lr)]
    ),
    "one row of parameters": lambda *a: adapt(*a)[-1],
    "not even the first": lambda s, b, loss, n, lr: adapt(s, b, loss, n, lr / 2),
}


def both(scores, quality, size, least=3, metric=srcc, weighted=False, pool=None):
    parts = [slice(i, i + size) for i in range(0, len(scores), size)]
    parts = [p for p in parts if len(scores[p]) >= least]
    weights = [len(scores[p]) if weighted else 1 for p in parts]
    within = np.average([metric(scores[p], quality[p]) for p in parts], weights=weights)
    return within, srcc(scores[:pool], quality[:pool])


def both_with_scipy(scores, quality, size):
    pairs = zip(torch.as_tensor(scores).split(size), torch.as_tensor(quality).split(size), strict=True)
    within = [stats.spearmanr(s, q)[0] for s, q in pairs if len(s) > 2]
    return np.array([np.mean(within), stats.spearmanr(scores, quality)[0]])


EX12_2_WRONG = {
    "swapped": lambda *a: both(*a)[::-1],
    "linear correlation": lambda s, q, n: both(s, q, n, metric=lambda a, b: np.corrcoef(a, b)[0, 1]),
    "missing from the pooled": lambda s, q, n: both(s, q, n, pool=len(s) // n * n),
    "batch of two": lambda s, q, n: both(s, q, n, least=2),
    "weighted by their size": lambda s, q, n: both(s, q, n, weighted=True),
    "last batch of four": lambda s, q, n: both(s, q, n, least=n),
    "exactly three": lambda s, q, n: both(s, q, n, least=4),
    "knows nothing of batches": lambda s, q, n: (both(s, q, n)[0],) * 2,
    "two numbers": lambda s, q, n: both(s, q, n)[0],
}


def in_step(parts):
    rows, scores = (torch.cat(side) for side in zip(*parts, strict=True))
    out = torch.empty(int(rows.max()) + 1)
    for row, score in zip(rows.flip(0), scores.flip(0), strict=True):
        out[row] = score
    return out


def in_step_with_numpy(parts):
    rows, scores = (np.concatenate(side) for side in zip(*parts, strict=True))
    _, first = np.unique(rows, return_index=True)
    return scores[first]


def last_kept(parts):
    rows, scores = (torch.cat(side) for side in zip(*parts, strict=True))
    out = torch.empty(int(rows.max()) + 1)
    for row, score in zip(rows, scores, strict=True):
        out[row] = score
    return out


def taken(parts):
    rows, scores = (torch.cat(side) for side in zip(*parts, strict=True))
    return scores[rows]


def with_repeats(parts):
    rows, scores = (torch.cat(side) for side in zip(*parts, strict=True))
    return scores[rows.argsort(stable=True)]


def first_of_the_parts(parts):
    """Keeps the first of two parts, but the last of two rows in one part."""
    first = {}
    for rows, scores in parts:
        for row, score in dict(zip(rows.tolist(), scores.tolist(), strict=True)).items():
            first.setdefault(row, score)
    return torch.tensor([first[i] for i in range(len(first))])


EX12_3_WRONG = {
    "*within* one part": first_of_the_parts,
    "order in which they came": lambda parts: torch.cat([s for _, s in parts]),
    "takes from places": taken,
    "themselves were sorted": lambda parts: torch.cat([s for _, s in parts]).sort().values,
    "place i must hold": lambda parts: in_step(parts).flip(0),
    "its last score": last_kept,
    "keep its length": with_repeats,
    "one score for each": lambda parts: in_step(parts)[:-1],
}


def distances(worsen, images, levels):
    return [0.0] + [float((worsen(images, level) - images).abs().mean()) for level in levels]


def steps(worsen, images, levels):
    d = distances(worsen, images, levels)
    return all(b - a >= 1 / 510 for a, b in pairwise(d))


def steps_in_numpy(worsen, images, levels):
    x = images.numpy()
    d = np.array([0] + [np.abs(worsen(images, level).numpy() - x).mean() for level in levels])
    return np.diff(d).min() > 0.5 / 255


def grows(values, least=1 / 510):
    return all(b - a >= least for a, b in pairwise(values))


def unsigned_steps(worsen, images, levels):
    d = distances(worsen, images, levels)
    return all(abs(b - a) >= 1 / 510 for a, b in pairwise(d))


def only_the_ends(worsen, images, levels):
    d = distances(worsen, images, levels)
    return d[1] >= 1 / 510 and (len(d) == 2 or d[-1] - d[1] >= 1 / 510)


def between_copies(worsen, images, levels):
    copies = [images, *(worsen(images, level) for level in levels)]
    return all(float((b - a).abs().mean()) >= 1 / 510 for a, b in pairwise(copies))


EX12_4_WRONG = {
    "absolute differences": lambda w, x, ls: grows([0.0] + [float((w(x, v) - x).mean()) for v in ls]),
    "nearer to the original": unsigned_steps,
    "is nearer to": between_copies,
    "not only the ends": only_the_ends,
    "nearly the original": lambda w, x, ls: grows(distances(w, x, ls)[1:]),
    "the published blur pair": lambda w, x, ls: grows(distances(w, x, ls), 1e-7),
    "fifth of a grey level": lambda w, x, ls: grows(distances(w, x, ls), 0.1 / 255),
    "are refused": lambda w, x, ls: grows(distances(w, x, ls), 0.6 / 255),
    "a step of .45": lambda w, x, ls: grows(distances(w, x, ls), 0.44 / 255),
    "is .45 of a grey level": lambda w, x, ls: grows(distances(w, x, ls)[1:]) and distances(w, x, ls)[1] > 0.2 / 255,
    "a single pixel": lambda w, x, ls: grows([0.0] + [float((w(x, v) - x).abs().max()) for v in ls]),
    "has real steps": lambda w, x, ls: "sigma" not in w.__code__.co_varnames and steps(w, x, ls),
}


def review(make, images, others, order=(3, 6, 0, 7, 1, 4, 2, 5), least=1e-4):
    broken, order = set(), list(order)
    scorer = make()
    first = scorer(images.clone())
    scorer(others.clone())
    if float((scorer(images.clone()) - first).abs().max()) > least:
        broken.add("repeat")
    if float((make()(images[order]) - first[order]).abs().max()) > least:
        broken.add("order")
    make()(given := images.clone())
    if not torch.equal(given, images):
        broken.add("input")
    return broken


def review_by_a_list(make, images, others):
    def fresh(pictures):
        return make()(pictures.clone())

    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(3))
    used, given = make(), others.clone()
    used(given)
    tests = {
        "repeat": torch.allclose(used(images.clone()), fresh(images), rtol=0, atol=1e-4),
        "order": torch.allclose(fresh(images[order]), fresh(images)[order], rtol=0, atol=1e-4),
        "input": torch.equal(given, others),
    }
    return [name for name, kept in tests.items() if not kept]


def one_scorer_for_all(make, images, others):
    scorer = make()
    return review(lambda: scorer, images, others)


def without_others(make, images, others):
    scorer = make()
    same = torch.allclose(scorer(images.clone()), scorer(images.clone()), atol=1e-4)
    return review(make, images, others) - {"repeat"} | (set() if same else {"repeat"})


def one_tensor_for_all(make, images, others):
    scorer, given = make(), images.clone()
    first = scorer(given)
    again = scorer(given)
    return review(make, images, others) | (set() if torch.allclose(first, again, atol=1e-4) else {"repeat"})


def with_signs(make, images, others):
    scorer = make()
    first = scorer(images.clone())
    scorer(others.clone())
    again = scorer(images.clone())
    return review(make, images, others) - {"repeat"} | ({"repeat"} if float((first - again).max()) > 1e-4 else set())


def moved_back_wrongly(make, images, others):
    order = [3, 6, 0, 7, 1, 4, 2, 5]
    first = make()(images.clone())
    moved = make()(images[order])
    kept = torch.allclose(moved[order], first, rtol=0, atol=1e-4)
    return review(make, images, others) - {"order"} | (set() if kept else {"order"})


def uncopied(make, images, others):
    kept = images.clone()
    found = review(make, kept, others.clone())
    make()(images)
    return found


def nearly_the_same_input(make, images, others):
    given = images.clone()
    make()(given)
    changed = float((given - images).abs().max()) > 1e-4
    return review(make, images, others) - {"input"} | ({"input"} if changed else set())


def the_first_found(make, images, others):
    return set(sorted(review(make, images, others))[:1])


EX12_5_WRONG = {
    "of its own": one_scorer_for_all,
    "others` in between": without_others,
    "on to the next call": one_tensor_for_all,
    "you were given": uncopied,
    "have no sign": with_signs,
    "first[p]": moved_back_wrongly,
    "moving all on by one": lambda *a: review(*a, order=[*range(1, 8), 0]),
    "shuffle all pictures": lambda *a: review(*a, order=[1, 0, *range(2, 8)]),
    "by very little": nearly_the_same_input,
    "differ by rounding": lambda *a: review(*a, least=0),
    "some thousandths": lambda *a: review(*a, least=0.01),
    "reversed pictures": lambda *a: review(*a, order=range(7, -1, -1)),
    "gets other scores": lambda *a: review(*a) - {"repeat"},
    "darkens": lambda *a: review(*a) - {"input"},
    "name both": the_first_found,
    "got False": lambda *a: False,
    "the answer is a set": lambda *a: (len(review(*a)) == 0 and {"sound"}) or review(*a),
}

CASES = {
    "ex12_1": ([adapt, adapt_with_one_optimiser], EX12_1_WRONG),
    "ex12_2": ([both, both_with_scipy], EX12_2_WRONG),
    "ex12_3": ([in_step, in_step_with_numpy], EX12_3_WRONG),
    "ex12_4": ([steps, steps_in_numpy], EX12_4_WRONG),
    "ex12_5": ([review, review_by_a_list], EX12_5_WRONG),
}
