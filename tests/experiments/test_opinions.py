"""The experiment on opinions, on a made-up pack: what goes into it, what its sources see, what is run, and how it is read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import pictures
from PIL import Image

import tta_iqa_lib as tta
from tta_iqa_lib.datasets.databases import Database, DatabaseError
from tta_iqa_lib.experiments.baselines import QuantileMatching, source_quantiles
from tta_iqa_lib.experiments.opinions import sources, study
from tta_iqa_lib.experiments.opinions.methods import GRIDS, METHODS
from tta_iqa_lib.experiments.opinions.pack import make_pack, read_pack, read_part
from tta_iqa_lib.experiments.opinions.sources import SCALES, SOURCES, parts_of, source_file, train_source, training_rows
from tta_iqa_lib.experiments.opinions.study import Place, Run, measure_shift, run_one, run_study, runs_of
from tta_iqa_lib.experiments.opinions.summary import Differences, cells, groups, in_words, summarise, text_table
from tta_iqa_lib.experiments.opinions.targets import HELD_OUT, Target, load_target, targets
from tta_iqa_lib.models.saving import read_about

pytestmark = pytest.mark.usefixtures("small_opinions")


def database(folder, name, subsets, count, seed):
    """`count` pictures a subset, each of another size, with opinions that rise with contrast."""
    images = pictures(count * len(subsets), 60, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(images):
        paths.append(folder / f"{name}-{i}.png")
        Image.fromarray((image[:, : 48 + i % 9] * 255).byte().permute(1, 2, 0).numpy()).save(paths[-1])
    scores = images.std((1, 2, 3)).numpy().astype(float)
    none = np.full(len(paths), "")
    return Database(name, tuple(paths), scores, np.repeat(subsets, count), none, none)


@pytest.fixture
def pack(tmp_path):
    parts = {
        "live": database(tmp_path / "a", "live", [""], 24, 3),
        "biq2021": database(tmp_path / "b", "biq", ["ss01", "ss02", "ss03"], 16, 4),
        "agiqa": database(tmp_path / "c", "ai", [""], 10, 5),
    }
    return make_pack(parts, tmp_path / "pack", progress=False)


@pytest.fixture
def place(pack, tmp_path):
    return Place(str(pack.folder), str(tmp_path / "sources"), "reduced")


# The pack


def test_a_pack_holds_squares_opinions_and_contents(pack):
    assert [len(pack.rows(part)) for part in ("live", "ss01", "ss02", "ss03", "agiqa")] == [24, 16, 16, 16, 10]
    images = pack.images(pack.rows("live"))
    assert images.shape == (24, 3, 40, 40) and images.dtype == torch.uint8
    spread = (images.float() / 255).std((1, 2, 3)).numpy()
    assert tta.srcc(spread, pack.scores[pack.rows("live")]) > 0.8  # each picture has its own opinion
    assert not set(pack.content[pack.rows("live")]) & set(pack.content[pack.rows("ss01")])
    with pytest.raises(ValueError, match="holds no 'koniq'; it has live, ss01, ss02, ss03, agiqa"):
        pack.rows("koniq")


def test_an_interrupted_pack_goes_on_and_its_key_sees_every_picture(pack, tmp_path):
    before = pack.key
    kept = {path: path.stat().st_mtime_ns for path in pack.folder.rglob("*.webp")}
    part = {"live": database(tmp_path / "a", "live", [""], 24, 3)}
    first = pack.folder / "live" / "0.webp"
    first.unlink()
    again = make_pack(part, pack.folder, progress=False)
    assert first.is_file()
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path != first)
    assert again.key != before and again.key == read_pack(pack.folder).key
    Image.new("RGB", (40, 40)).save(first, "WEBP")
    assert make_pack(part, pack.folder, progress=False).key != again.key


def test_parts_are_tables_with_the_usual_names_or_official_layouts(tmp_path, folder):
    assert set(read_part(folder).subset) == {"ss01", "ss02", "ss03"}
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    table = tmp_path / "t.csv"
    table.write_text("path,mos_quality,prompt\n0.png,1,b\n1.png,3,a\n2.png,2,b\n")
    part = read_part(table)
    assert part.scores.tolist() == [1, 3, 2] and part.content.tolist() == ["0", "1", "0"]
    table.write_text("path,opinion\n0.png,1\n")
    with pytest.raises(DatabaseError, match="expected a column score or mos or mos_quality; it has path, opinion"):
        read_part(table)
    with pytest.raises(DatabaseError, match="no such file"):
        read_part(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"is no pack of databases: it holds no pack.csv; `tta-iqa pack` makes one"):
        read_pack(tmp_path)


# Sources


@pytest.mark.parametrize("source", SOURCES)
def test_no_content_is_on_two_sides(pack, source):
    others = np.setdiff1d(np.arange(len(pack.files)), pack.rows(*SOURCES[source]))
    first = pack.rows(*SOURCES[source])[0]
    pack.content[first] = pack.content[others[0]]  # the same scene in a part that it is tested on
    sides = [set(pack.content[rows]) for rows in (*parts_of(pack, source), others)]
    assert all(sides) and all(not a & b for i, a in enumerate(sides) for b in sides[i + 1 :])
    assert first not in np.concatenate(parts_of(pack, source))


def test_a_source_is_trained_once_and_says_how(pack, tmp_path, monkeypatch):
    scale = SCALES["reduced"]
    seen = {}
    true = sources.fine_tune
    monkeypatch.setattr(sources, "Settings", lambda *a, **k: replace(true_settings(*a, **k), batch_size=4))

    def spy(model, images, opinions, validation, settings, checkpoint, progress):
        seen.update(images=images, opinions=opinions)
        return true(model, images, opinions, validation, settings, checkpoint, progress)

    monkeypatch.setattr(sources, "fine_tune", spy)
    model = train_source(pack, "no-ss01", 0, scale, tmp_path / "models", progress=False)
    train = parts_of(pack, "no-ss01")[0]
    assert len(seen["images"]) == 16  # eight of each part
    allowed = {pack.images(train[i : i + 1]).sum().item() for i in range(len(train))}
    assert {image.sum().item() for image in seen["images"]} <= allowed
    file = source_file(tmp_path / "models", "no-ss01", 0, scale)
    assert read_about(file)["images"] == 16
    monkeypatch.setattr(sources, "fine_tune", None)  # it is not trained again
    again = train_source(pack, "no-ss01", 0, scale, tmp_path / "models", progress=False)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), model(images)) and not list(tmp_path.rglob("*.checkpoint"))
    with pytest.raises(ValueError, match=r"is of another training \(training differs\): delete it"):
        train_source(pack, "no-ss01", 0, replace(scale, training=4), tmp_path / "models", progress=False)


true_settings = sources.Settings


# Targets


def test_targets_of_every_role_and_kind():
    found = {str(target): target for target in targets(SCALES["reduced"])}
    assert found["live → ss02, as it is"].role == "development" and found["no-ss02 → ss02, as it is"].role == "test"
    assert found["live → held out, dark"].kind == "light" and found["no-ss01 → held out, as it is"].kind == "none"
    assert found["live → agiqa, as it is"].kind == "database"
    assert not any(t.part in SOURCES[t.source] for t in found.values())
    full = targets(SCALES["full"])
    assert len(full) == len(set(full)) > len(found) and set(found.values()) <= set(full)


def test_a_target_holds_nothing_that_the_source_was_trained_on(pack):
    scale, target = SCALES["reduced"], Target("live", "ss01")
    train = parts_of(pack, "live")[0]
    pack.content[pack.rows("ss01")[3]] = pack.content[train[0]]
    images, opinions, content = load_target(pack, target, scale)
    assert images.shape == (8, 3, 32, 32) and len(opinions) == 8 and not set(content) & set(pack.content[train])
    held = load_target(pack, Target("live", HELD_OUT), scale)
    assert set(held[1]) <= set(pack.scores[parts_of(pack, "live")[2]])
    dark = load_target(pack, Target("live", "ss01", "dark"), scale)
    assert dark[0].mean() < 0.7 * images.mean() and dark[1].tolist() == opinions.tolist()


# Runs


@pytest.fixture
def untrained(monkeypatch):
    """Sources as they start: what is tested is what happens to them."""

    def no_training(model, *_arguments):
        return []

    monkeypatch.setattr(sources, "fine_tune", no_training)


def test_a_run_is_the_scores_of_its_method_in_the_targets_own_order(place, untrained):
    target = Target("live", "ss01")
    found = run_one(place, Run("source", target, 1, 4))
    model = train_source(read_pack(place.pack), "live", 1, SCALES["reduced"], study.Path(place.sources))
    images = load_target(read_pack(place.pack), target, SCALES["reduced"])[0]
    assert found == pytest.approx(model(images).tolist(), abs=1e-4)
    assert found != run_one(place, Run("source", target, 0, 4))  # another training
    batch = run_one(place, Run("bn-batch", target, 1, 4))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1001))
    expected = torch.empty(8)
    for rows in order.split(4):
        expected[rows] = tta.Adapter(model, (), tta.Batch())(images[rows])
    assert batch == pytest.approx(expected.tolist(), abs=1e-4)


def test_quantiles_are_matched_to_those_of_the_pictures_that_the_source_was_trained_on(place, untrained):
    target, pack = Target("no-ss01", "live", "dark"), read_pack(place.pack)
    found = run_one(place, Run("aqr", target, 0, 8))
    model = train_source(pack, "no-ss01", 0, SCALES["reduced"], study.Path(place.sources))
    rows = training_rows(pack, "no-ss01", SCALES["reduced"])
    assert {str(part) for part in pack.part[rows]} == {"ss02", "ss03"} and not set(rows) & set(
        parts_of(pack, "no-ss01")[2]
    )
    trained_on = pack.images(rows)[..., 4:36, 4:36] / 255
    images = load_target(pack, target, SCALES["reduced"])[0]
    expected = QuantileMatching(model, source_quantiles(model, trained_on)).predict(images)
    assert found == pytest.approx(expected.tolist(), abs=2e-5)
    assert found != pytest.approx(model(images).tolist(), abs=1e-3)


def test_a_study_is_run_once_kept_and_read(place, untrained, monkeypatch):
    chosen = ("source", "bn-batch", "rank+gc, frozen (thrifty)", "bn-first")
    results = run_study(place, role="test", progress=False, methods=chosen)
    expected = {(r.method + " online" * r.online, str(r.target), r.seed, r.batch_size) for r in
                runs_of(SCALES["reduced"], "test") if r.method in chosen}  # fmt: skip
    found = {(r["method"], r["target"], r["seed"], r["batch_size"]): r for r in results["runs"]}
    assert set(found) == expected and len(found) == len(results["runs"])
    assert {run["method"] for run in results["runs"]} >= {"bn-batch online", "rank+gc, frozen (thrifty)"}
    assert results["about"]["sources"].keys() == set(SOURCES) and len(results["about"]["sources"]["live"]) == 2
    run = found["bn-batch", "live → agiqa, as it is", 1, 8]
    truth = results["truth"]["live → agiqa, as it is"]
    assert run["srcc"] == pytest.approx(tta.srcc(run["scores"], truth["quality"]), abs=1e-4)
    assert run["within"] == run["srcc"]  # eight images are one batch of eight
    assert truth["shift"].keys() == {0, 1}
    monkeypatch.setattr(study, "_images", None)  # nothing is computed again
    assert run_study(place, role="test", progress=False, methods=chosen) == results

    lines = summarise(results, progress=False)
    line = next(
        line
        for line in lines
        if (line["method"], line["minus"], line["batch_size"], line["on"])
        == ("bn-batch", "source", 32, "live → agiqa, as it is")
    )
    changes = [
        found["bn-batch", "live → agiqa, as it is", s, 32]["srcc"]
        - found["source", "live → agiqa, as it is", s, 32]["srcc"]
        for s in (0, 1)
    ]
    assert line["value"] == pytest.approx(np.mean(changes), abs=2e-4) and line["low"] <= line["value"] <= line["high"]
    assert all(("holm" in line) == line["on"].startswith("test: ") for line in lines)
    assert all(line["holm"] >= line["p"] for line in lines if "holm" in line)
    table = text_table(results)
    assert "bn-batch" in table and "recipe" not in table and f"{line['value']:+.3f}" in table


def test_the_shift_of_a_dark_target_is_larger(place, untrained):
    plain, dark = (measure_shift(place, Target("no-ss01", "live", c), 0) for c in ("as it is", "dark"))
    assert len(plain) == 6 and dark[0][0] > 2 * plain[0][0]


# Reading


def a_study(**srcc):
    """Results whose scores put the images into the order of their quality, or into none."""
    quality = list(range(40))
    rng = np.random.default_rng(0)
    scores = {"good": quality, "bad": rng.permutation(40).tolist()}
    targets_of = {"live → ss01, as it is": 2, "no-ss01 → live, dark": 1, "no-ss03 → live, dark": 1}
    runs = [
        {"method": method, "target": target, "seed": seed, "batch_size": 32, "scores": scores[how], "srcc": 0}
        for method, how in srcc.items()
        for target, seeds in targets_of.items()
        for seed in range(seeds)
    ]
    kinds = {target: "light" if "dark" in target else "database" for target in targets_of}
    truth = {
        target: {"quality": quality, "content": [str(i) for i in quality], "kind": kind, "role": "test"}
        for target, kind in kinds.items()
    }
    methods = {name: {"label": name, "control": None} for name in srcc}
    return {"runs": runs, "truth": truth, "about": {"methods": methods}}


def test_a_method_on_some_of_the_test_targets_has_one_line_for_those():
    results = a_study(source="bad", losses="good")
    whole = summarise(results, progress=False)
    assert not [line for line in whole if line["on"].endswith("test targets")]
    results["runs"] = [r for r in results["runs"] if r["method"] == "source" or r["target"] == "live → ss01, as it is"]
    results["about"]["methods"]["losses"]["control"] = "source"
    lines = [line for line in summarise(results, progress=False) if line["on"].endswith("test targets")]
    assert [line["on"] for line in lines] == ["1 of 3 test targets"]
    assert lines[0]["value"] > 0.5 and "holm" not in lines[0]


def test_pairs_of_sources_are_one_cell_and_targets_count_alike():
    results = a_study(source="bad", better="good")
    assert cells(results) == {
        "live → ss01, as it is": ["live → ss01, as it is"],
        "pairs → live, dark": ["no-ss01 → live, dark", "no-ss03 → live, dark"],
    }
    assert cells({"truth": {"no-ss02 → ss02, as it is": {}}}) == {
        "pairs → the third, as it is": ["no-ss02 → ss02, as it is"]
    }
    assert groups(results)["light"] == ["no-ss01 → live, dark", "no-ss03 → live, dark"]
    assert groups(results, "development") == {}
    line = Differences(results).line("better", "source", list(results["truth"]), 32)
    assert line["value"] == pytest.approx(1 - tta.srcc(results["runs"][0]["scores"], range(40)), abs=1e-3)
    assert line["low"] > 0.5 and line["p"] < 0.01


def test_every_cell_has_words():
    found = [in_words(cell) for cell in cells({"truth": {str(t): {} for t in targets(SCALES["full"])}})]
    assert len(set(found)) == len(found)
    assert in_words("live → agiqa, haze") == "phones → generated pictures, haze"
    assert in_words("pairs → the third, as it is") == "two parts of BIQ2021 → its third part"


def test_every_method_has_its_control_and_its_place():
    assert all(method.control in METHODS for name, method in METHODS.items() if name != "source")
    for sizes in GRIDS.values():
        shown = {method for lists in sizes.values() for methods in lists for method in methods}
        assert {METHODS[name].control for name in shown} - {None} <= shown <= set(METHODS)
    model = tta.small_model((4, 6)).eval()
    for name in METHODS:
        if "thrifty" in name:
            learning = METHODS[name].adapter(model, 0).recipe.optimisation
            assert (learning.steps, learning.lr) == (1, 3e-3)


def test_the_rivals_that_the_reduced_scale_leaves_out_come_with_their_controls():
    runs = runs_of(SCALES["reduced"], grid="others")
    methods = {run.method for run in runs}
    assert {
        "source",
        "lean",
        "aqr",
        "bn-batch",
        "normalisations",
        "actmad, recipe (thrifty)",
        "order, frozen (thrifty)",
        "ssa (thrifty)",
        "psc (thrifty)",
        "actmad (thrifty)",
    } == methods
    assert all(METHODS[name].control in methods for name in methods - {"source"})
    assert {(run.target.role, run.batch_size, run.online) for run in runs} == {("test", 32, False)}
    assert {str(run.target) for run in runs} == {str(t) for t in targets(SCALES["reduced"]) if t.role == "test"}
