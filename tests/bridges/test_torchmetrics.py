"""torchmetrics' learned no-reference metrics with random weights, as `test_pyiqa` does it."""

import pytest
import torch
from helpers import mean_score, pictures, snapshot

pytest.importorskip("torchmetrics")

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, batchnorm_layers


def arniqa(monkeypatch):
    from torchmetrics.functional.image.arniqa import _ARNIQA
    from torchmetrics.image.arniqa import ARNIQA

    monkeypatch.setattr(_ARNIQA, "_load_weights", lambda self: None)
    metric = ARNIQA(reduction="mean")
    metric.model.regressor.weight.data *= 1e3  # else random networks score all alike
    return metric


def clip_iqa(monkeypatch, **options):
    from piq.feature_extractors.clip import CLIP
    from torchmetrics.multimodal import CLIPImageQualityAssessment, clip_iqa

    net = CLIP(32, 64, (1, 1, 1, 1), 8, None, 77, 49408, 16, 2, 1).eval()
    noise = torch.randn(2 * len(options.get("prompts", "1")), 32)
    anchors = torch.nn.functional.normalize(torch.ones(32) + 0.03 * noise, dim=1)  # else all is one prompt or the other
    monkeypatch.setattr(clip_iqa, "_get_clip_iqa_model_and_processor", lambda _name: (net, None))
    monkeypatch.setattr(clip_iqa, "_clip_iqa_get_anchor_vectors", lambda *_arguments: anchors)
    return CLIPImageQualityAssessment(**options)


@pytest.mark.parametrize(("make", "width"), [(arniqa, 4096), (clip_iqa, 32)])
def test_a_metric_scores_as_it_does_adapts_and_stays_as_it_is(make, width, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        metric, images = make(monkeypatch), pictures(3, 64)
    expected = torch.stack([metric(image[None]) for image in images])  # ARNIQA gives the mean of a batch
    metric.reset()
    before = snapshot(metric)
    model = tta.from_torchmetrics(metric)
    with torch.no_grad():
        scores, features = model(images, with_features=True)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    assert scores.std() > 10 * (scores - expected).abs().max()  # random networks differ little from picture to picture
    assert features.shape == (3, width) and len(batchnorm_layers(model)) > 5 and model.higher_is_better
    result = tta.Adapter(metric, [mean_score], Batch(), steps=1, lr=0.05).run(images)
    assert result.skipped == {} and torch.equal(result.source_scores, scores)
    assert not torch.equal(result.scores, result.initial_scores)
    assert snapshot(metric) == before


def test_several_prompts_are_no_score(monkeypatch):
    metric = clip_iqa(monkeypatch, prompts=("quality", "sharpness"))
    with pytest.raises(ValueError, match="has 2 prompts: a model gives one score"):
        tta.Adapter(metric)
    metric = clip_iqa(monkeypatch)
    metric.model_name_or_path = "openai/clip-vit-base-patch16"
    with pytest.raises(ValueError, match=r"clip-vit-base-patch16' prepares pictures outside of PyTorch"):
        tta.from_torchmetrics(metric)
