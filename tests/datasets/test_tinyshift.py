"""TinyShift: what the benchmark promises about its contents, labels and determinism."""

import json
from itertools import combinations

import numpy as np
import piq
import pytest
import torch

from tta_iqa_lib.datasets import tinyshift as benchmark
from tta_iqa_lib.datasets.tinyshift import TARGETS, Target, build, contents, quality
from tta_iqa_lib.imaging import scenes
from tta_iqa_lib.imaging.distortions import distort
from tta_iqa_lib.imaging.scenes import PHOTOGRAPHS, photograph
from tta_iqa_lib.store import code, data_folder


def test_source_and_targets_share_neither_photograph_nor_scene():
    """Neither by name nor by pixel: scenes whose numbers share their first digits, or their last, are different scenes."""
    source, development = set(contents("source/train")), set(contents(benchmark.DEVELOPMENT))
    for name, target in TARGETS.items():
        own = set(contents(name))
        assert not own & source
        if target.role == "reported":
            assert not own & development
    assert set(benchmark.SOURCE_PHOTOGRAPHS) | set(benchmark.TARGET_PHOTOGRAPHS) == set(PHOTOGRAPHS)
    scenes = [benchmark.content(name) for name in ("scene-1000", "scene-100", "scene-1001", "scene-101")]
    assert not any(torch.equal(a, b) for a, b in combinations(scenes, 2))


def test_targets_cover_four_kinds_with_at_most_two_strengths_each():
    """Every kind is there, no shift more than twice, and no target twice under two names."""
    reported = [t for t in TARGETS.values() if t.role == "reported"]
    kinds = {
        "other contents": [t for t in reported if not t.shift and t.kinds == benchmark.SOURCE_KINDS],
        "label-preserving": [
            t for t in reported if t.shift and t.order == "after" and t.kinds == benchmark.SOURCE_KINDS
        ],
        "physical": [t for t in reported if t.order == "before"],
        "unseen distortions": [t for t in reported if not t.shift and t.kinds == benchmark.UNSEEN_KINDS],
        "both": [t for t in reported if t.shift and t.kinds == benchmark.UNSEEN_KINDS],
    }
    assert all(kinds.values()) and sum(map(len, kinds.values())) == len(reported) >= 8
    for group in kinds.values():
        names = [(t.shift[0][0] if t.shift else "", t.order) for t in group]
        assert max(names.count(name) for name in names) <= 2
    assert sum(t.role == "development" for t in TARGETS.values()) == 1
    assert len(set(TARGETS.values())) == len(TARGETS)


def test_each_target_has_at_least_twenty_contents():
    assert all(len(set(contents(name))) >= 20 for name in TARGETS)


def test_training_and_test_crops_of_a_source_image_share_no_pixel(monkeypatch):
    """The two regions tile the image: their widths add up, and neither holds a column of the other; nor do the crops."""
    image = torch.arange(300).float().expand(3, 200, 300)
    train, test = (benchmark._region(image, split) for split in ("source/train", "source/test"))
    assert set(train[0, 0].tolist()).isdisjoint(test[0, 0].tolist())
    assert train.shape[2] + test.shape[2] == 300
    monkeypatch.setattr(benchmark, "content", lambda name: image)  # each pixel is the number of its column
    train, test = (
        benchmark._crops(["scene-0"] * 40, split, np.random.default_rng(0)) for split in ("source/train", "source/test")
    )
    assert train.max() < test.min()


def test_quality_is_one_for_equal_images_and_falls_with_the_damage():
    """It is the mean of three metrics, each cut to [0, 1]: SSIM of a negative falls below, VIF of more contrast above."""
    reference = torch.stack([photograph(name)[:, 100:196, 100:196] for name in ("astronaut", "coffee")])
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    values = torch.stack([quality((reference + s * noise).clamp(0, 1), reference) for s in (0.0, 0.02, 0.1, 0.3)])
    assert torch.allclose(values[0], torch.ones(2), atol=1e-5)
    assert (values.diff(dim=0) < 0).all() and (values >= 0).all()
    for other in (1 - reference, (1.5 * reference - 0.25).clamp(0, 1), reference + 0.1 * noise):
        pair = other.clamp(0, 1), reference
        metrics = [metric(*pair, reduction="none") for metric in (piq.ssim, piq.vif_p, piq.haarpsi)]
        assert torch.allclose(quality(*pair), sum(m.clamp(0, 1) for m in metrics) / 3, atol=1e-6)


def test_building_twice_gives_the_same_split():
    """In another process, too: a split's own seed is a number that follows from its name."""
    first, second = (build("target/unseen", size=12, names=["cat", "scene-100"]) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert (first[2].content == second[2].content).all()
    other = build("target/unseen", size=12, names=["cat", "scene-100"], seed=5)
    assert not torch.equal(first[0], other[0])
    own = build("target/unseen", size=12, names=["cat", "scene-100"], seed=2_476_854_955)
    assert torch.equal(first[0], own[0])


def test_a_label_preserving_shift_leaves_the_labels_and_changes_the_images(monkeypatch):
    """Order "after": the label is computed before the shift, so it cannot depend on it.

    Order "before": the scene itself is shifted, once, and its label compares with the shifted scene.
    """
    judged = []
    monkeypatch.setattr(benchmark, "quality", lambda *pair: judged.append(pair) or quality(*pair))
    plain = build("target/scenes", size=8, seed=1, names=["flower", "scene-101"])
    hazy = build("target/scenes", size=8, seed=1, names=["flower", "scene-101"], target=Target((("haze", 0.7),)))
    physical = build(
        "target/scenes", size=8, seed=1, names=["flower", "scene-101"], target=Target((("haze", 0.7),), "before")
    )
    assert torch.equal(plain[1], hazy[1]) and not torch.equal(plain[0], hazy[0])
    assert not torch.equal(plain[1], physical[1])
    (_, scene), _, (worse, hazy_scene) = judged
    assert torch.equal(hazy_scene, distort(scene, "haze", 0.7))
    assert torch.equal(physical[0], benchmark.to_bytes(worse))


def test_the_cache_returns_what_was_built(tmp_path, monkeypatch):
    """Every part of it, and only for the same split of the same benchmark: all else is built."""
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    small = build("target/dusk", size=6)
    monkeypatch.setattr(benchmark, "build", lambda split: small)
    built = benchmark.tinyshift("target/dusk")
    monkeypatch.setattr(benchmark, "build", lambda split: pytest.fail("built again"))
    cached = benchmark.tinyshift("target/dusk")
    assert torch.equal(built[0], cached[0]) and torch.equal(built[1], cached[1])
    assert torch.equal((cached[0] * 255).round().byte(), small[0])
    assert torch.equal(cached[1], small[1])
    assert all((getattr(cached[2], name) == value).all() for name, value in vars(small[2]).items())
    fresh = build("target/dusk", size=4)
    monkeypatch.setattr(benchmark, "build", lambda split: fresh)
    assert len(benchmark.tinyshift("target/haze")[0]) == 4
    monkeypatch.setattr(code, "_read", lambda text, package: ("other code", frozenset()))
    assert len(benchmark.tinyshift("target/dusk")[0]) == 4


@pytest.mark.parametrize("module", ["datasets/tinyshift.py", "imaging/scenes.py", "imaging/distortions.py"])
def test_the_fingerprint_changes_with_the_code_that_decides_the_benchmark(module, monkeypatch):
    before, read = benchmark.fingerprint(), code._read
    text = (code.LIBRARY / module).read_text(encoding="utf-8")
    monkeypatch.setattr(code, "_read", lambda t, package: read(t + "\ny = 0\n" * (t == text), package))
    assert benchmark.fingerprint() != before


def test_the_fingerprint_changes_with_the_photographs(monkeypatch):
    before = benchmark.fingerprint()
    monkeypatch.setattr(scenes, "photograph", lambda name: torch.zeros(3, 8, 8))
    assert benchmark.fingerprint() != before


def test_the_committed_manifest_is_the_code_s():
    stored = json.loads((data_folder() / "tinyshift.json").read_text())
    assert stored["parameters"] == json.loads(json.dumps(benchmark.manifest()))
    assert stored["version"] == benchmark.version()
    for name in TARGETS:
        assert 0 < stored["targets"][name]["ceiling"] <= 1
        assert stored["targets"][name]["shifted"] == TARGETS[name].shifted
        assert stored["targets"][name]["role"] == TARGETS[name].role


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'target/snow'"):
        build("target/snow")


def test_crops_with_detail_are_preferred():
    """Half of this scene is flat: every crop that is drawn has something to judge."""
    generator = np.random.default_rng(0)
    crops = benchmark._crops(["flower"] * 6, "target/scenes", generator)
    assert min(benchmark.detail(crop) for crop in crops) > 0.01
    assert crops.shape == (6, 3, benchmark.CROP, benchmark.CROP)
