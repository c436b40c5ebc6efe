"""Players, quizzes and tables: the same content in Jupyter and on a page."""

import base64
import io
import json
import re

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from tta_iqa_lib.display import COLOURS, Player, Quiz, Table, frame, picture, show


def player(**changes) -> Player:
    frames = [picture(torch.full((3, 8, 8), v)) for v in (0.0, 0.5, 1.0)]
    values = {
        "name": "grey",
        "control": "Grey",
        "frames": frames,
        "labels": ["black", "grey </script>", "white"],
        "alts": ["a black square", "a grey square", "a white square"],
        "caption": "A square.",
    }
    return Player(**(values | changes))


def test_the_page_s_player_carries_every_frame_label_and_alternative():
    html = player().html()
    states = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])
    assert [s["label"] for s in states] == ["black", "grey </script>", "white"]
    decoded = [Image.open(io.BytesIO(base64.b64decode(s["src"].split(",")[1]))).getpixel((0, 0)) for s in states]
    assert [p[0] for p in decoded] == [0, 128, 255]
    assert 'type="range"' in html and 'max="2"' in html and 'for="range-grey"' in html


def test_the_widget_s_slider_moves_the_picture():
    one = player(start=1)
    image, slider, _ = one.widget().children
    assert image.value == one.frames[1]
    slider.value = 2
    assert image.value == one.frames[2]


def test_jupyter_gets_the_widget_and_the_page_gets_html():
    bundle = player()._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(bundle)
    assert "0x" not in bundle["text/plain"]


def test_the_page_s_player_is_the_same_every_time():
    assert player().html() == player().html()


@pytest.mark.parametrize("changes", [{"labels": ["a"]}, {"alts": []}, {"start": 3}])
def test_a_player_with_missing_parts_is_refused(changes):
    with pytest.raises(ValueError):
        player(**changes)


def test_a_quiz_explains_every_option_and_has_one_right_answer():
    quiz = Quiz("q", "Which?", [("A", True, "Because."), ("B", False, "No, since.")])
    html = quiz._repr_html_()
    assert html.count('type="radio"') == html.count('class="feedback') == 2 and "No, since." in html
    with pytest.raises(ValueError, match="exactly one"):
        Quiz("q", "Which?", [("A", True, ""), ("B", True, "")])


def test_a_table_marks_its_headers():
    html = Table("Scores", ["target", "SRCC"], [["haze", "0.50"]])._repr_html_()
    assert html.count('scope="col"') == 2 and html.count('scope="row"') == 1 and "<caption>Scores" in html


def test_a_frame_closes_its_figure_and_keeps_its_size():
    figure = plt.figure(figsize=(2, 1), dpi=50)
    number = figure.number
    png = Image.open(io.BytesIO(frame(figure)))
    assert not plt.fignum_exists(number) and png.mode == "P" and png.size[0] > png.size[1]


def test_show_draws_each_image_once():
    figure = show(torch.rand(4, 3, 8, 8), ["a", "b", "c", "d"], columns=3)
    drawn = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in drawn] == ["a", "b", "c", "d"]
    plt.close(figure)


def test_methods_that_are_compared_have_different_colours():
    compared = [COLOURS[m] for m in ("source", "bn-batch", "bn-blend", "rank", "gc", "rank+gc", "recipe")]
    assert len(set(compared)) == len(compared)
