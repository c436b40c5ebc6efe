"""Players, quizzes and tables: the same content in Jupyter and on a page."""

import base64
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from tta_iqa_lib.teaching.display import (
    COLOURS,
    MARKERS,
    Compare,
    Player,
    Quiz,
    Table,
    cover,
    frame,
    picture,
    say,
    show,
)
from tta_iqa_lib.teaching.display.cover import HAZE


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
    """Without a kernel or a script it shows the first position's, and no label can end the markup that carries it."""
    html = player(start=1).html()
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])
    states = data["frames"]
    assert data["labels"] == [["black", "grey </script>", "white"]]
    assert [s["alt"] for s in states] == ["a black square", "a grey square", "a white square"]
    decoded = [Image.open(io.BytesIO(base64.b64decode(s["src"].split(",")[1]))).getpixel((0, 0)) for s in states]
    assert [p[0] for p in decoded] == [0, 128, 255]
    assert 'type="range"' in html and 'max="2"' in html and '<label for="range-grey">Grey</label>' in html
    assert f'<img alt="a grey square" src="{states[1]["src"]}">' in html and 'value="1"' in html
    assert html.count("grey &lt;/script&gt;") == 2 and html.count("</script>") == 1


def test_the_widget_s_slider_moves_the_picture():
    """From where both start; each position has its own label."""
    one = player(start=1)
    image, slider, _ = one.widget().children
    assert image.value == one.frames[1] and (slider.value, slider.label) == (1, "grey </script>")
    slider.value = 2
    assert image.value == one.frames[2]


def two_sliders(**changes) -> Player:
    """Grey level × a name: six frames, of which no two are equal."""
    frames = [picture(torch.full((3, 8, 8), v / 5)) for v in range(6)]
    labels = [["dark", "light"], ["a", "b", "c"]]
    values = dict(name="two", control=("Grey", "Name"), frames=frames, labels=labels, alts=list("012345"), caption="")
    return Player(**(values | changes))


def test_several_sliders_choose_a_frame_as_nested_loops_do():
    """The last one varies fastest, in the widget and on the page, from the first position on."""
    one = two_sliders(start=(1, 0))
    image, grey, name, _ = one.widget().children
    assert image.value == one.frames[3]
    name.value = 2
    assert image.value == one.frames[5]
    grey.value = 0
    assert image.value == one.frames[2]
    html = one.html()
    assert html.count('type="range"') == 2 and '<img alt="3"' in html
    assert re.findall(r'id="(range-[^"]+)"', html) == re.findall(r'<label for="(range-[^"]+)"', html)
    assert re.findall(r'value="(\d)"', html) == ["1", "0"] and "'Grey' × 3" in repr(one)


def test_a_comparison_uncovers_one_picture_after_the_other():
    """Left of the line stands the earlier picture; the page carries all, and sizes must agree."""
    grey = [picture(torch.full((3, 8, 20), v)) for v in (0.0, 0.6, 1.0)]
    two = Compare("two", grey[::2], ("before", "after"), ("black", "white"), "Two.")
    three = Compare("three", grey, ("a", "b", "c"), ("black", "grey", "white"), "Three.")
    for compare, at, shown in (
        (two, 25, [0, 0, 255, 255]), (two, 100, [0] * 4), (two, 0, [255] * 4),
        (three, 0, [255] * 4), (three, 25, [153, 153, 255, 255]), (three, 100, [153] * 4),
        (three, 125, [0, 0, 153, 153]), (three, 200, [0] * 4),
    ):  # fmt: skip
        image, slider, _ = compare.widget().children
        slider.value = at
        pixels = [Image.open(io.BytesIO(image.value)).getpixel((x, 4))[0] for x in (0, 4, 5, 19)]
        assert pixels == shown, (compare, at)
    html = three.html()
    assert html.index('alt="black"') < html.index('alt="grey"') < html.index('alt="white"') and "a ↔ b ↔ c" in html
    assert [base64.b64decode(s) for s in re.findall(r"base64,([^\"]+)", html)] == grey
    assert re.findall(r"inset\(0 0 0 (\d+)%", html) == ["50", "100"] and 'max="200"' in html
    assert [three.spoken(at) for at in (200, 150, 100, 30, 0)] == [
        "100 % a, then b", "50 % a, then b", "100 % b, then c", "30 % b, then c", "0 % b, then c"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="one size"):
        Compare("pair", [grey[0], picture(torch.ones(3, 4, 4))], ("a", "b"), ("", ""), "")
    with pytest.raises(ValueError, match="two pictures or more"):
        Compare("pair", grey, ("a", "b"), ("", ""), "")


def test_a_comparison_in_several_scenes_carries_the_pictures_of_each():
    """The first scene stands in the page, the others in its data; the widget's second slider chooses among them."""
    grey = [picture(torch.full((3, 8, 20), v)) for v in (0.0, 0.2, 0.4, 0.6)]
    scenes = Compare("s", [grey[:2], grey[2:]], ("a", "b"), [("0", "1"), ("2", "3")], "", ("day", "night"), "Light")
    html = scenes.html()
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])
    assert data["labels"] == ["day", "night"] and [p["alt"] for p in data["scenes"][0]] == ["2", "3"]
    found = [base64.b64decode(s) for s in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)]
    assert found == grey and html.count('type="range"') == 2 and '<label for="range-s-scene">Light</label>' in html
    image, line, scene, _ = scenes.widget().children
    for at, place, shown in ((0, 0, [51] * 2), (100, 0, [0] * 2), (100, 1, [102] * 2), (50, 1, [102, 153])):
        line.value, scene.value = at, place
        assert [Image.open(io.BytesIO(image.value)).getpixel((x, 4))[0] for x in (0, 19)] == shown
    with pytest.raises(ValueError, match="2 scenes need as many lists"):
        Compare("s", [grey[:2]], ("a", "b"), [("0", "1")], "", ("day", "night"))


def test_jupyter_gets_the_widget_and_the_page_gets_html():
    bundle = player()._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(bundle)
    assert "0x" not in bundle["text/plain"]


def test_the_page_s_player_is_the_same_every_time():
    """Two players that live at once: neither address nor chance gets into the page."""
    one, other = player(), player()
    assert one.html() == other.html()


@pytest.mark.parametrize("changes", [{"labels": ["a"]}, {"alts": []}, {"start": 3}, {"start": -1}])
def test_a_player_with_missing_parts_is_refused(changes):
    with pytest.raises(ValueError):
        player(**changes)


@pytest.mark.parametrize("changes", [{"control": ("Grey",)}, {"start": (1, 3)}, {"start": 1}, {"alts": list("01234")}])
def test_several_sliders_with_missing_parts_are_refused(changes):
    with pytest.raises(ValueError):
        two_sliders(**changes)


def test_a_quiz_explains_every_option_and_has_one_right_answer():
    """Each label names its own button, the buttons form one group, and the verdict is that of the option."""
    quiz = Quiz("q", "Which?", [("A", True, "Because."), ("B", False, "No, since.")])
    html = quiz._repr_html_()
    assert html.count('type="radio"') == html.count('class="feedback') == 2
    verdicts = re.findall(r'<p class="feedback (\w+)"><strong>(.*?)</strong> (.*?)</p>', html)
    assert verdicts == [("right", "Right.", "Because."), ("wrong", "Not quite.", "No, since.")]
    buttons = re.findall(r'<input type="radio" name="(.*?)" id="(.*?)"> <label for="(.*?)">', html)
    assert all(key == label for _, key, label in buttons) and len({key for _, key, _ in buttons}) == 2
    assert len({group for group, _, _ in buttons}) == 1
    for right in (True, False):
        with pytest.raises(ValueError, match="exactly one"):
            Quiz("q", "Which?", [("A", right, ""), ("B", right, "")])


def test_a_quiz_shows_marked_words_as_a_page_does():
    """*This* and `that`; an asterisk that multiplies stays one."""
    quiz = Quiz("q", "What is `a * b`?", [("*Not* 3 * 4", True, "3*4 or *both words*."), ("B", False, "No.")])
    page = quiz._repr_html_()
    for part in ("<code>a * b</code>", "<em>Not</em> 3 * 4", "3*4 or <em>both words</em>."):
        assert part in page


def test_a_table_marks_its_headers():
    """The first cell of a row is its header, and stands there once."""
    html = Table("Scores", ["target", "SRCC"], [["haze", "0.50"]])._repr_html_()
    assert html.count('scope="col"') == 2 and html.count('scope="row"') == 1 and "<caption>Scores" in html
    assert html.count("haze") == 1 and html.count("<td>") == html.count("<td>0.50</td>") == 1


def test_a_table_without_a_name_for_a_column_is_refused():
    with pytest.raises(ValueError, match="needs a name"):
        Table("Scores", ["", "SRCC"], [["haze", "0.50"]])


def test_a_frame_closes_its_figure_and_keeps_its_size():
    figure = plt.figure(figsize=(2, 1), dpi=50)
    number = figure.number
    png = Image.open(io.BytesIO(frame(figure)))
    assert not plt.fignum_exists(number) and png.mode == "P" and png.size == (100, 50)


def test_show_draws_each_image_once():
    """In their order, each under its own title."""
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = show(images, ["a", "b", "c", "d"], columns=3)
    drawn = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in drawn] == ["a", "b", "c", "d"]
    shown = [torch.from_numpy(axis.images[0].get_array().filled()).permute(2, 0, 1) for axis in drawn]
    assert torch.allclose(torch.stack(shown), images)
    plt.close(figure)


def test_methods_that_are_compared_have_different_colours():
    """Any two may meet in a figure, so no colour is used twice; and every marker belongs to a method with a colour."""
    assert {"source", "bn-batch", "bn-blend", "rank", "gc", "rank+gc", "recipe"} <= set(COLOURS)
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert len(set(MARKERS.values())) == len(MARKERS) and set(MARKERS) <= set(COLOURS)


def test_the_cover_shows_what_the_model_is_given():
    """A wall of four rows that loses its contrast to the haze and its detail to the blur; lines as the figure says."""
    figure, found = cover()
    wall, lines = figure.axes
    pixels = np.asarray(wall.images[0].get_array())
    tile = 102  # 96 pixels and a margin of three
    assert pixels.shape == (4 * tile, len(HAZE) * tile)
    columns = [pixels[:, i * tile : (i + 1) * tile] for i in range(len(HAZE))]
    assert np.std(columns[-4:]) < 0.6 * np.std(columns[:4])
    detail = [np.abs(np.diff(pixels[r * tile + 5 : (r + 1) * tile - 5, 5:97])).mean() for r in range(4)]
    assert detail[0] > 1.5 * detail[3]
    for line, values in zip(lines.lines, found.values(), strict=True):
        assert line.get_ydata().tolist() == values and len(values) == len(HAZE)
    assert found["recipe"][-1] > found["source"][-1] + 0.1 and found["recipe"][0] < found["source"][0]
    plt.close(figure)


def test_words_in_a_table_stand_left_and_numbers_right():
    html = Table(
        "Faults", ["fault", "what it does", "change"], [["4", "adds up", "+0.01"], ["7", "–", "–"]]
    )._repr_html_()
    assert '<th scope="col" class="words">what it does</th><th scope="col">change</th>' in html
    assert '<td class="words">adds up</td><td>+0.01</td>' in html and '<td class="words">–</td><td>–</td>' in html


def test_a_computed_sentence_is_set_as_the_prose_is():
    assert say("97% of 4, and 95 % of 8").data == "97 % of 4, and 95 % of 8"
