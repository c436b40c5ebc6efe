"""The command line: `tta-iqa score`, `evaluate`, `demo`, `experiment`, `opinions`, `manifest`, `train`, `course` (chapter 11).

Results go to stdout, progress and remarks to stderr. Exit status: 0 all scored, 1 some, 2 none or bad usage.
"""

from . import course, scoring, studies, training  # noqa: F401 (the commands, in the order of --help)
from .app import app

__all__ = ["app"]
