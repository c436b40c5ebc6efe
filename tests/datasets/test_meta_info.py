"""Tables of pyiqa: read by the order of their columns, as pyiqa does."""

import pytest
from trees import picture, text

from tta_iqa_lib.datasets.databases import DatabaseError, read
from tta_iqa_lib.datasets.meta_info import from_meta_info


def test_a_table_without_originals(tmp_path):
    """Name and opinion; the images lie where pyiqa looks for them."""
    file = tmp_path / "meta_info" / "meta_info_KonIQ10kDataset.csv"
    text(
        file,
        "img_name,mos,std,official_split,ratio802_seed123_split_01",
        "1.jpg,70.5,3,train,val",
        "2.jpg,50,3,test,train",
    )
    for name in ("1.jpg", "2.jpg"):
        picture(tmp_path / "koniq10k" / "512x384" / name)
    found = read(file)
    assert found.name == "KonIQ10k" and found.scores.tolist() == [70.5, 50]
    assert found.paths[0] == tmp_path / "koniq10k" / "512x384" / "1.jpg"
    assert found.split.tolist() == ["train", "test"] and found.content.tolist() == ["", ""]


@pytest.mark.parametrize(
    ("name", "header", "sign"),
    [
        ("CSIQ", "ref_name,dist_name,dmos,dmos_std", -1),
        ("LIVEIQA", "ref_name,dist_name,mos,note", -1),
        ("KADID10k", "ref_name,dist_name,dmos,var", 1),
        ("PIPAL", "hq_name,dist_name,elo_score,official_split", 1),
    ],
)
def test_a_table_with_originals(tmp_path, name, header, sign):
    """Original, name, opinion; the direction is the database's, whatever the column is called."""
    file = tmp_path / f"meta_info_{name}Dataset.csv"
    text(file, header, "a.png,sub/a1.png,0.25,0", "b.png,b1.png,0.5,2")
    picture(tmp_path / "images" / "sub" / "a1.png")
    picture(tmp_path / "images" / "b1.png")
    found = from_meta_info(file, tmp_path / "images")
    assert found.scores.tolist() == [sign * 0.25, sign * 0.5] and found.content.tolist() == ["a", "b"]
    assert found.split.tolist() == (["train", "test"] if "official_split" in header else ["", ""])
    turned = from_meta_info(file, tmp_path / "images", higher_is_better=sign < 0)
    assert turned.scores.tolist() == [-sign * 0.25, -sign * 0.5]


def test_the_images_that_trained_the_observers_are_left_out(tmp_path):
    file = tmp_path / "meta_info_LIVEChallengeDataset.csv"
    text(file, "img_name,mos,std", "trainingImages/t1.bmp,50,1", "3.bmp,60,1")
    picture(tmp_path / "3.bmp")
    assert from_meta_info(file).scores.tolist() == [60]


def test_faults_name_the_table_and_the_line(tmp_path):
    file = tmp_path / "meta_info_Own.csv"
    text(file, "img_name,mos", "a.png,1", "b.png,good")
    with pytest.raises(DatabaseError, match=r"meta_info_Own\.csv', line 3: 'good' is not a score"):
        from_meta_info(file)
    text(file, "img_name", "a.png")
    with pytest.raises(DatabaseError, match="is no table of pyiqa: it has the columns img_name"):
        from_meta_info(file)
    with pytest.raises(DatabaseError, match="no such file"):
        from_meta_info(tmp_path / "none.csv")
