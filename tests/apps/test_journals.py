"""What is done is kept: a run that was stopped anywhere ends as one that was not."""

import math
import os

import helpers
import pytest
import torch
from helpers import pictures, tiny_scorer
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.apps import tables
from tta_iqa_lib.apps.journals import Journal
from tta_iqa_lib.apps.results import HEADER, Results, cells
from tta_iqa_lib.apps.resuming import journal_beside, score_open
from tta_iqa_lib.apps.scorers import Scorer
from tta_iqa_lib.apps.scoring import cut_batches
from tta_iqa_lib.apps.settings import Settings


@pytest.fixture
def run(twelve, tmp_path):
    """Scores the twelve in batches of five into a table, by way of a journal; `stop` ends it after so many batches."""
    files = sorted(twelve.iterdir())
    scorer = Scorer(tiny_scorer(), "rank+gc", crops=1)
    batches = cut_batches(len(files), 5, scorer, 0)

    def run(name: str, stop: int | None = None, key: str = "k", readers: int = 0) -> bytes | None:
        journal, results = Journal(tmp_path / f"{name}.journal", key), Results(len(files))
        seen = []
        for number, rows in score_open(scorer, [[files[i] for i in batch] for batch in batches], journal, readers):
            seen.append(number)
            results.add(batches[number], rows)
            if len(seen) == stop:
                return None
        assert sorted(seen) == list(range(len(batches))) and results.ready == len(files)
        tables.write_table(tmp_path / f"{name}.csv", HEADER, map(cells, results.rows))
        return (tmp_path / f"{name}.csv").read_bytes()

    return run


@pytest.fixture
def computed(monkeypatch):
    """How many batches were scored, not found."""
    calls, true = [], Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda self, rows: calls.append(len(rows)) or true(self, rows))
    return calls


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_run_that_is_stopped_and_started_again_gives_the_same_bytes(run, computed, stop):
    whole = run("whole")
    if stop:
        run("part", stop)
    before = len(computed)
    assert run("part") == whole and len(computed) - before == 3 - stop


def test_wherever_a_line_is_cut_short_its_batch_is_scored_again(run, tmp_path):
    """Also where more has been written behind it. Every cut through the last line, every tenth of the rest."""
    whole = run("whole")
    content = (tmp_path / "whole.journal").read_bytes()
    last = content.rindex(b"\n")
    for end in [*range(0, last, len(content) // 8), last, last + 1, last + 9, len(content) - 1]:
        (tmp_path / "cut.journal").write_bytes(content[:end])
        assert run("cut") == whole, end
        assert run("cut") == whole, end  # what stands there by now is whole
        assert len(Journal(tmp_path / "cut.journal", "k").done) == 3
    (tmp_path / "cut.journal").write_bytes(content[:-20] + bytes(20))  # as a power cut leaves it
    assert run("cut") == whole


def test_another_run_s_journal_does_not_count(run, computed, tmp_path):
    run("j", key="other")
    assert Journal(tmp_path / "j.journal", "k").stale
    before = len(computed)
    assert run("j") == run("whole") and len(computed) - before == 6
    assert not Journal(tmp_path / "j.journal", "k").stale


def test_a_row_comes_back_with_all_its_digits(tmp_path, twelve):
    files = sorted(twelve.iterdir())
    journal = Journal(tmp_path / "j", "k")
    ((_, rows),) = score_open(Scorer(tiny_scorer(), "recipe"), [files], journal)
    again = Journal(tmp_path / "j", "k").rows(0, files)
    assert str(again) == str(rows) and sum(math.isnan(row.score) for row in rows) == 1


def test_a_journal_that_cannot_be_written_costs_no_score(run, monkeypatch, caplog):
    whole = run("whole")
    monkeypatch.setattr(os, "fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    monkeypatch.setattr(tables, "write_table", lambda *_: None)
    with pytest.raises(FileNotFoundError):  # the table is not written here
        run("full")
    assert whole and caplog.text.count("No space left") == 1


def test_reading_ahead_changes_nothing(run):
    assert run("one") == run("three", readers=3)


def test_what_decides_the_scores_decides_whether_a_journal_counts(twelve, tmp_path):
    """Settings, the model's numbers, the files; not how a file is spelt."""
    files = sorted(twelve.iterdir())

    def key(files=files, **settings):
        settings = Settings(**{"model": "helpers:tiny_scorer", "method": "recipe", "crops": 1} | settings)
        journal = journal_beside(tmp_path / "t.csv", settings, settings.scorer(), files)
        return journal and journal.key

    changed = [
        {"crops": 4}, {"seed": 1}, {"batch_size": 8}, {"method": None}, {"method": "rank+gc"}, {"precision": "float64"},
        {"model": "helpers:tiny_model"}, {"threads": 2}, {"files": files[1:]},
    ]  # fmt: skip
    keys = [key(), *(key(**change) for change in changed)]
    assert len(set(keys)) == len(keys) and key() == keys[0]
    os.utime(files[3], (1, 1))
    assert key() != keys[0]
    assert key(method="ema") is None  # a stream


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"precision": "int8"}, "float16"),
        ({"device": "gpu"}, "cpu, cuda"),
        ({"device": "cuda:99"}, "no 'cuda:99'"),
        ({"crops": 3}, "square"),
    ],
)
def test_settings_that_cannot_be_are_named(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        Settings(**wrong)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float64"])
def test_another_precision_scores_alike(twelve, precision):
    files = sorted(twelve.iterdir())

    def scores(**settings):
        scorer = Settings(model="helpers:tiny_scorer", method="bn-blend", crops=1, **settings).scorer()
        ((_, rows),) = score_open(scorer, [files], None)
        return [row.score for row in rows if not row.error]

    single, other = scores(), scores(precision=precision)
    assert other == pytest.approx(single, abs=0.1) and other != single


def test_a_shipped_model_has_its_channels_last_on_a_cpu_and_scores_the_same():
    model, images = Settings().load(), pictures(2, 64)
    kernel = next(module.weight for module in model.modules() if isinstance(module, nn.Conv2d))  # 3 × 3, of 3 colours
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    assert torch.allclose(model(images), tta.load_source_model("photographs")(images), rtol=0, atol=1e-3)


def test_a_model_of_one_s_own_may_view_what_a_convolution_gives(twelve, monkeypatch):
    """Which it could not, if its channels came last."""

    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.LazyLinear(1)

        def forward(self, images):
            rows = self.conv(images)
            return self.head(rows.view(len(rows), -1))[:, 0]

    def viewing():
        net = Viewing().eval()
        net(torch.zeros(1, 3, 32, 32))
        return tta.wrap_model(net, crop=32)

    monkeypatch.setattr(helpers, "viewing", viewing, raising=False)
    scorer = Settings(model="helpers:viewing", method=None, crops=1).scorer()
    ((_, rows),) = score_open(scorer, [sorted(twelve.iterdir())], None)
    assert sum(not row.error for row in rows) == 12
