"""A plan and its parts: whoever scores them, whenever, in whatever order, the table is the same, byte for byte."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tta_iqa_lib.apps import settings, shards
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.parts import merge
from tta_iqa_lib.apps.plans import Plan, PlanError, write_plan
from tta_iqa_lib.apps.settings import Settings
from tta_iqa_lib.apps.shards import Worker, run_shard, score_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_any_number_of_workers_in_any_order_gives_one_table(plan, whole, count, merged):
    parts = list(range(count))
    random.Random(count).shuffle(parts)
    for index in parts:
        list(run_shard(plan, index, count, readers=index % 3))
    assert merged() == whole


def test_a_shard_is_a_function_of_plan_and_part(plan, whole):
    """It writes nothing, and gives the same twice; the parts are the whole, each batch once."""
    before = sorted(plan.path.parent.rglob("*"))
    found = [dict(score_shard(plan, index, 3)) for index in range(3)]
    assert sorted(plan.path.parent.rglob("*")) == before
    assert sorted(number for part in found for number in part) == list(range(plan.batches))
    assert str(dict(score_shard(plan, 1, 3))) == str(found[1])
    places = [place for number in range(plan.batches) for place, _ in plan.batch(number)]
    assert sorted(places) == list(range(plan.images)) and plan.images == 13


def test_to_merge_takes_no_pytorch(plan, whole):
    """It takes seconds to import and half a gigabyte, on each machine that only puts a table together."""
    list(run_shard(plan, 0))
    out = plan.path.with_name("merged.csv")
    program = "import sys; sys.modules['torch'] = None; from tta_iqa_lib.apps.cli import app; app()"
    command = [sys.executable, "-c", program, "merge", plan.path, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "adapted to 7 of 7 batches" in done.stderr, done.stderr
    assert out.read_bytes() == whole


def test_parts_may_be_cut_anew_and_journals_stirred(plan, whole, monkeypatch, merged):
    """One of two workers stops half-way; five others do the rest, and nothing twice."""
    first = run_shard(plan, 0, 2)
    next(first), next(first)
    first.close()
    done, true = [], Worker.score
    monkeypatch.setattr(Worker, "score", lambda self, numbers: done.extend(numbers) or true(self, numbers))
    for index in (4, 2, 0, 3, 1):
        list(run_shard(plan, index, 5))
    assert sorted(done) == [1, 3, 4, 5, 6]
    for journal in plan.parts.iterdir():
        head, *lines = journal.read_text().split("\n")
        random.Random(0).shuffle(lines)
        journal.write_text("\n".join([head, *lines]))
    assert merged() == whole


def test_what_is_not_done_is_said(plan):
    list(run_shard(plan, 0, 2))
    with pytest.raises(PlanError, match="3 of 7 batches are not done yet, first number 1"):
        merge(plan)


def test_one_batch_that_came_out_in_two_ways_is_no_table(plan):
    list(run_shard(plan, 0))
    other = plan.parts / "other.jsonl"
    shutil.copy(plan.parts / "0-of-1.jsonl", other)
    assert merge(plan)
    other.write_text(other.read_text().replace('"adapted"', '"source"', 1))
    with pytest.raises(PlanError, match="came out in two ways"):
        merge(plan)


def test_journals_of_another_plan_are_no_part_of_this(plan, tmp_path):
    plan.parts.mkdir()
    (plan.parts / "x.jsonl").write_text('{"tta-iqa": "finished batches", "of": "other"}\n[0, []]')
    for work in (merge, lambda p: list(run_shard(p, 0))):
        with pytest.raises(PlanError, match="not of the plan"):
            work(plan)


def test_a_picture_that_has_changed_stops_the_work(plan, twelve):
    os.utime(twelve / "03.png", (5, 5))
    with pytest.raises(PlanError, match=r"03\.png' has changed"):
        list(score_shard(plan, 0))
    (twelve / "03.png").unlink()
    with pytest.raises(PlanError, match=r"03\.png' of the plan cannot be found"):
        list(score_shard(plan, 0))


@pytest.mark.parametrize("change", ["model", "torch", "code"])
def test_another_model_or_library_than_the_plan_s_is_refused(plan, monkeypatch, change):
    if change == "model":
        import helpers

        monkeypatch.setattr(helpers, "tiny_scorer", lambda: helpers.tiny_model(1, crop=32))
    elif change == "torch":
        monkeypatch.setattr(settings.torch, "__version__", "0.0")
    else:
        monkeypatch.setattr(settings, "code_hash", lambda *_: "other")
    with pytest.raises(PlanError, match="not what the plan"):
        Worker(plan)


def test_a_damaged_plan_or_none_is_refused(plan, tmp_path):
    content = plan.path.read_bytes()
    for wrong in (
        content[:-5],
        content.replace(b"03.png", b"04.png"),
        content[: len(content) // 2],
        b"",
        b"[1]\n[2]\n",
    ):
        plan.path.write_bytes(wrong)
        with pytest.raises(PlanError, match=r"plan\.jsonl"):
            Plan(plan.path)
    with pytest.raises(PlanError, match="cannot read"):
        Plan(tmp_path / "none")


@pytest.mark.parametrize("method", ["ema", "reference"])
def test_a_stream_cannot_be_cut(twelve, tmp_path, method):
    how = Settings(model="helpers:tiny_scorer", method=method, crops=1)
    with pytest.raises(PlanError, match="is a stream"):
        write_plan(tmp_path / "p.jsonl", sorted(twelve.iterdir()), how)


def test_a_worker_has_the_plan_s_threads_and_gives_them_back(plan, monkeypatch):
    seen, true = [], shards.score_batches

    def watched(*arguments):
        for rows in true(*arguments):
            seen.append(torch.get_num_threads())
            yield rows

    monkeypatch.setattr(shards, "score_batches", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    list(score_shard(plan, 0))
    assert set(seen) == {1} and torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_the_three_commands_in_a_row(twelve, tmp_path, whole):
    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)))

    file, out = tmp_path / "p.jsonl", tmp_path / "out.csv"
    how = ("--method", "rank+gc", "--batch-size", 2, "--crops", 1, "--model", "helpers:tiny_scorer")
    assert "13 images in 7 batches" in run("plan", twelve, "--out", file, *how).stdout
    assert "not done yet" in run("merge", file, "--out", out).stderr
    assert [run("shard", file, "--part", f"{i}/2").exit_code for i in range(2)].count(1) == 1  # one picture is none
    done = run("merge", file, "--out", out)
    assert done.exit_code == 1 and "adapted to 7 of 7 batches" in done.stderr and out.read_bytes() == whole
    for wrong, reason in (("2/2", "INDEX/COUNT"), ("x", "INDEX/COUNT")):
        assert reason in run("shard", file, "--part", wrong).stderr
    line = json.loads(file.read_text().splitlines()[1])
    assert {len(entry) for entry in line} == {4}


def test_names_in_the_table_are_spelt_as_in_the_plan_wherever_a_worker_starts(twelve, tmp_path, monkeypatch):
    monkeypatch.chdir(twelve)
    how = Settings(model="helpers:tiny_scorer", method="rank+gc", batch_size=2, crops=1)
    made = write_plan(tmp_path / "p.jsonl", [Path("03.png"), Path("05b.png")], how)
    monkeypatch.chdir(tmp_path)
    ((_, rows),) = score_shard(made, 0)
    by_name = {str(row.path): row.error for row in rows}
    assert by_name.keys() == {"03.png", "05b.png"} and by_name["05b.png"].startswith("cannot read '05b.png'")
