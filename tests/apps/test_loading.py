"""Which model a name means."""

import pytest
import torch
from helpers import pictures, tiny_mixed, tiny_model
from torch import nn

from tta_iqa_lib.apps.loading import load_model
from tta_iqa_lib.models import load_source_model, save_model, wrap_model


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of somebody's own, in the folder that one works in."""
    (tmp_path / "mine.py").write_text(
        "import helpers, torch\nimport tta_iqa_lib as tta\n"
        "def wrapped(): return tta.wrap_model(helpers.tiny_mixed(), '6')\n"
        "def plain(): return helpers.tiny_model(crop=32)\n"
        "def number(): return 3\n"
        "def broken(): raise RuntimeError('no disk')\n"
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    __import__("sys").modules.pop("mine", None)


def scores(model):
    with torch.no_grad():
        return model(pictures(3))


def test_shipped_names_and_files(tmp_path):
    assert load_model().predicts.startswith("human opinion")
    small = load_model("source-1")
    assert torch.equal(scores(small), scores(load_source_model(1)))
    save_model(small, tmp_path / "m.safetensors", {"widths": [16, 32, 64, 128], "predicts": "x"})
    assert torch.equal(scores(load_model(tmp_path / "m.safetensors")), scores(small))
    assert not small.training and not any(p.requires_grad for p in small.parameters())


def test_a_function_of_one_s_own_gives_the_model_and_a_file_its_weights(own):
    assert torch.equal(scores(load_model("mine:plain")), scores(tiny_model()))
    torch.save({"state_dict": tiny_model(1).state_dict()}, own / "w.pth")
    assert torch.equal(scores(load_model("mine:plain", own / "w.pth")), scores(tiny_model(1)))
    inner = tiny_mixed(1)
    torch.save(inner.state_dict(), own / "inner.pth")  # by the names of the network, not of what is around it
    assert torch.equal(scores(load_model("mine:wrapped", own / "inner.pth")), scores(wrap_model(inner, "6")))


def test_a_regressor_of_timm_scores_as_in_timm_and_gives_what_stands_before_its_last_layer(tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=1).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = load_model("timm:test_resnet", tmp_path / "w.pth")
    images, config = pictures(3, model.crop), network.pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        found, features = model(images, with_features=True)
        expected = network((images - mean) / std)[:, 0]
    assert torch.allclose(found, expected, atol=1e-6) and found.std() > 0
    assert isinstance(model.regressor, nn.Linear) and features.shape == (3, model.regressor.in_features)


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("none", None, "no source model at 'none'"),
        ("timm:nothing", None, "no network 'nothing' in timm"),
        ("timm:test_resnet", None, "--weights FILE"),
        ("timm:test_resnet", "mixed.pth", "does not fit 'timm:test_resnet'"),
        ("timm:test_vit", "none.pth", "no file of weights"),
        ("mine:nothing", None, "cannot get 'mine:nothing': AttributeError"),
        ("nowhere:f", None, "cannot get 'nowhere:f': ModuleNotFoundError"),
        ("mine:number", None, "gave a int, not a quality model"),
        ("mine:broken", None, "'mine:broken' failed: RuntimeError: no disk"),
        ("mine:plain", "mixed.pth", "does not fit 'mine:plain'"),
        ("photographs", "mixed.pth", "has its own"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_reason(own, name, weights, reason):
    torch.save(tiny_mixed().state_dict(), own / "mixed.pth")
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        load_model(name, weights)


def test_a_metric_of_pyiqa_needs_pyiqa(monkeypatch):
    """Where the package is not installed, the name says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match="pip install pyiqa"):
        load_model("pyiqa:hyperiqa")
