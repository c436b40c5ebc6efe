"""Features of any network: what goes into its last linear layer, found when it runs."""

import pytest
import torch
from helpers import pictures, seeded, snapshot, tiny_mixed
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.models.wrapping import wrap_model


class Order(nn.Module):
    """Registers its layers in another order than they run."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.unused = nn.Linear(5, 1), nn.Linear(12, 5), nn.Linear(7, 1)

    def forward(self, x):
        return self.last(self.first(x[:, :, :2, :2].flatten(1)).relu())


class Crops(nn.Module):
    """Scores two crops of each image and averages, or tokens of it."""

    def __init__(self, tokens=False):
        super().__init__()
        self.head, self.tokens = nn.Linear(12, 1), tokens

    def forward(self, x):
        crops = torch.stack([x[:, :, :2, :2], x[:, :, 2:4, 2:4]], 1).flatten(2)  # (B, 2, 12)
        scores = self.head(crops if self.tokens else crops.flatten(0, 1))
        return scores.view(len(x), 2).mean(1)


def features_of(net, images):
    return wrap_model(net)(images, with_features=True)[1]


def test_the_last_linear_layer_that_runs_counts_not_the_last_that_is_registered():
    net, images = seeded(Order), pictures(3)
    expected = net.first(images[:, :, :2, :2].flatten(1)).relu()
    model = wrap_model(net)
    for _ in range(2):  # searched for, and remembered
        scores, features = model(images, with_features=True)
        assert torch.equal(features, expected) and torch.equal(scores, net(images)[:, 0])


@pytest.mark.parametrize("tokens", [False, True])
def test_crops_and_tokens_of_an_image_are_averaged(tokens):
    images = pictures(3)
    crops = torch.stack([images[:, :, :2, :2], images[:, :, 2:4, 2:4]], 1).flatten(2)
    torch.testing.assert_close(features_of(seeded(lambda: Crops(tokens)), images), crops.mean(1))


def test_a_network_without_a_linear_layer_gives_what_goes_into_its_last_convolution():
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    net = nn.Sequential(body, nn.Conv2d(6, 1, 1), nn.AdaptiveAvgPool2d(1))
    images = pictures(2)
    torch.testing.assert_close(features_of(net, images), body(images).mean((2, 3)))


def test_where_the_linear_layers_do_not_run_the_last_convolution_counts():
    """A regressor that is compiled cannot be listened to."""

    class Compiled(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare, self.conv = nn.Linear(2, 1), nn.Conv2d(3, 4, 3)
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.conv(x).mean((2, 3)) @ self.weight

    images = pictures(2)
    torch.testing.assert_close(features_of(Compiled(), images), images.mean((2, 3)))


def test_what_has_no_features_is_an_error_that_asks_for_the_layer():
    with pytest.raises(RuntimeError, match="neither a linear layer nor a convolution; pass features="):
        features_of(nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten()), pictures(2))

    class Prompts(nn.Module):
        def __init__(self):
            super().__init__()
            self.text = nn.Linear(4, 1)

        def forward(self, x):
            return x.mean((1, 2, 3)) + self.text(torch.ones(5, 4)).mean()

    with pytest.raises(RuntimeError, match="'text' sees 5 rows for 2 images: no features"):
        features_of(Prompts(), pictures(2))


def test_no_trace_is_left_in_the_module():
    net = tiny_mixed()
    before = snapshot(net)
    features_of(net, pictures(2))
    assert snapshot(net) == before


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "torchvision/shufflenet_v2_x0_5"]
)
def test_regressors_of_timm_and_torchvision_need_no_further_word(name):
    """BatchNorm or LayerNorm: the features of the last layer, scores that adapt by γ and β, a network left as it was."""
    import timm
    import torchvision

    options = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {}
    if name.startswith("torchvision/"):
        net = seeded(lambda: torchvision.models.get_model(name.split("/")[1], weights=None, num_classes=1))
    else:
        net = seeded(lambda: timm.create_model(name, num_classes=1, **options))
    model, images = wrap_model(net.eval(), crop=32, views=2, predicts="liking"), pictures(3, 32)
    before = snapshot(net)
    with torch.no_grad():
        scores, features = model(images, with_features=True)
    assert torch.equal(scores, net(images)[:, 0]) and features.shape[0] == 3 and features.shape[1] > 100
    result = tta.Adapter(model, [lambda context: -context.scores["clean"].mean()], steps=1, lr=0.01).run(images)
    assert result.skipped == {} and not torch.equal(result.scores, result.initial_scores)
    assert snapshot(net) == before
