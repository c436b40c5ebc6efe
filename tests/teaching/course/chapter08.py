"""Chapter 8: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import copy

import numpy as np
import torch


def clones_of(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def episodic_reference(start, batches, adapt, score):
    return [score(adapt(clones_of(start), batch), batch) for batch in batches]


def episodic_with_deepcopy(start, batches, adapt, score):
    out = []
    for batch in batches:
        state = adapt(copy.deepcopy(start), batch)
        out.append(tuple(score(state, batch)))
    return out


def episodic_puts_back(start, batches, adapt, score):
    kept, own, out = clones_of(start), dict(start), []
    for batch in batches:
        state = adapt(dict(own), batch)
        out.append(np.array(score(state, batch)))
        for name, tensor in own.items():
            tensor.copy_(kept[name])
    return out


def shallow(start, batches, adapt, score):
    return [score(adapt(dict(start), batch), batch) for batch in batches]


def online(start, batches, adapt, score):
    state, out = clones_of(start), []
    for batch in batches:
        state = adapt(state, batch)
        out.append(score(state, batch))
    return out


def late(start, batches, adapt, score):
    state, out = clones_of(start), []
    for batch in batches:
        out.append(score(state, batch))
        state = adapt(state, batch)
    return out


def all_first(start, batches, adapt, score):
    state = clones_of(start)
    for batch in batches:
        state = adapt(state, batch)
    return [score(state, batch) for batch in batches]


def resets_before(start, batches, adapt, score):
    kept, out = clones_of(start), []
    for batch in batches:
        start.update(clones_of(kept))
        out.append(score(adapt(start, batch), batch))
    return out


def resets_after(start, batches, adapt, score):
    out = []
    for batch in batches:
        kept = clones_of(start)
        out.append(score(adapt(start, batch), batch))
        start.update(kept)
    return out


EX08_WRONG = {
    "leaks from one batch": online,
    "batches 1 and 3 are equal": all_first,
    "before adapting": lambda start, batches, adapt, score: [score(start, batch) for batch in batches],
    "the batch before it": late,
    "the copy is shallow": shallow,
    "`start` was changed": resets_before,
    "in new tensors": resets_after,
    "should be": lambda start, batches, adapt, score: [[0.0] * len(batch) for batch in batches],
}


def borrowed(model, images, change):
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        change(model)
        with torch.no_grad():
            return model(images)
    finally:
        model.load_state_dict(kept)


def borrowed_a_copy(model, images, change):
    double = copy.deepcopy(model)
    change(double)
    return double(images).detach().numpy()


def restores(keep, restore, finally_=True):
    def answer(model, images, change):
        kept = keep(model)
        if not finally_:
            change(model)
            scores = model(images).detach()
            restore(model, kept)
            return scores
        try:
            change(model)
            return model(images).detach()
        finally:
            restore(model, kept)

    return answer


def clones(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def only_parameters(model, kept):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(kept[name])


def swallows(model, images, change):
    try:
        return borrowed(model, images, change)
    except RuntimeError:
        return images


def returns_nothing(model, images, change):
    try:
        return borrowed(model, images, change)
    except RuntimeError:
        return None


def leaves(what):
    """Right, but for what it leaves behind."""

    def answer(model, images, change):
        try:
            return borrowed(model, images, change)
        finally:
            what(model)

    return answer


def leaves_after_an_error(model, images, change):
    try:
        return borrowed(model, images, change)
    except RuntimeError:
        model.train()
        raise


EX08_2_WRONG = {
    "in training mode now": leaves(lambda model: model.train()),
    "came in evaluation mode": leaves_after_an_error,
    "no longer ask for gradients": leaves(lambda model: model.requires_grad_(False)),
    "hold gradients": leaves(lambda model: model(torch.ones(2, 2)).sum().backward()),
    "for the caller": leaves(lambda model: torch.set_grad_enabled(False)),
    "unchanged model": lambda model, images, change: model(images).detach(),
    "evaluation mode": lambda model, images, change: borrowed(model, images, change) + 1,
    "holds references": restores(lambda m: m.state_dict(), lambda m, k: m.load_state_dict(k)),
    "buffers": restores(clones, only_parameters),
    "finally": restores(clones, lambda m, k: m.load_state_dict(k), finally_=False),
    "swallowed": swallows,
    "the caller must hear": returns_nothing,
}


def there_and_back(loop, A, B):
    first = loop(A)
    loop(B)
    return torch.equal(loop(A), first)


def with_three_batches(loop, A, B):
    alone = np.array(loop(A))
    scores = [np.array(loop(batch)) for batch in (B, A, B, B, A)]
    return np.array_equal(alone, scores[1]) and (alone == scores[-1]).all()


EX08_3_WRONG = {
    "honest": lambda loop, A, B: torch.equal(loop(A), loop(B)),
    "an online loop passes": lambda loop, A, B: True,
    "the batch before": lambda loop, A, B: torch.equal(loop(A), loop(A)),
    "image by image": lambda loop, A, B: bool((loop(A).mean() - (loop(B), loop(A))[1].mean()).abs() < 1e-5),
    "millionth": lambda loop, A, B: torch.allclose(loop(A), (loop(B), loop(A))[1]),
    "True or False": lambda loop, A, B: loop(A) - (loop(B), loop(A))[1],
}

CASES = {
    "ex08_1": ([episodic_reference, episodic_with_deepcopy, episodic_puts_back], EX08_WRONG),
    "ex08_2": ([borrowed, borrowed_a_copy], EX08_2_WRONG),
    "ex08_3": ([there_and_back, with_three_batches], EX08_3_WRONG),
}
