"""Networks of other packages with random weights: nothing is downloaded, and they are smaller than the real ones."""

import pytest
import torch


@pytest.fixture(scope="module")
def offline():
    """Within a module, whatever asks for pretrained weights of timm, torchvision or pyiqa gets random ones."""
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    create, patch = timm.create_model, pytest.MonkeyPatch()

    def small(name, pretrained=False, **options):
        if name == "vit_base_patch8_224":  # MANIQA's: its depth and patches, but narrow
            options |= {"embed_dim": 48, "num_heads": 2}
        return create(name, pretrained=False, **options)

    patch.setattr(timm, "create_model", small)
    for name in ("resnet18", "resnet34", "resnet50", "vgg16"):
        build = getattr(torchvision.models, name)
        patch.setattr(torchvision.models, name, lambda weights=None, build=build, **options: build(**options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield patch
    patch.undo()
