import json

import pytest
import torch
from helpers import pictures, seeded, snapshot, tiny_mixed, tiny_model
from safetensors.torch import load_file, save_file
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.models import quality as models
from tta_iqa_lib.models.quality import (
    MOMENTS,
    data_folder,
    load_source_model,
    read_about,
    save_model,
    wrap_model,
)


class Two(nn.Module):
    """A module of somebody else's: features (B, 4, 2, 1), then something that holds the score."""

    def __init__(self, output):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d((2, 1)))
        self.head = nn.Linear(8, 1)
        self.output = output

    def forward(self, x):
        return self.output(self.head(self.body(x).flatten(1)))


def two(output) -> Two:
    return seeded(lambda: Two(output)).eval()


OUTPUTS = {
    "(B,)": lambda s: s[:, 0],
    "(B, 1)": lambda s: s,
    "(B, 1, 1, 1)": lambda s: s[..., None, None],
    "tuple": lambda s: (s, "attention"),
    "list of a tuple": lambda s: [(s[:, 0], 3), 4],
    "dictionary of one": lambda s: {"anything": s},
    "dictionary": lambda s: {"features": s.new_zeros(7), "score": s},
    "dictionary of a tuple": lambda s: {"logits": 0, "mos": (s, 1)},
}


def test_scores_are_a_vector_and_features_a_matrix():
    model, images = tiny_model(), pictures(3)
    with torch.no_grad():
        scores, features = model(images, with_features=True)
        assert scores.shape == (3,) and features.shape == (3, 6)
        assert torch.equal(model(images), scores)
        assert torch.equal(model.regressor(features)[:, 0], scores)


def test_input_normalisation_lives_inside_the_model():
    """A model whose features are the channel means: (x − mean) / std, ImageNet's by default."""
    images = pictures(2).double()
    means = images.mean((2, 3))

    def features(**options):
        model = tta.QualityModel(nn.AdaptiveAvgPool2d(1), nn.Linear(3, 1), **options).double()
        return model(images, with_features=True)[1]

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()
    assert torch.allclose(features(), (means - mean) / std, rtol=0, atol=1e-12)
    assert torch.allclose(features(mean=(0.5, 0, 0), std=(2, 1, 1))[:, 0], (means[:, 0] - 0.5) / 2, rtol=0, atol=1e-12)


def test_regressor_may_give_vectors_or_columns():
    body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    column, vector = nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    vector[0].load_state_dict(column.state_dict())
    images = pictures(4)
    assert torch.equal(tta.QualityModel(body, column)(images), tta.QualityModel(body, vector)(images))


def test_small_model_halves_the_image_at_each_stage_but_the_first():
    """Stem and all stages after the first have stride 2; D is the last width."""
    model = tta.small_model((4, 6, 8))
    stages = nn.Sequential(*list(model.features)[:-2])
    assert stages(pictures(2, 64)).shape == (2, 8, 8, 8)
    assert model(pictures(2, 64), with_features=True)[1].shape == (2, 8)


def test_a_block_adds_its_shortcut():
    """Both shapes of shortcut, against the formula."""
    for block in (models.Block(4, 4, 1).eval(), models.Block(4, 6, 2).eval()):
        x = torch.rand(2, 4, 8, 8)
        inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
        assert torch.equal(block(x), (inner + block.shortcut(x)).relu())
        assert isinstance(block.shortcut, nn.Identity) == (block.conv1.stride == (1, 1))


def test_moments_are_remembered_as_copies_and_other_names_refused():
    model, mean = tiny_model(), torch.rand(6)
    assert all(getattr(model, name) is None for name in MOMENTS)
    model.set_moments(feature_mean=mean)
    expected = mean.clone()
    mean.zero_()
    assert torch.equal(model.feature_mean, expected) and "feature_mean" in model.state_dict()
    with pytest.raises(KeyError, match="feature_median"):
        model.set_moments(feature_median=mean)


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

    monkeypatch.setattr(models, "save_file", half)
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


@pytest.mark.parametrize("name", OUTPUTS)
def test_scores_are_read_from_any_usual_output(name):
    images = pictures(3)
    expected = two(OUTPUTS["(B,)"])(images)
    wrapped = wrap_model(two(OUTPUTS[name]), features="body")
    assert torch.equal(wrapped(images), expected)


def test_features_are_the_named_layers_output_flattened():
    module, images = two(OUTPUTS["(B, 1)"]), pictures(3)
    scores, features = wrap_model(module, features="body")(images, with_features=True)
    assert features.shape == (3, 8) and torch.equal(features, module.body(images).flatten(1))
    assert torch.equal(scores, module(images)[:, 0])
    assert wrap_model(module, features="body.0")(images, with_features=True)[1].shape == (3, 4 * 30 * 30)


def test_score_reads_what_no_rule_fits():
    module, images = two(lambda s: {"low": -s, "high": s, "extra": s.new_zeros(9)}), pictures(3)
    with pytest.raises(ValueError, match=r"'low', 'high', 'extra'.*score="):
        wrap_model(module, features="body")(images)
    wrapped = wrap_model(module, features="body", score=lambda output: output["high"])
    assert torch.equal(wrapped(images), module(images)["high"][:, 0])


@pytest.mark.parametrize("output", [lambda s: s.expand(-1, 5), lambda s: s.mean(), lambda s: None, lambda s: ()])
def test_an_output_without_one_score_per_image_is_an_error(output):
    with pytest.raises(ValueError, match="score="):
        wrap_model(two(output), features="body")(pictures(3))


def test_normalise_is_applied_before_the_module():
    module, images = two(OUTPUTS["(B,)"]), pictures(2)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    by_hand = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(wrap_model(module, "body", normalise=(mean, std))(images), module(by_hand))


def test_an_unknown_feature_layer_is_an_error_that_lists_names():
    with pytest.raises(ValueError, match=r"no layer 'avgpool'.*body\.1.*head"):
        wrap_model(two(OUTPUTS["(B,)"]), features="avgpool")
    with pytest.raises(ValueError, match="views must be 1, 2 or 8; got 3"):
        wrap_model(two(OUTPUTS["(B,)"]), views=3)


def test_a_feature_layer_that_gave_no_tensor_is_an_error_only_when_features_are_asked_for():
    module = two(OUTPUTS["(B,)"])
    module.spare = nn.Linear(1, 1)
    wrapped = wrap_model(module, features="spare")
    assert wrapped(pictures(2)).shape == (2,)
    module.body.register_forward_hook(lambda _module, _input, output: [output])
    module.head = nn.Sequential(nn.Flatten(), module.head)
    module.forward = lambda x: module.output(module.head(module.body(x)[0]))
    for layer in ("spare", "body"):  # one that did not run, one that gave a list
        with pytest.raises(RuntimeError, match=f"'{layer}' gave no tensor"):
            wrap_model(module, features=layer)(pictures(2), with_features=True)


def test_wrapping_uses_the_module_itself_and_leaves_no_trace():
    def fail(_scores):
        raise RuntimeError("in the module")

    for output in (OUTPUTS["(B,)"], fail):
        module = two(output)
        before = snapshot(module)
        wrapped = wrap_model(module, features="body", higher_is_better=False)
        try:
            wrapped(pictures(2), with_features=True)
        except RuntimeError as error:
            assert output is fail and "in the module" in str(error)
        assert wrapped.module is module and wrapped.higher_is_better is False
        assert snapshot(module) == before


def test_wrapping_follows_the_modules_precision():
    for dtype in (torch.float64, torch.bfloat16):
        wrapped = wrap_model(tiny_mixed().to(dtype), features="4", normalise=((0.5,) * 3, (0.2,) * 3))
        assert wrapped(pictures(2).to(dtype)).dtype == dtype
