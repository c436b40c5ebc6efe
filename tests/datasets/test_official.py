"""The known databases: their records, and small trees in their exact layouts (`trees`)."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import trees
from trees import TREES

from tta_iqa_lib.datasets.databases import DatabaseError, read
from tta_iqa_lib.datasets.official import LAYOUTS, layout

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    """Key and folder of each database."""
    TREES[request.param][0](tmp_path)
    return request.param, tmp_path


def test_every_database_has_a_tree():
    assert set(TREES) == set(LAYOUTS) and len(LAYOUTS) == 14


def test_a_folder_is_recognised_and_read_as_its_authors_mean_it(tree):
    """Images, opinions with higher = better, parts, the authors' split, and what shows the same."""
    key, folder = tree
    _, files, scores, subset, split, content = TREES[key]
    found = read(folder)
    assert found.name == LAYOUTS[key].name
    assert [path.relative_to(folder).as_posix() for path in found.paths] == files
    np.testing.assert_allclose(found.scores, scores, rtol=1e-12)
    assert [found.subset.tolist(), found.split.tolist(), found.content.tolist()] == [subset, split, content]
    part = found.select([1])
    assert (part.split.tolist(), part.content.tolist()) == (split[1:2], content[1:2])


def test_the_record_names_the_splits_that_come_out(tree):
    key, folder = tree
    assert set(filter(None, read(folder).split.tolist())) == set(LAYOUTS[key].splits)


def test_reading_changes_nothing_in_the_folder(tree):
    _, folder = tree
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    read(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_every_layout_counts_its_missing_images(tree):
    _, folder = tree
    read(folder).paths[1].unlink()
    with pytest.raises(DatabaseError, match=r"1 of \d images of '.*' are missing, first '"):
        read(folder)


def test_a_reader_says_what_it_misses(tree, tmp_path_factory):
    key, _ = tree
    with pytest.raises(DatabaseError, match=rf"is not {LAYOUTS[key].name}: it holds no '"):
        layout(key).read(tmp_path_factory.mktemp("empty"))


def test_a_folder_of_no_known_layout_is_an_error_that_lists_them(tmp_path):
    with pytest.raises(DatabaseError, match=r"holds none of .*mos_with_names.txt.*\.csv\) will do"):
        read(tmp_path)
    with pytest.raises(DatabaseError, match="is no folder"):
        read(tmp_path / "none")


def test_a_table_of_another_s_by_a_common_name_is_not_agiqa(tmp_path):
    """data.csv is a name that many have."""
    trees.text(tmp_path / "data.csv", "name,prompt,score", "a.png,sushi,3")
    with pytest.raises(DatabaseError, match="no database in"):
        read(tmp_path)


@pytest.mark.parametrize("key", ["CSIQ", "csiq", "Csiq"])
def test_a_record_is_found_by_its_name_or_key(key):
    assert layout(key) is LAYOUTS["csiq"]
    with pytest.raises(DatabaseError, match=r"no database 'csi'; known are .*kadid10k"):
        layout("csi")


def test_every_record_has_its_paper_in_the_bibliography_and_says_where_it_is_to_be_had():
    works = (ROOT / "book" / "references.bib").read_text(encoding="utf-8").split("\n@")
    works = {re.search(r"\{(\w+),", work)[1]: work for work in works}
    for one in LAYOUTS.values():
        assert one.cite in works and one.page.startswith("https://") and one.terms and one.count > 400
        assert one.scale[0] < one.scale[1]
        first, year, place = re.fullmatch(r"(\w+) (?:and \w+ |et al\. )(\d{4}), (.*)", one.paper).groups()
        assert all(part in works[one.cite] for part in (f"author = {{{first},", f"{{{year}}}", f"{{{place}}}")), (
            one.name
        )
    assert {key for key, one in LAYOUTS.items() if not one.higher_is_better} == {"live", "live-md", "csiq"}


# What single layouts have of their own


def test_the_smaller_images_of_koniq_will_do(tmp_path):
    trees.koniq10k(tmp_path)
    (tmp_path / "1024x768").rename(tmp_path / "512x384")
    assert read(tmp_path).paths[0].parent.name == "512x384"


@pytest.mark.parametrize(
    ("key", "gone"), [("koniq10k", ["koniq10k_distributions_sets.csv"]), ("live-fb", ["labels640.csv"])]
)
def test_without_the_table_of_splits_there_is_none(tmp_path, key, gone):
    TREES[key][0](tmp_path)
    for name in gone:
        (tmp_path / name).unlink()
    assert set(read(tmp_path).split.tolist()) == {""}


@pytest.mark.parametrize("part", ["Part1", "Part_{}", "Part {}"])
def test_live_md_may_have_been_unpacked_under_other_names(tmp_path, part):
    trees.live_md(tmp_path, part if "{" in part else "Part{}")
    assert len(read(tmp_path)) == 3


def test_of_two_files_of_one_name_none_is_taken(tmp_path):
    """Which of them was graded? The error names the place where it should lie."""
    trees.csiq(tmp_path)
    trees.picture(tmp_path / "dst_imgs" / "copy" / "1600.awgn.1.PNG")
    with pytest.raises(DatabaseError, match=r"1 of 3 images .* first '.*dst_imgs/1600\.AWGN\.1\.png'"):
        read(tmp_path)


def test_images_of_pipal_may_lie_in_one_folder(tmp_path):
    trees.pipal(tmp_path)
    (tmp_path / "Dist_Imgs").mkdir()
    for path in [*(tmp_path / "Train_Dist").rglob("*.bmp")]:
        path.rename(tmp_path / "Dist_Imgs" / path.name)
    for folder in [*(tmp_path / "Train_Dist").iterdir(), tmp_path / "Train_Dist"]:
        folder.rmdir()
    assert {path.parent.name for path in read(tmp_path).paths} == {"Dist_Imgs"}


@pytest.mark.parametrize(
    ("key", "file", "content", "complaint"),
    [
        ("tid2013", "mos_with_names.txt", b"5.5 I01_01_1.bmp\nI01_02_5.bmp\n", r"line 2: expected a score and a name"),
        ("clive", "Data/AllMOS_release.mat", b"no matrix", r"does not hold the table AllMOS_release"),
        ("csiq", "csiq.DMOS.xlsx", b"no workbook", r"cannot read '.*csiq\.DMOS\.xlsx'"),
        (
            "uhd-iqa",
            "uhd-iqa-metadata.csv",
            b"image_name,mos\n1.jpg,1\n",
            r"has no column 'quality_mos'; it has image_name",
        ),
        ("pipal", "Train_Label/A0002.txt", b"A0002_00_00.bmp,high\n", r"A0002\.txt', line 1: 'high' is not a score"),
        ("biq2021", "Test (Images and MOS).csv", b"Image Name,MOS\n", r"Test .*' names no images"),
    ],
)
def test_a_broken_table_is_one_error_that_names_it(tmp_path, key, file, content, complaint):
    TREES[key][0](tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DatabaseError, match=complaint):
        read(tmp_path)


def test_tables_of_live_that_do_not_belong_together_are_an_error(tmp_path):
    trees.live(tmp_path)
    trees.mat(tmp_path / "refnames_all.mat", refnames_all=trees.cells(["stream.bmp"] * 981, row=True))
    with pytest.raises(DatabaseError, match="981 rows for 982 images"):
        read(tmp_path)


def test_without_the_package_for_workbooks_the_error_says_what_to_install(tmp_path, monkeypatch):
    trees.spaq(tmp_path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        DatabaseError, match=r"reading '.*scores\.xlsx' needs the package openpyxl: pip install openpyxl"
    ):
        read(tmp_path)
