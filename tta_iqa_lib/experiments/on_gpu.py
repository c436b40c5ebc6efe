"""What the bench asks of a GPU besides times: how many operations a batch launches, and how equal two runs of it are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ..adaptation.adapter import Adapter
from .contestants import NETWORKS, RECIPES, images_of, network_of

BATCH, TIMES = 8, 5
PROFILED = "statistics only", "rank + gc"
COMPARED = "no adaptation", "statistics only", "default", "rank + gc"


def on_gpu(networks: Iterable[str]) -> dict[str, list[dict]]:
    """ "profile" and "equal": `launches` and `how_equal` of each network and recipe, eager and captured."""
    ways = [(network, captured) for network in networks for captured in (False, True)]
    return {
        "profile": [launches(network, recipe, captured) for network, captured in ways for recipe in PROFILED],
        "equal": [
            how_equal(network, recipe, captured, deterministic)
            for deterministic in (False, True)
            for network, captured in ways
            for recipe in COMPARED
        ],
    }


def launches(network: str, recipe: str, captured: bool) -> dict:
    """Of a batch of 8 on a CUDA device: milliseconds by the clock and of work, launches, graphs, waits."""
    adapter, images = _adapter(network, recipe, captured, "cuda")
    for _ in range(3):
        adapter(images)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(TIMES):
        adapter(images)
    torch.cuda.synchronize()
    wall = (time.perf_counter() - begin) / TIMES
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        adapter(images)
        torch.cuda.synchronize()
    events: list[Any] = list(seen.events() or ())
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    names: list[str] = [event.name for event in events]
    return {
        "network": network,
        "recipe": recipe,
        "captured": captured,
        "wall_ms": round(1000 * wall, 2),
        "busy_ms": round(sum(kernel.device_time for kernel in kernels) / 1000, 2),
        "kernels": len(kernels),
        "launches": sum(name.startswith(("cudaLaunchKernel", "cuLaunchKernel")) for name in names),
        "graphs": names.count("cudaGraphLaunch"),
        "syncs": sum("Synchronize" in name for name in names),
    }


def how_equal(network: str, recipe: str, captured: bool, deterministic: bool, device: str = "cuda") -> dict:
    """The largest difference of a score between five runs of one batch of 8, beside the spread of the scores."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        adapter, images = _adapter(network, recipe, captured, device)
        first, *others = [adapter(images).clone() for _ in range(TIMES)]
    finally:
        torch.use_deterministic_algorithms(before)
    return {
        "network": network,
        "recipe": recipe,
        "captured": captured,
        "deterministic": deterministic,
        "largest difference": max((first - other).abs().max().item() for other in others),
        "spread": first.std().item(),
    }


def _adapter(network: str, recipe: str, captured: bool, device: str):
    model = network_of(network).to(device)
    return Adapter(model, **RECIPES[recipe], capture=captured), images_of(NETWORKS[network], BATCH).to(device)
