"""Figures, tables, quizzes and players for the book: one call, alive in Jupyter and on the static page."""

from .compare import Compare
from .cover import cover
from .figures import COLOURS, MARKERS, frame, picture, show, strip_chart, style
from .players import Player
from .text import Quiz, Table, say

__all__ = [
    "COLOURS",
    "MARKERS",
    "Compare",
    "Player",
    "Quiz",
    "Table",
    "cover",
    "frame",
    "picture",
    "say",
    "show",
    "strip_chart",
    "style",
]
