"""Assignment 2: wrong answers that students give, what each still earns, and a part of what they are told."""

HEAD = "def unit_distance(features, other, std):\n    "
LOSS = "def rank_loss(d_mild, d_severe):\n    "
PULL = "def pull(d_mild, d_severe):\n    "
PAIRS = "def violations(distances):\n    "
SOFT = "torch.nn.functional.softplus"

# function, its code, {item: points it still earns; the items not named earn all}, part of the reason
WRONG = [
    (
        "unit_distance",
        HEAD + "return torch.linalg.vector_norm((features - other) / std, dim=1)",
        {"distance_values": 2},
        "root of the sum",
    ),
    (
        "unit_distance",
        HEAD + "return ((features - other) / std).square().mean(1)",
        {"distance_values": 2},
        "root is missing",
    ),
    (
        "unit_distance",
        HEAD + "return ((features - other) / std).square().mean(1).sqrt()",
        {"distance_slope": 0},
        "not finite",
    ),
    (
        "unit_distance",
        HEAD + "d = (features - other) / std\n    return torch.linalg.vector_norm(d, dim=0) / math.sqrt(len(d))",
        {"distance_values": 0},
        "one distance for each image",
    ),
    (
        "unit_distance",
        HEAD + "features -= other\n    features /= std\n    return (features**2).mean(1).sqrt()",
        {"distance_values": 2, "distance_slope": 0},
        "changes what it is given",
    ),
    (
        "unit_distance",
        "import numpy as np\n\n\n"
        + HEAD
        + "d = (features - other).detach() / std\n    return np.sqrt((d.numpy() ** 2).mean(1))",
        {"distance_slope": 0},
        "no gradient",
    ),
    (
        "rank_loss",
        LOSS + f"return {SOFT}((d_mild - d_severe + MARGIN) / TEMPERATURE).sum()",
        {"loss_values": 2},
        "sum over the images",
    ),
    (
        "rank_loss",
        LOSS + f"return {SOFT}((d_mild - d_severe - MARGIN) / TEMPERATURE).mean()",
        {"loss_values": 2},
        "wrong sign",
    ),
    (
        "rank_loss",
        LOSS + f"return {SOFT}((d_severe - d_mild + MARGIN) / TEMPERATURE).mean()",
        {"loss_values": 1},
        "turn the order",
    ),
    (
        "rank_loss",
        LOSS + f"return {SOFT}((d_mild - d_severe + MARGIN) * TEMPERATURE).mean()",
        {"loss_values": 2},
        "instead of multiplying",
    ),
    (
        "rank_loss",
        LOSS + "return torch.log(1 + torch.exp((d_mild - d_severe + MARGIN) / TEMPERATURE)).mean()",
        {"loss_far": 0},
        "overflows",
    ),
    ("rank_loss", LOSS + "return torch.relu(d_mild - d_severe + MARGIN).mean()", {"loss_values": 1}, "hinge"),
    (
        "rank_loss",
        LOSS + f"return {SOFT}((d_mild - d_severe + MARGIN) / TEMPERATURE)",
        {"loss_values": 0},
        "one number",
    ),
    ("rank_loss", LOSS + "return undefined_name(d_mild)", {"loss_values": 0, "loss_far": 0}, "NameError"),
    (
        "pull",
        PULL + "return torch.sigmoid((d_mild - d_severe + MARGIN) / TEMPERATURE)",
        {"pull_values": 1.5},
        "1 / T is missing",
    ),
    (
        "pull",
        PULL + "return -torch.sigmoid((d_mild - d_severe + MARGIN) / TEMPERATURE) / TEMPERATURE",
        {"pull_values": 1.5},
        "turned round",
    ),
    (
        "pull",
        PULL + "return torch.sigmoid((d_mild - d_severe) / TEMPERATURE) / TEMPERATURE",
        {"pull_values": 1.5},
        "margin is missing",
    ),
    (
        "violations",
        PAIRS + "return (distances[:-1] >= distances[1:]).sum(0)",
        {"violations_values": 1.5},
        "not only neighbours",
    ),
    (
        "violations",
        PAIRS
        + "i, j = torch.triu_indices(len(distances), len(distances), 1)\n    return (distances[i] > distances[j]).sum(0)",
        {"violations_values": 1.5},
        "in no order",
    ),
    ("violations", PAIRS + "pass", {"violations_values": 0}, "fill in"),
]
