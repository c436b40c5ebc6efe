"""Assignment 4: wrong answers that students give, what each still earns, and a part of what they are told."""

MOMENTS = "def moments(x):\n    "
BLEND = """
def blended(x, mean_s, var_s, gamma, beta):
    mean_t, var_t = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    mean = (1 - ALPHA) * mean_s + ALPHA * mean_t
    var = (1 - ALPHA) * var_s + ALPHA * var_t + ALPHA * (1 - ALPHA) * (mean_s - mean_t) ** 2
    mean, var, gamma, beta = (t.view(1, -1, 1, 1) for t in (mean, var, gamma, beta))
    return gamma * (x - mean) / (var + EPS).sqrt() + beta
"""
EPISODIC = """
def episodic(start, batches):
    scores = []
    for batch in batches:
        p = start.clone()
        for _ in range(STEPS):
            p = p - LR * 2 * (p - batch).mean()
        scores.append(batch - p)
    return scores
"""
ONLINE = """
def online(start, batches):
    scores, p = [], start.clone()
    for batch in batches:
        scores.append(batch - p)
        for _ in range(STEPS):
            p = p - LR * 2 * (p - batch).mean()
    return scores, p
"""
BY_AUTOGRAD = """
def episodic(start, batches):
    scores = []
    p = start.requires_grad_()
    optimiser = torch.optim.SGD([p], lr=LR)
    for batch in batches:
        for _ in range(STEPS):
            optimiser.zero_grad()
            ((batch - p) ** 2).mean().backward()
            optimiser.step()
        scores.append((batch - p).detach())
    return scores
"""
SCORE = "        scores.append(batch - p)\n"
NO_SPREAD = BLEND.replace(" + ALPHA * (1 - ALPHA) * (mean_s - mean_t) ** 2", "")

# function, its code, {item: points it still earns; the items not named earn all}, part of the reason
WRONG = [
    ("moments", MOMENTS + "return x.mean((0, 2, 3)), x.var((0, 2, 3))", {"moments_values": 1.5}, "one less than"),
    (
        "moments",
        MOMENTS + "return x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)",
        {"moments_values": 1.5},
        "standard deviation",
    ),
    ("moments", MOMENTS + "return x.mean((2, 3)), x.var((2, 3))", {"moments_values": 0}, "for each channel"),
    (
        "moments",
        MOMENTS + "return x.mean((0, 2, 3)), x.var((2, 3), correction=0).mean(0)",
        {"moments_values": 1.5},
        "own variances",
    ),
    ("blended", NO_SPREAD, {"blended_values": 3}, "blended linearly"),
    (
        "blended",
        BLEND.replace("x.var((0, 2, 3), correction=0)", "x.var((0, 2, 3))"),
        {"blended_values": 3},
        "number of values",
    ),
    (
        "blended",
        BLEND.replace("(1 - ALPHA) * mean_s + ALPHA * mean_t", "ALPHA * mean_s + (1 - ALPHA) * mean_t").replace(
            "(1 - ALPHA) * var_s + ALPHA * var_t", "ALPHA * var_s + (1 - ALPHA) * var_t"
        ),
        {"blended_values": 2.5},
        "shares are swapped",
    ),
    ("blended", BLEND.replace("(var + EPS).sqrt()", "(var.sqrt() + EPS)"), {"blended_values": 3}, "under the root"),
    ("blended", BLEND.replace(" + beta\n", "\n"), {"blended_values": 3}, "beta is missing"),
    ("episodic", BY_AUTOGRAD, {"episodic_values": 2.5, "episodic_start": 0}, "carried on"),
    ("episodic", EPISODIC.replace("LR * 2 *", "LR *"), {"episodic_values": 2.5}, "factor of 2"),
    (
        "episodic",
        EPISODIC.replace("(p - batch).mean()", "(p - batch).sum()"),
        {"episodic_values": 2.5},
        "mean over the batch",
    ),
    (
        "episodic",
        EPISODIC.replace("batch - p)\n    return", "batch - start)\n    return"),
        {"episodic_values": 1.25},
        "before the steps",
    ),
    ("episodic", EPISODIC.replace("p - LR", "p + LR"), {"episodic_values": 1.25}, "climbs"),
    (
        "episodic",
        "def episodic(start, batches):\n    return []",
        {"episodic_values": 0, "episodic_start": 0},  # what does nothing changes nothing: that earns no point
        "one tensor of scores for each batch",
    ),
    (
        "online",
        ONLINE.replace("    for batch in batches:\n", "    for batch in batches:\n        p = start.clone()\n"),
        {"online_values": 2},
        "not carried on",
    ),
    (
        "online",
        ONLINE.replace("        scores.append(batch - p)\n", "").replace(
            "    return", "        scores.append(batch - p)\n    return"
        ),
        {"online_values": 2},
        "after it was learned from",
    ),
    ("online", ONLINE.replace("return scores, p", "return scores"), {"online_values": 0}, "two things"),
]
