"""Long streams: the order of each setting, what is carried on in it, and what the stored run says."""

import json

import pytest
import torch
from helpers import tiny_model

from tta_iqa_lib.adaptation import Adapter, Ema, Source
from tta_iqa_lib.experiments import endurance
from tta_iqa_lib.experiments.analysis import read_results
from tta_iqa_lib.experiments.endurance import DOMAINS, MARGIN, SETTINGS, Contestant, draw_pool, endure, stretches

POOL = draw_pool(6 * 40)
MOMENTS = {"statistics": Ema(0.5)}


@pytest.fixture(scope="module")
def model():
    return tiny_model(crop=endurance.SIDE)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_an_order_of_all_images(setting):
    parts = stretches(setting, POOL)
    assert torch.cat([part.rows for part in parts]).sort().values.tolist() == list(range(240))
    assert [part.reset for part in parts] == [True] + [setting == "reset"] * (len(DOMAINS) - 1)
    for part, name in zip(parts, DOMAINS, strict=True):
        domains, quality, severity = (values[part.rows] for values in (POOL.domain, POOL.quality, POOL.severity))
        if setting.startswith("mixed"):
            assert part.domain == "all" and len(domains.unique()) == len(DOMAINS)
        else:
            assert part.domain == name and domains.tolist() == [DOMAINS.index(name)] * 40
        whole = quality[quality.isfinite()].diff()
        assert (whole >= 0).all() == setting.endswith("correlated")
        if setting == "gradual":
            peak = int(severity.argmax())
            assert (severity[: peak + 1].diff() >= 0).all() and (severity[peak:].diff() <= 0).all()


def test_an_unknown_setting_is_an_error_that_names_the_others():
    with pytest.raises(ValueError, match=r"setting must be .*'continual'.*got 'eternal'"):
        stretches("eternal", POOL)


def test_the_pool_holds_what_its_domains_say():
    broken = POOL.quality.isnan()
    assert broken.sum() == 20 and (POOL.domain[broken] == DOMAINS.index("broken")).all()
    kinds = {(float(image.std()) > 0 and "noise") or float(image.mean()) for image in POOL.images[broken]}
    assert kinds == {0.0, 1.0, "noise"}
    light = {name: float(POOL.images[POOL.domain == i].mean()) for i, name in enumerate(DOMAINS)}
    assert light["dark"] < light["clear"] - 0.1 < light["haze"] - 0.2
    assert (POOL.severity[POOL.domain == 0] == 0).all() and POOL.severity.max() <= 1
    again = draw_pool(6 * 40)
    assert torch.equal(again.images, POOL.images) and not torch.equal(draw_pool(240, 1).images, POOL.images)


def columns(rows: list[dict], *names: str) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in rows]


def test_what_is_learned_is_carried_on_but_where_the_setting_resets(model):
    contestant = Contestant(MOMENTS)
    reset, continual = (endure(model, contestant, POOL, (setting,)) for setting in ("reset", "continual"))
    assert columns(reset, "domain", "source") == columns(continual, "domain", "source")
    assert reset[0]["adapted"] == continual[0]["adapted"]
    assert columns(reset, "adapted")[1:] != columns(continual, "adapted")[1:]
    several = endure(model, contestant, POOL, ("continual", "gradual", "continual", "reset"))
    assert several[2 * len(DOMAINS) :] == continual + reset  # nothing goes over into the next setting


def test_restarts_are_counted_and_make_each_batch_the_first(model):
    rows = endure(model, Contestant(MOMENTS, lambda result: True), POOL, ("mixed",))
    assert columns(rows, "restarts", "undone", "images") == [(1, 0, 40)] * 6
    adapter = Adapter(model, **MOMENTS)
    part = stretches("mixed", POOL)[3]
    quality = POOL.quality[part.rows]
    whole = quality.isfinite()
    alone = endurance.srcc(adapter(POOL.images[part.rows])[whole], quality[whole])
    assert rows[3]["adapted"] == round(alone, 4)


def test_the_source_alone_is_never_below_itself(model):
    rows = endure(model, Contestant({"losses": (), "statistics": Source()}), POOL)
    assert columns(rows, "setting") == [(name,) for name in SETTINGS for _ in DOMAINS]
    assert columns(rows, "adapted") == columns(rows, "source")


def test_a_run_is_one_table_that_marks_what_is_beyond_the_margin(model, monkeypatch, tmp_path):
    crops = endurance.tinyshift("source/test")
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path))
    monkeypatch.setattr(endurance, "small_source", lambda: model)
    monkeypatch.setattr(endurance, "tinyshift", lambda split: crops)  # not anew for a cache that is empty
    monkeypatch.setattr(endurance, "CONTESTANTS", {"plain": Contestant({"losses": (), "statistics": Source()})})
    results = endurance.run_endurance(6 * 36)
    assert results["about"]["images"] == 216 and len(results["runs"]) == 36
    monkeypatch.setattr(endurance, "endure", None)  # what is done is kept
    assert json.dumps(endurance.run_endurance(6 * 36)) == json.dumps(results)
    results["runs"][7]["adapted"] = results["runs"][7]["source"] - 0.5
    head, line = endurance.table(results).splitlines()
    assert all(setting in head for setting in SETTINGS) and line.count("*") == 1 and f"-0.500* {DOMAINS[1]}" in line


@pytest.mark.slow
def test_the_small_source_reads_quality_and_loses_some_of_it_under_a_shift():
    """Of pictures that it has not seen; without either there would be nothing to compare in a stream."""
    model, pool = endurance.small_source(), draw_pool(6 * 200)
    clear, dark = (
        endurance.srcc(model(pool.images[pool.domain == i]), pool.quality[pool.domain == i])
        for i in (DOMAINS.index("clear"), DOMAINS.index("dark"))
    )
    assert clear > 0.45 and dark < clear - 0.1
    assert not any(parameter.requires_grad for parameter in model.parameters())


# What the stored run says


def changes(method: str) -> dict[tuple[str, str], list[float]]:
    """By setting and domain, adapted minus source of each stretch."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in read_results("endurance")["runs"]:
        if run["method"] == method:
            found.setdefault((run["setting"], run["domain"]), []).append(run["adapted"] - run["source"])
    return found


def test_the_stored_stream_is_as_long_as_it_says_and_of_these_settings():
    about = read_results("endurance")["about"]
    assert about["margin"] == MARGIN and list(about["methods"]) == list(endurance.CONTESTANTS)
    assert 99_990 < about["images"] <= 100_000
    assert {setting for setting, _ in changes("default")} == set(SETTINGS)


@pytest.mark.parametrize("method", ["default", "default, matched"])
def test_the_default_carries_nothing_on_that_could_drift(method):
    found = changes(method)
    for name in DOMAINS:
        assert found["continual", name] == found["reset", name]


def test_on_the_sources_scale_and_screened_the_default_is_never_beyond_the_margin():
    """Broken images and one-sided stretches included; without the one or the other it is."""
    assert min(min(values) for values in changes("default, matched, screened").values()) > -MARGIN
    matched = {key: min(values) for key, values in changes("default, matched").items()}
    assert {domain for (_, domain), change in matched.items() if change < -MARGIN} == {"broken"}
    assert min(matched.values()) > -0.1
    assert min(changes("default")["correlated", "dark"]) < -0.2


@pytest.mark.parametrize("method", ["running moments", "score order"])
def test_what_is_carried_on_does_not_last_where_batches_are_one_sided(method):
    assert all(
        max(change) < -0.1 for (setting, _), change in changes(method).items() if setting.startswith("mixed and")
    )
