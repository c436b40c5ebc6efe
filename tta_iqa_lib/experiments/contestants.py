"""What the bench lets compete: a plain forward, the passes that a recipe cannot do without, the library, the published way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from ..adaptation.adapter import Adapter
from ..adaptation.losses import GroupContrastive, RelativeRank
from ..adaptation.normalisation import batchnorm_layers, norm_affine
from ..adaptation.recipes import recipe_of
from ..adaptation.replays import Replays
from ..adaptation.rules import Batch, Source
from ..imaging.crops import symmetries
from ..imaging.scenes import dead_leaves
from ..models.quality import QualityModel
from ..models.saving import load_source_model
from .methods import SAVINGS
from .published import Published

NETWORKS = {"small": 96, "resnet18": 224, "resnet50": 224, "tf_efficientnet_lite0": 224}  # and the side of its images
SHIPPED: dict[str, int | str] = {"small": 0, "tf_efficientnet_lite0": "photographs"}
RECIPES: dict[str, dict] = {
    "no adaptation": {"losses": (), "statistics": Source()},
    "statistics only": {"losses": (), "statistics": Batch()},
    "default": {},
    "rank": {"losses": (RelativeRank(),), "statistics": Source()},
    "gc": {"losses": (GroupContrastive(),), "statistics": Source()},
} | {name: {**options, "statistics": Source()} for name, options in SAVINGS.items()}
STEPS, CANDIDATES = 3, 6


@dataclass(frozen=True)
class Setting:
    """One line of the table.

    Attributes:
        network: a key of `NETWORKS`. recipe: of `RECIPES`.
        batch: images.
        device: "cpu" or "cuda". threads: of the CPU.
        precision: "float32", or "bfloat16" for autocast with moments in float32 (on CUDA channels-last, too).
        mode: "eager", or "captured": on CUDA, replayed from recordings.
        episodes: so many batches are adapted in one pass ("folded").
    """

    network: str
    recipe: str
    batch: int
    device: str = "cpu"
    threads: int = 1
    precision: str = "float32"
    mode: str = "eager"
    episodes: int = 1


def network_of(name: str) -> QualityModel:
    """A shipped model where there is one, else the network with random weights and a linear regressor, in evaluation mode."""
    if name in SHIPPED:
        return load_source_model(SHIPPED[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        import timm

        body = timm.create_model(name, num_classes=0)
        width: int = vars(body)["num_features"]  # timm declares it nowhere
        return QualityModel(body, nn.Linear(width, 1)).eval().requires_grad_(False)


@cache
def images_of(side: int, count: int) -> Tensor:
    """(count, 3, side, side) in [0, 1]: dead leaves at dusk, so that the default recipe's gate opens."""
    scenes = [dead_leaves(seed)[:, :side, :side] for seed in range(count)]
    return 0.3 * torch.stack(scenes)


def floor_of(setting: Setting, model: QualityModel, images: Tensor) -> Callable[[], object]:
    """The passes that the recipe cannot do without, on tensors that lie ready, in plain PyTorch.

    The source's scores; with statistics, one more pass (the default recipe: one for each of its normalisations, and all in each
    symmetric view of the model); with losses, three steps (on the images, and for rank on two copies of each) and the final
    scores; with rank, the scores of six candidate copies. The cheaper forms are held against the full one.
    """
    plain = copy.deepcopy(model)
    renewed = copy.deepcopy(model)
    for layer in batchnorm_layers(renewed).values():
        layer.train()
        layer.momentum = 0.0
    rank = "rank" in setting.recipe or setting.recipe in SAVINGS
    steps = STEPS if rank or "gc" in setting.recipe else 0
    params = [plain.get_parameter(name).requires_grad_(steps > 0) for name in norm_affine(plain)]
    rows = torch.cat([images] * 3) if rank else images
    candidates = torch.cat([images] * CANDIDATES) if rank else None

    views = symmetries(images, model.views if setting.recipe == "default" else 1)
    how = recipe_of(model).inference
    rules = {"statistics only": [Batch()], "default": [how.statistics, *how.ensemble]}.get(setting.recipe, [])
    renewals = sum(rule != Source() for rule in rules)

    def run() -> None:
        with torch.no_grad():
            for view in views:
                plain(view)
            if candidates is not None:
                plain(candidates)
        for _ in range(steps):
            torch.autograd.grad(plain(rows).sum(), params)
        with torch.no_grad():
            for view in views * renewals:
                renewed(view)
            if steps:
                plain(images)

    return run


def contestants(setting: Setting) -> dict[str, Callable[[], object]]:
    """A plain forward pass, the floor, the library's loop and, for the published method, a loop as the published one."""
    device = torch.device(setting.device)
    model, side = network_of(setting.network).to(device), NETWORKS[setting.network]
    images = images_of(side, setting.batch * setting.episodes).to(device)
    if (setting.device, setting.precision) == ("cuda", "bfloat16"):
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    batches, labels = images.split(setting.batch), torch.arange(len(images)) // setting.batch
    adapter = Adapter(
        model,
        **RECIPES[setting.recipe],
        capture=setting.mode == "captured",
        episodes_per_pass=setting.episodes,
    )
    groups = labels.tolist() if setting.episodes > 1 else None
    found: dict[str, Callable[[], object]] = {
        "forward": torch.no_grad()(lambda: [model(batch) for batch in batches]),
        "floor": floor_of(setting, model, images),
        "ours": lambda: adapter.run(images, groups),
    }
    if setting.recipe == "rank + gc" and setting.episodes == 1:  # it takes batch after batch, whatever their number
        found["published"] = lambda: Published(model).predict(images, setting.batch)
    if setting.mode == "captured":
        found["captured forward"] = _captured(found["forward"])
        found["captured floor"] = _captured(found["floor"])
    return {name: _in_precision(run, setting) for name, run in found.items()}


def _captured(run: Callable[[], object]) -> Callable[[], object]:
    """The same from a CUDA graph."""
    replays, nothing = Replays(), torch.zeros(1, device="cuda")
    return lambda: replays("bench", lambda _: run(), nothing)


def _in_precision(run: Callable[[], object], setting: Setting) -> Callable[[], object]:
    def precisely() -> object:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bfloat16"):
            return run()

    return precisely
