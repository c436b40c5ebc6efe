"""Images with quality: the embedded benchmark, databases of opinions, and which pictures show the same."""

from . import databases, near_duplicates, tinyshift

__all__ = ["databases", "near_duplicates", "tinyshift"]
