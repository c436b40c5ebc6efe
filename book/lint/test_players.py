"""Every page has something to move, small enough to load."""

import re
from pathlib import Path

import pytest

from workshop.chapters import PAGES, read


def players_of(path: Path) -> list[str]:
    """The HTML of each player, as stored."""
    outputs = [
        output for cell in read(path).cells for output in cell.get("outputs", [])
    ]
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    return [html for html in pages if 'class="tta-player' in html]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_players_have_eight_states_and_stay_small(path):
    """States that the model computed: pictures that differ, not positions of a line that is dragged over them."""
    for html in players_of(path):
        states = set(re.findall(r"base64,([A-Za-z0-9+/=]+)", html))
        assert len(states) >= 8, html[:200]
        assert len(html.encode()) <= 300_000, html[:200]


def test_there_are_players_for_everyone():
    """At least ten in the book, one at least in every chapter; no two have the same name."""
    players = {path.stem: players_of(path) for path in PAGES}
    assert [name for name, found in players.items() if not found] == []
    names = [
        re.search(r'id="player-([^"]+)"', html)[1]
        for found in players.values()
        for html in found
    ]
    assert len(names) >= 10 and len(set(names)) == len(names)
