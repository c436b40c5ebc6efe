"""Assignment 1: wrong answers that students give, what each still earns, and a part of what they are told."""

RANKS = "def ranks(values):\n    "
PAIRS = "def pairs_in_order(pred, target):\n    "
LEVELS = "def quantise(images):\n    "
NOISE = "def add_noise(images, rms, seed):\n    "
SETUP = (
    PAIRS
    + "i, j = torch.triu_indices(len(pred), len(pred), offset=1)\n    d, t = pred[i] - pred[j], target[i] - target[j]\n    "
)
DRAW = (
    NOISE + "noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=images.dtype)\n    "
)

# function, its code, {item: points it still earns; the items not named earn all}, part of the reason
WRONG = [
    ("ranks", RANKS + "return values.argsort().argsort() + FIRST", {"ranks_values": 1.5}, "share one rank"),
    ("ranks", RANKS + "return values.argsort()", {"ranks_values": 0}, "sort once more"),
    (
        "ranks",
        "from scipy.stats import rankdata\n\n\n" + RANKS + "return rankdata(values, method='dense') - 1 + FIRST",
        {"ranks_values": 1.5},
        "left out nowhere",
    ),
    (
        "ranks",
        "from scipy.stats import rankdata\n\n\n" + RANKS + "return len(values) - rankdata(values) + FIRST",
        {"ranks_values": 1.5},
        "turned round",
    ),
    (
        "pairs_in_order",
        SETUP + "apart = t.abs() > GAP\n    return (d.sign() == t.sign())[apart].double().mean()",
        {"pairs_values": 2},
        "not nothing",
    ),
    (
        "pairs_in_order",
        SETUP + "return ((d.sign() * t.sign() + 1) / 2).mean()",
        {"pairs_values": 2, "pairs_none": 0},
        "more than GAP",
    ),
    (
        "pairs_in_order",
        SETUP + "apart = t.abs() > GAP\n    return (d.sign() * t.sign())[apart].mean()",
        {"pairs_values": 2},
        "right minus wrong",
    ),
    (
        "pairs_in_order",
        SETUP
        + "s = (d.sign() * t.sign())[t.abs() > GAP]\n    return float(((s + 1) / 2).sum()) / len(s) if len(s) else 0.0",
        {"pairs_none": 0},
        "return NaN",
    ),
    (
        "quantise",
        LEVELS + "return (images * (LEVELS - 1)).floor() / (LEVELS - 1)",
        {"quantise_values": 1.5},
        "not down",
    ),
    ("quantise", LEVELS + "return (images * LEVELS).round() / LEVELS", {"quantise_values": 1.5}, "LEVELS + 1 values"),
    (
        "quantise",
        LEVELS + "return images.mul_(LEVELS - 1).round_() / (LEVELS - 1)",
        {"quantise_values": 1.5},
        "changes the im",
    ),
    (
        "quantise",
        LEVELS + "return torch.bucketize(images, torch.linspace(0, 1, LEVELS))",
        {"quantise_values": 0},
        "nearest of LEVELS",
    ),
    ("add_noise", DRAW + "return images + noise * rms.view(-1, 1, 1, 1)", {"noise_strength": 2}, "on average only"),
    (
        "add_noise",
        DRAW
        + "own = noise.square().mean((1, 2, 3), keepdim=True).sqrt()\n"
        + "    return (images + noise / own * rms.view(-1, 1, 1, 1)).clamp(0, 1)",
        {"noise_strength": 2},
        "clipped",
    ),
    (
        "add_noise",
        NOISE
        + "noise = torch.randn(images.shape, dtype=images.dtype)\n"
        + "    own = noise.square().mean((1, 2, 3), keepdim=True).sqrt()\n"
        + "    return images + noise / own * rms.view(-1, 1, 1, 1)",
        {"noise_seed": 0},
        "same seed",
    ),
    (
        "add_noise",
        NOISE
        + "noise = torch.randn(images.shape[2:], generator=torch.Generator().manual_seed(seed), dtype=images.dtype)\n"
        + "    return images + noise / noise.square().mean().sqrt() * rms.view(-1, 1, 1, 1)",
        {"noise_strength": 2},
        "the same one, scaled",
    ),
]
