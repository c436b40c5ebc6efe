import pytest
import torch
from helpers import pictures, seeded, snapshot, tiny_mixed
from torch import nn

from tta_iqa_lib.models.wrapping import wrap_model


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
