"""TinyShift: what the benchmark promises about its contents, labels and determinism."""

import json

import numpy as np
import pytest
import torch

from tta_iqa_lib import benchmark
from tta_iqa_lib.benchmark import TARGETS, Target, build, contents, quality
from tta_iqa_lib.images import PHOTOGRAPHS, photograph
from tta_iqa_lib.models import data_folder


def test_source_and_targets_share_neither_photograph_nor_scene():
    source, development = set(contents("source/train")), set(contents(benchmark.DEVELOPMENT))
    for name, target in TARGETS.items():
        own = set(contents(name))
        assert not own & source
        if target.role == "reported":
            assert not own & development
    assert set(benchmark.SOURCE_PHOTOGRAPHS) | set(benchmark.TARGET_PHOTOGRAPHS) == set(PHOTOGRAPHS)


def test_targets_cover_four_kinds_with_at_most_two_strengths_each():
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


def test_each_target_has_at_least_twenty_contents():
    assert all(len(set(contents(name))) >= 20 for name in TARGETS)


def test_training_and_test_crops_of_a_source_image_share_no_pixel():
    """The two regions tile the image: their widths add up, and neither holds a column of the other."""
    image = torch.arange(300).float().expand(3, 200, 300)
    train, test = (benchmark._region(image, split) for split in ("source/train", "source/test"))
    assert set(train[0, 0].tolist()).isdisjoint(test[0, 0].tolist())
    assert train.shape[2] + test.shape[2] == 300


def test_quality_is_one_for_equal_images_and_falls_with_the_damage():
    reference = torch.stack([photograph(name)[:, 100:196, 100:196] for name in ("astronaut", "coffee")])
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    values = torch.stack([quality((reference + s * noise).clamp(0, 1), reference) for s in (0.0, 0.02, 0.1, 0.3)])
    assert torch.allclose(values[0], torch.ones(2), atol=1e-5)
    assert (values.diff(dim=0) < 0).all() and (values >= 0).all()


def test_building_twice_gives_the_same_split():
    first, second = (build("target/unseen", size=12, names=["cat", "scene-100"]) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert (first[2].content == second[2].content).all()
    other = build("target/unseen", size=12, names=["cat", "scene-100"], seed=5)
    assert not torch.equal(first[0], other[0])


def test_a_label_preserving_shift_leaves_the_labels_and_changes_the_images():
    """Order "after": the label is computed before the shift, so it cannot depend on it."""
    plain = build("target/scenes", size=8, seed=1, names=["flower", "scene-101"])
    hazy = build("target/scenes", size=8, seed=1, names=["flower", "scene-101"], target=Target((("haze", 0.7),)))
    physical = build(
        "target/scenes", size=8, seed=1, names=["flower", "scene-101"], target=Target((("haze", 0.7),), "before")
    )
    assert torch.equal(plain[1], hazy[1]) and not torch.equal(plain[0], hazy[0])
    assert not torch.equal(plain[1], physical[1])


def test_the_cache_returns_what_was_built(tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    small = build("target/dusk", size=6)
    monkeypatch.setattr(benchmark, "build", lambda split: small)
    built = benchmark.tinyshift("target/dusk")
    monkeypatch.setattr(benchmark, "build", lambda split: pytest.fail("built again"))
    cached = benchmark.tinyshift("target/dusk")
    assert torch.equal(built[0], cached[0]) and torch.equal(built[1], cached[1])
    assert torch.equal((cached[0] * 255).round().byte(), small[0])
    assert (cached[2].kind == small[2].kind).all()


def test_the_code_hash_ignores_comments_and_sees_numbers(tmp_path, monkeypatch):
    """A cache key that changes with a comment wastes time; one that does not change with a number lies."""
    import importlib.util

    def module(text: str, name: str):
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        spec = importlib.util.spec_from_file_location(name, file)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    plain = benchmark.code_hash(module('"""Doc."""\nx = 1\n', "plain"))
    commented = benchmark.code_hash(module('"""Other."""\n# why\nx  =  1\n', "commented"))
    changed = benchmark.code_hash(module('"""Doc."""\nx = 2\n', "changed"))
    assert plain == commented != changed


def test_the_committed_manifest_is_the_code_s():
    stored = json.loads((data_folder() / "tinyshift.json").read_text())
    assert stored["parameters"] == json.loads(json.dumps(benchmark.manifest()))
    assert stored["version"] == benchmark.version()
    for name in TARGETS:
        assert 0 < stored["targets"][name]["ceiling"] <= 1
        assert stored["targets"][name]["shifted"] == TARGETS[name].shifted


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'target/snow'"):
        build("target/snow")


def test_crops_with_detail_are_preferred():
    """Half of this scene is flat: every crop that is drawn has something to judge."""
    generator = np.random.default_rng(0)
    crops = benchmark._crops(["flower"] * 6, "target/scenes", generator)
    assert min(benchmark.detail(crop) for crop in crops) > 0.01
    assert crops.shape == (6, 3, benchmark.CROP, benchmark.CROP)
