"""Chapter 7: for each exercise right answers of different make, and typical wrong ones by what the checker must say."""

import numpy as np
import torch


def ratio_reference(positive, negatives, temperature):
    a = positive / temperature
    return a - torch.logaddexp(a, torch.logsumexp(negatives / temperature, 1))


def ratio_by_numpy(positive, negatives, temperature):
    a = np.concatenate([positive.numpy()[:, None], negatives.numpy()], 1) / temperature
    a = a - a.max(1, keepdims=True)
    return a[:, 0] - np.log(np.exp(a).sum(1))


def ratio_naive(positive, negatives, temperature):
    a, b = torch.exp(positive / temperature), torch.exp(negatives / temperature).sum(1)
    return torch.log(a / (a + b))


def ratio_by_shifting(positive, negatives, temperature):
    a = torch.cat([positive[:, None], negatives], 1) / temperature
    a = a - a.max(1, keepdim=True).values
    return a[:, 0] - a.exp().sum(1).log()


def ratio_with_one_maximum(positive, negatives, temperature):
    a = torch.cat([positive[:, None], negatives], 1) / temperature
    a = a - a.max()
    return a[:, 0] - a.exp().sum(1).log()


EX07_1_WRONG = {
    "`logaddexp` ready made": lambda p, n, t: (
        p / t - torch.logaddexp(p / t, (n / t).exp().sum(1).log()) if t > 0.01 else ratio_by_shifting(p, n, t)
    ),
    "`logsumexp` ready made": lambda p, n, t: p / t - torch.cat([p[:, None], n], 1).div(t).logsumexp(1),
    "`log_softmax` ready made": lambda p, n, t: torch.cat([p[:, None], n], 1).div(t).log_softmax(1)[:, 0],
    "in each row": ratio_with_one_maximum,
    "−log P": lambda *a: -ratio_reference(*a),
    "P itself": lambda *a: ratio_reference(*a).exp(),
    "into the denominator": lambda p, n, t: p / t - torch.logsumexp(n / t, 1),
    "takes their mean": lambda p, n, t: p / t - torch.logaddexp(p / t, torch.logsumexp(n / t, 1) - np.log(n.shape[1])),
    "divided by the temperature": lambda p, n, t: ratio_reference(p, n, 1 / t),
    "overflows": ratio_naive,
    "clamped": lambda p, n, t: ratio_reference(p, n, t).clamp_min(-100),
    "shape (2,)": lambda *a: ratio_reference(*a).mean(),
}


def apart(scores):
    ranking, k = scores.sort().values, max(2, len(scores) // 4)
    return float(ranking[-k:].mean() - ranking[:k].mean())


def worth_reference(scores, home):
    return len(scores) >= 4 and apart(scores) > 0.5 * apart(home)


def worth_by_numpy(scores, home):
    if len(scores) < 4:
        return np.bool_(False)
    low, high = (np.sort(s)[: max(2, len(s) // 4)].mean() for s in (scores.numpy(), -scores.numpy()))
    at_home = np.quantile(home.numpy(), [0.125, 0.875])
    return -high - low >= 0.5 * (at_home[1] - at_home[0])


EX07_2_WRONG = {
    "turned": lambda s, home: not worth_reference(s, home),
    "as in any folder": lambda s, home: bool(s.max() > s.min()) if len(s) >= 4 else False,
    "half of that": lambda s, home: len(s) >= 4 and apart(s) > 0.5 * float(home.max() - home.min()),
    "mixed folder is refused": lambda s, home: len(s) >= 4 and apart(s) > apart(home) * 0.68,
    "0 to 100": lambda s, home: len(s) >= 4 and apart(s) > 0.18,
    "three pictures": lambda s, home: apart(s) > 0.5 * apart(home),
    "True or False": lambda s, home: apart(s) / apart(home),
}


def shares(positive, negatives, temperature):
    return torch.cat([positive.reshape(1), negatives]).div(temperature).softmax(0)


def push_reference(positive, negatives, temperature):
    share = shares(positive, negatives, temperature)
    return (share[0] - 1) / temperature, share[1:] / temperature


def push_by_sum(positive, negatives, temperature):
    a = np.append(negatives.numpy(), float(positive)) / temperature
    e = np.exp(a - a.max())
    push = e[:-1] / e.sum() / temperature
    return -push.sum(), push


def push_naive(positive, negatives, temperature):
    a, b = torch.exp(positive / temperature), torch.exp(negatives / temperature)
    return (a / (a + b.sum()) - 1) / temperature, b / (a + b.sum()) / temperature


EX07_3_WRONG = {
    "turn both signs": lambda *a: tuple(-part for part in push_reference(*a)),
    "1/τ is missing": lambda p, n, t: tuple(t * part for part in push_reference(p, n, t)),
    "count the positive": lambda p, n, t: (push_reference(p, n, t)[0], (n / t).softmax(0) / t),
    "nothing pulls": lambda p, n, t: (torch.tensor(-1 / t), push_reference(p, n, t)[1]),
    "add up to zero": lambda p, n, t: (-shares(p, n, t)[0] / t, push_reference(p, n, t)[1]),
    "overflows": push_naive,
    "shape (4,)": lambda p, n, t: (push_reference(p, n, t)[0], push_reference(p, n, t)[1].sum()),
}

CASES = {
    "ex07_1": ([ratio_by_shifting, ratio_by_numpy], EX07_1_WRONG),
    "ex07_2": ([worth_reference, worth_by_numpy], EX07_2_WRONG),
    "ex07_3": ([push_reference, push_by_sum], EX07_3_WRONG),
}
