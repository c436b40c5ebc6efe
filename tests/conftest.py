"""Fixtures that several rooms use, and the rule about skips."""

import pytest
from skips import (  # noqa: F401
    pytest_collectreport,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)


@pytest.fixture
def small_squares(tmp_path, monkeypatch):
    """Small pictures of real opinions, and a cache of the test's own."""
    from tta_iqa_lib.experiments import opinions

    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opinions, "SIZE", 40)
    monkeypatch.setattr(opinions, "CROP", 32)
    monkeypatch.setattr(opinions, "BATCH", 4)


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
