"""Fixtures that several rooms use, and the rule about skips."""

import pytest
from skips import (  # noqa: F401
    pytest_collectreport,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)


@pytest.fixture
def small_opinions(tmp_path, monkeypatch):
    """The experiment on opinions with pictures of 40 pixels, a small untrained network, and a cache of the test's own."""
    import tta_iqa_lib as tta
    from tta_iqa_lib.experiments.opinions import pack, sources, study
    from tta_iqa_lib.models import saving

    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    for module in (pack, sources):
        monkeypatch.setattr(module, "SIDE", 40)

    def small(_name, pretrained=True, hidden=0, **about):
        return tta.small_model((4, 6), **about)

    for module in (sources, saving):  # the second one reads it from its file
        monkeypatch.setattr(module, "backbone_model", small)
    monkeypatch.setattr(sources, "SHARES", (0.5, 0.25, 0.25))
    seeds = dict.fromkeys(sources.SOURCES, 1) | {"live": 2}
    monkeypatch.setitem(sources.SCALES, "reduced", sources.Scale("reduced", 32, 16, 8, 1, seeds))
    caches = study._pack, study._model, study._images, study._quantiles
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """BIQ2021 in its layout, of twelve pictures, four a subset; the second of ss02 shows what the first of ss01 shows."""
    from helpers import pictures
    from PIL import Image

    images = pictures(12, 60, seed=2)
    images[5] = 0.8 * images[0]
    place = tmp_path / "biq2021"
    (place / "Images").mkdir(parents=True)
    rows: dict[str, list[str]] = {"Train": [], "Test": []}
    for i, image in enumerate(images):
        name = f"ss0{i // 4 + 1} ({i % 4 + 1}).jpg"
        pixels = (image[:, : 44 + i] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(place / "Images" / name, quality=95)
        rows["Test" if i % 4 == 3 else "Train"].append(f"{name},{i / 16}")
    for table, lines in rows.items():
        (place / f"{table} (Images and MOS).csv").write_text("\n".join(["Image Name,MOS", *lines, ""]))
    return place
