"""A check counts, opens, compares, and says in one line what is wrong; the command does so, too."""

import re
from dataclasses import replace

import pytest
import trees
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.datasets import official
from tta_iqa_lib.datasets.checking import check
from tta_iqa_lib.datasets.databases import DatabaseError
from tta_iqa_lib.datasets.official import LAYOUTS


@pytest.fixture
def kadid(tmp_path, monkeypatch):
    """KADID-10k as if it had two images of two contents."""
    small = replace(LAYOUTS["kadid10k"], count=2, contents=(2, "originals"))
    monkeypatch.setitem(official.LAYOUTS, "kadid10k", small)
    trees.kadid10k(tmp_path)
    return tmp_path


def test_all_is_well(kadid):
    found = check(kadid)
    assert found.name == "KADID-10k" and found.faults == ()
    assert found.facts == ("2 images", "2 originals", "opinions from 1.2 to 4.57", "2 opened")


def broken(folder):
    (folder / "images" / "I02_01_05.png").write_bytes(b"no picture")


def missing(folder):
    (folder / "images" / "I02_01_05.png").unlink()


def table(*rows):
    return lambda folder: trees.text(folder / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (broken, r"1 of 2 images cannot be read, first: .*I02_01_05\.png"),
        (missing, r"1 of 2 images of .* are missing, first '.*I02_01_05\.png' \(line 3\)"),
        (table("I01_01_01.png,I01.png,1.5,0"), r"1 image; the authors published 2"),
        (
            table("I01_01_01.png,I01.png,95,0", "I02_01_05.png,I02.png,20,0"),
            r"opinions from 20 to 95; .* scale is 1 to 5",
        ),
        (
            table("I01_01_01.png,I01.png,0.3,0", "I02_01_05.png,I02.png,0.9,0"),
            r"opinions from 0.3 to 0.9; .* is 1 to 5",
        ),
        (
            table("I01_01_01.png,I01.png,1,0", "I02_01_05.png,I02.png,bad,0"),
            r"dmos\.csv', line 3: 'bad' is not a score",
        ),
    ],
)
def test_one_line_says_what_is_wrong(kadid, harm, fault):
    harm(kadid)
    line, *_ = check(kadid).faults
    assert "\n" not in line
    assert re.search(fault, line)


def test_a_broken_image_does_not_count_as_opened(kadid):
    broken(kadid)
    assert check(kadid).facts[-1] == "1 opened of 2"


def test_contents_are_counted(kadid):
    trees.picture(kadid / "images" / "I01_02_02.png")
    table("I01_01_01.png,I01.png,1,0", "I01_02_02.png,I01.png,5,0")(kadid)
    assert check(kadid).faults == ("1 originals; the authors published 2",)


def test_the_direction_does_not_turn_the_scale(tmp_path, monkeypatch):
    """CSIQ's opinions, negated when read, are compared as its authors give them."""
    monkeypatch.setitem(official.LAYOUTS, "csiq", replace(LAYOUTS["csiq"], count=3, contents=(2, "originals")))
    trees.csiq(tmp_path)
    found = check(tmp_path)
    assert found.faults == () and "opinions from 0.06199 to 0.5" in found.facts


def test_a_sample_is_opened_evenly(kadid, monkeypatch):
    broken(kadid)
    assert check(kadid, sample=1).faults == ()  # the first of two
    assert len(check(kadid, sample=9).faults) == 1


def test_a_plain_folder_and_a_table_are_checked_as_well(tmp_path):
    trees.picture(tmp_path / "own" / "a.png")
    plain = check(tmp_path / "own")
    assert plain.faults == () and plain.facts == ("1 image", "no opinions: a plain folder", "1 opened")
    trees.text(tmp_path / "t.csv", "file,mos", "own/a.png,3")
    own = check(tmp_path / "t.csv", path_column="file", score_column="mos")
    assert own.faults == () and own.facts == ("1 image", "opinions from 3 to 3", "1 opened")
    assert "no column 'path'" in check(tmp_path / "t.csv").faults[0]


def test_opinions_that_are_all_alike_are_a_fault(tmp_path):
    trees.text(tmp_path / "t.csv", "path,score", "a.png,3", "b.png,3")
    for name in ("a.png", "b.png"):
        trees.picture(tmp_path / name)
    assert check(tmp_path / "t.csv").faults == ("all opinions are 3: there is nothing to rank",)


def test_nothing_to_check_is_an_error(tmp_path):
    with pytest.raises(DatabaseError, match="no such file or folder"):
        check(tmp_path / "none")
    with pytest.raises(DatabaseError, match="no images in"):
        check(tmp_path)


# The command


def run(*arguments):
    return CliRunner().invoke(app, ["databases", *map(str, arguments)])


def test_the_command_lists_every_database():
    result = run()
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == len(LAYOUTS)
    for key, one in LAYOUTS.items():
        assert any(key in line and one.name in line and one.page in line for line in result.stdout.splitlines())


def test_the_command_tells_all_of_one():
    result = run("LIVE-MD")
    one = LAYOUTS["live-md"]
    assert result.exit_code == 0 and "lower is better" in result.stdout
    assert all(part in result.stdout for part in (one.cite, one.paper, one.terms, one.page, "15 originals"))
    unknown = run("nothing")
    assert unknown.exit_code == 2 and unknown.stderr.startswith("tta-iqa: no database 'nothing'")


def test_the_command_checks_and_its_status_says_how_it_went(kadid):
    right = run("--check", kadid)
    assert (right.exit_code, right.stdout.count("\n")) == (0, 1)
    broken(kadid)
    wrong = run("--check", kadid, "--sample", 2)
    assert wrong.exit_code == 1 and "cannot be read" in wrong.stdout.splitlines()[1]
    assert run("--check", kadid / "none").exit_code == 2
