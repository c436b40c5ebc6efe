import json

import pytest
import torch
from helpers import pictures, tiny_model
from safetensors.torch import load_file, save_file

from tta_iqa_lib.models import saving
from tta_iqa_lib.models.quality import MOMENTS
from tta_iqa_lib.models.saving import load_source_model, read_about, save_model
from tta_iqa_lib.store import data_folder

ABOUT = {"widths": [4, 6], "crop": 48, "predicts": "computed quality, Größe", "srcc": 0.9017}


def test_saving_and_loading_is_bit_exact(tmp_path):
    model, images = tiny_model(), pictures(3)
    model.set_moments(
        feature_mean=torch.rand(6), feature_cov=torch.rand(6, 6), score_mean=torch.rand(()), score_std=torch.rand(())
    )
    model.to(memory_format=torch.channels_last)
    path = tmp_path / "new folder" / "model.safetensors"
    save_model(model, path, ABOUT)
    loaded = load_source_model(str(path))
    assert read_about(path) == ABOUT and (loaded.crop, loaded.predicts) == (48, ABOUT["predicts"])
    expected, found = model.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys() and set(MOMENTS) <= found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    model.to(memory_format=torch.contiguous_format)
    assert torch.equal(loaded(images), model(images))
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_a_loaded_model_is_ready_to_score(tmp_path):
    save_model(tiny_model(), tmp_path / "m.safetensors", ABOUT)
    loaded = load_source_model(tmp_path / "m.safetensors")
    assert not any(module.training for module in loaded.modules())
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(getattr(loaded, name) is None for name in MOMENTS)  # none were saved


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_model(tiny_model(0), path, ABOUT)
    before = path.read_bytes()

    def half(_tensors, file, **_options):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        save_model(tiny_model(1), path, ABOUT)
    assert path.read_bytes() == before


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234567\n"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "no model, or only a part"),
        ("text", "no model, or only a part"),
        ("cut", "no model, or only a part"),
        ("pointer", "Git LFS has left a pointer"),
        ("unlabelled", "does not say how it was made"),
        ("foreign", "does not say how it was made"),
        ("not json", "does not say how it was made"),
        ("a list", "does not say how it was made"),
        ("no widths", "another model.*widths"),
        ("bad widths", "another model"),
        ("other shapes", "another model.*size mismatch"),
        ("other names", "another model.*Unexpected key"),
    ],
)
def test_a_file_that_is_no_model_is_one_error_that_names_it(tmp_path, kind, reason):
    path = tmp_path / f"{kind}.safetensors"
    shipped = data_folder() / "models" / "source-0.safetensors"
    about, tensors = read_about(shipped), load_file(shipped)
    metadata = {
        "foreign": {"format": "pt"},
        "not json": {"about": "{"},
        "a list": {"about": "[]"},
        "no widths": {"about": json.dumps({k: v for k, v in about.items() if k != "widths"})},
        "bad widths": {"about": json.dumps({**about, "widths": "wide"})},
        "other shapes": {"about": json.dumps({**about, "widths": [4, 8, 16, 32]})},
        "other names": {"about": json.dumps(about)},
    }
    written = {
        "empty": b"",
        "text": b"hello " * 40,
        "cut": shipped.read_bytes()[:5000],
        "pointer": LFS_POINTER.encode(),
    }
    if kind in written:
        path.write_bytes(written[kind])
    else:
        more = {"more": torch.ones(1)} if kind == "other names" else {}
        save_file(tensors | more, path, metadata=metadata.get(kind))
    with pytest.raises(ValueError, match=reason) as caught:
        load_source_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_model_file_says_how_to_train_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="tta-iqa train"):
        load_source_model(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="source-99"):
        load_source_model(99)


@pytest.mark.parametrize("source", [0, "photographs"])
def test_loading_a_model_leaves_the_callers_random_numbers_alone(source):
    before = torch.random.get_rng_state()
    load_source_model(source)
    assert torch.equal(before, torch.random.get_rng_state())
