"""Chapter 8: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import copy


def episodic_reference(start, batches, adapt, score):
    return [score(adapt(dict(start), batch), batch) for batch in batches]


def episodic_with_deepcopy(start, batches, adapt, score):
    out = []
    for batch in batches:
        state = adapt(copy.deepcopy(start), batch)
        out.append(tuple(score(state, batch)))
    return out


def online(start, batches, adapt, score):
    state, out = dict(start), []
    for batch in batches:
        state = adapt(state, batch)
        out.append(score(state, batch))
    return out


def late(start, batches, adapt, score):
    state, out = dict(start), []
    for batch in batches:
        out.append(score(state, batch))
        state = adapt(state, batch)
    return out


def all_first(start, batches, adapt, score):
    state = dict(start)
    for batch in batches:
        state = adapt(state, batch)
    return [score(state, batch) for batch in batches]


def restores_values(start, batches, adapt, score):
    out = []
    for batch in batches:
        kept = dict(start)
        out.append(score(adapt(start, batch), batch))
        for key in kept:
            start[key] = kept[key]
    start["shift"] = 99.0
    return out


EX08_WRONG = {
    "leaks from one batch": online,
    "batches 1 and 3 are equal": all_first,
    "before adapting": lambda start, batches, adapt, score: [score(dict(start), batch) for batch in batches],
    "the batch before it": late,
    "`start` was changed": restores_values,
    "should be": lambda start, batches, adapt, score: [[0.0] * len(batch) for batch in batches],
}

CASES = {
    "ex08_1": ([episodic_reference, episodic_with_deepcopy], EX08_WRONG),
}
