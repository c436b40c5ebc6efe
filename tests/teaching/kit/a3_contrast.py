"""Assignment 3: wrong answers that students give, what each still earns, and a part of what they are told."""

COSINES = "def cosines(features):\n    "
ENDS = "def extremes(scores):\n    "
RATIOS = "def log_ratios(positive, negatives):\n    "
FORMS = "def two_forms(log_r):\n    "
ALL = RATIOS + "every = torch.cat([positive[:, None], negatives], 1) / TAU\n    "
K = f"""{ENDS}k = max(2, int(FRACTION * len(scores)))
    if 2 * k > len(scores):
        return [], []
    order = scores.argsort()
    """

# function, its code, {item: points it still earns; the items not named earn all}, part of the reason
WRONG = [
    ("cosines", COSINES + "return features @ features.T", {"cosines_values": 1.5}, "divide by both lengths"),
    (
        "cosines",
        COSINES + "z = features / features.norm(dim=1, keepdim=True)\n    return z @ z.T",
        {"cosines_zero": 0},
        "nothing can be divided",
    ),
    (
        "cosines",
        COSINES + "z = torch.nn.functional.normalize(features, dim=0)\n    return z @ z.T",
        {"cosines_values": 1.5},
        "that of its row",
    ),
    (
        "cosines",
        COSINES + "return torch.nn.functional.cosine_similarity(features, features)",
        {"cosines_values": 0, "cosines_zero": 0},
        "shape (B, B)",
    ),
    ("extremes", K + "return order[-k:], order[:k]", {"extremes_values": 2}, "swapped"),
    ("extremes", K + "return scores[order[:k]], scores[order[-k:]]", {"extremes_values": 1}, "not their scores"),
    (
        "extremes",
        ENDS + "k = max(2, round(FRACTION * len(scores) + 0.2))\n    if 2 * k > len(scores):\n        return [], []\n"
        "    order = scores.argsort()\n    return order[:k], order[-k:]",
        {"extremes_values": 2},
        "rounded down",
    ),
    (
        "extremes",
        ENDS
        + "k = max(2, int(FRACTION * len(scores)))\n    order = scores.argsort()\n    return order[:k], order[-k:]",
        {"extremes_small": 0},
        "need four images",
    ),
    ("log_ratios", ALL + "return torch.logsumexp(every, 1) - positive / TAU", {"ratios_values": 2}, "this is −log r"),
    (
        "log_ratios",
        RATIOS + "return positive / TAU - torch.logsumexp(negatives / TAU, 1)",
        {"ratios_values": 2},
        "into the denominator",
    ),
    (
        "log_ratios",
        RATIOS + "p, n = (positive / TAU).exp(), (negatives / TAU).exp()\n    return (p / (p + n.sum(1))).log()",
        {"ratios_far": 0},
        "overflows",
    ),
    (
        "log_ratios",
        RATIOS + "return positive - torch.logsumexp(torch.cat([positive[:, None], negatives], 1), 1)",
        {"ratios_values": 2},
        "temperature is missing",
    ),
    (
        "log_ratios",
        ALL + "return every.softmax(1)[:, 0]",
        {"ratios_values": 2, "ratios_far": 0},
        "return its logarithm",
    ),
    (
        "two_forms",
        FORMS + "return -log_r.exp().mean().log(), -log_r.mean()",
        {"forms_values": 1.5, "forms_far": 0},
        "swapped",
    ),
    ("two_forms", FORMS + "return -log_r.mean(), -log_r.exp().mean().log()", {"forms_far": 0}, "logsumexp does not"),
    (
        "two_forms",
        FORMS + "return -log_r.mean(), -torch.logsumexp(log_r, 0)",
        {"forms_values": 1.5},
        "logarithm of the sum",
    ),
]
