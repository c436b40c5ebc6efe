"""Metrics of pyiqa with random weights: their own scores, adapted where they say, and left as they were.

Needs pyiqa, which is no dependency: `make test-bridges` builds an environment for it.
"""

import pytest
import torch
from helpers import mean_score, pictures, snapshot

pyiqa = pytest.importorskip("pyiqa")

import tta_iqa_lib as tta  # noqa: E402
from tta_iqa_lib.adaptation import Blend, State, adapt_batch, batchnorm_layers, norm_affine  # noqa: E402

# By name: options that make it small and its weights random, side of the images, width of the features, BatchNorm?
NETWORKS = {
    "hyperiqa": ({"num_crop": 2}, 48, 112, True),
    "tres": ({"network": "resnet18", "test_sample": 2}, 48, 1024, True),
    "metaiqa": ({}, 48, 512, True),
    "musiq": ({"num_layers": 2, "longer_side_lengths": [64, 96]}, 48, 384, False),
    "dbcnn": ({}, 48, 512 * 128, True),
    "maniqa": ({"embed_dim": 48, "dim_mlp": 48, "test_sample": 1}, 48, 24, False),
    "topiq_nr": ({"semantic_model_name": "resnet18", "inter_dim": 32}, 64, 32, True),
    "cnniqa": ({"pretrained": None}, 48, 800, None),
    "paq2piq": ({}, 64, 512, True),
    "nima": ({"base_model_name": "mobilenetv2_050"}, 48, 160, True),
    "arniqa": (None, 48, 512, True),
    "clipiqa": ({}, 64, 32, True),
}


@pytest.fixture(scope="module")
def make(offline, tmp_path_factory):
    """name → the metric, random, in a few seconds."""
    import torchvision
    from pyiqa.archs import arniqa_arch, clip_model, clipiqa_arch, dbcnn_arch

    def clip(_backbone, _device):
        return clip_model.CLIP(32, 64, (1, 1, 1, 1), 8, None, 77, 49408, 16, 2, 1).eval()

    regressor = tmp_path_factory.mktemp("arniqa") / "regressor.pth"
    torch.jit.script(torch.nn.Linear(4096, 1)).save(regressor)
    encoder = torch.nn.Sequential(*list(torchvision.models.resnet50().children())[:-1]).state_dict()
    weights = {f"model.{name}": value for name, value in encoder.items()}
    offline.setattr(torch.hub, "load_state_dict_from_url", lambda *_args, **_options: weights)
    offline.setattr(arniqa_arch, "load_file_from_url", lambda *_args, **_options: str(regressor))
    offline.setattr(clipiqa_arch, "load", clip)
    offline.setattr(dbcnn_arch, "load_pretrained_network", lambda *_args, **_options: None)

    def build(name):
        options = NETWORKS[name][0]
        options = {} if options is None else {"pretrained": False} | options
        torch.manual_seed(0)  # the same weights whatever was built before
        metric = pyiqa.create_metric(name, device=torch.device("cpu"), **options)
        for part in [metric, *hidden(metric)]:
            settle(part)
        return metric

    return build


def settle(network) -> None:
    """Moments that are not those of fresh layers, and no score that is cut off."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.6, 1.4, generator=generator)
        kinds = [type(one) for one in part[-2:]] if isinstance(part, torch.nn.Sequential) else []
        if kinds == [torch.nn.Linear, torch.nn.ReLU]:  # MANIQA's scores, which a random network may leave at zero
            part[-2].bias.data += 1


def hidden(metric) -> list:
    """What pyiqa keeps in a list, so that it is not saved."""
    return [
        part
        for value in vars(metric.net).values()
        if isinstance(value, list)
        for part in value
        if hasattr(part, "eval")
    ]


def whole(metric) -> list:
    """All of it, with what is hidden. (The tensors of what is compiled are new objects each time.)"""
    snapshots = [snapshot(part) for part in (metric, *hidden(metric))]
    for one in snapshots:
        one["tensors"] = [row for row in one["tensors"] if not row[0].startswith("net.regressor")]
    return snapshots


@pytest.mark.parametrize("name", NETWORKS)
def test_a_metric_scores_as_it_does_adapts_and_stays_as_it_is(name, make):
    """One test for each network, as building it takes longest."""
    _, side, width, batchnorm = NETWORKS[name]
    metric, images = make(name), pictures(3, side)
    expected = metric(images).flatten()
    before = whole(metric)  # some remember their last pass, the metric's own

    # The metric's own scores, direction, features of each image.
    model = tta.from_pyiqa(metric)
    with torch.no_grad():
        scores, features = model(images, with_features=True)
    assert torch.equal(scores, expected) and scores.std() > 0
    assert features.shape == (3, width) and features.std(0).max() > 0
    assert model.higher_is_better is not metric.lower_better and name in model.predicts
    assert bool(batchnorm_layers(model)) is bool(batchnorm)

    # Nothing but the metric: statistics, where there is BatchNorm; else a word.
    if batchnorm:
        result = tta.Adapter(metric, gate=None).run(images)
        assert not torch.equal(result.scores, expected)
    else:
        with pytest.warns(UserWarning, match="has no BatchNorm layer.*losses="):
            result = tta.Adapter(metric).run(images)
        assert torch.equal(result.scores, expected)
    assert torch.equal(result.source_scores, expected)

    # Losses reach γ and β, of whatever normalises, and nothing else.
    if batchnorm is not None:
        options = {"statistics": Blend(0.7)} if batchnorm else {}
        adapter = tta.Adapter(metric, [mean_score], steps=1, lr=0.05, **options)
        (learned,), state = adapt_batch(adapter.model, State(), images, adapter.recipe)
        assert learned.skipped == {} and len(learned.trace) == 1
        assert (learned.scores - learned.initial_scores).abs().max() > 0
        assert set(state.params) == set(norm_affine(model))
    else:
        with pytest.raises(ValueError, match="no normalisation layer"):
            tta.Adapter(metric, [mean_score])

    assert whole(metric) == before
    assert torch.equal(metric(images).flatten(), expected)


def test_a_name_will_do_and_options_go_to_the_metric(offline):
    options = {"pretrained": False, "device": torch.device("cpu")}
    model = tta.from_pyiqa("metaiqa", views=2, crop=48, predicts="liking", **options)
    assert (model.views, model.crop, model.predicts) == (2, 48, "liking") and model(pictures(2, 48)).shape == (2,)
    with pytest.raises(ValueError, match=r"pyiqa has no metric 'meta'; without reference it has .*hyperiqa"):
        tta.from_pyiqa("meta")


@pytest.mark.parametrize("name", ["piqe", "entropy"])
def test_what_has_no_network_is_refused_with_the_reason(name, offline):
    metric = pyiqa.create_metric(name, device=torch.device("cpu"))
    for wrap in (tta.from_pyiqa, tta.Adapter):
        with pytest.raises(ValueError, match=rf"{name} is computed by formulas, without a network"):
            wrap(metric)


def test_what_needs_a_reference_is_refused(offline):
    metric = pyiqa.create_metric("psnr", device=torch.device("cpu"))
    with pytest.raises(ValueError, match="psnr compares a picture with its reference"):
        tta.from_pyiqa(metric)
