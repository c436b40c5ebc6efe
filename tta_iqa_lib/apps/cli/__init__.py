"""The command line: `tta-iqa score`, `evaluate`, `databases`, `demo`, `experiment`, `opinions`, `manifest`, `train`.

Results go to stdout, progress and remarks to stderr. Exit status: 0 all scored, 1 some, 2 none or bad usage.
"""

from . import scoring, databases, studies, training  # noqa: F401, I001 (the commands, in the order of --help)
from .app import app

__all__ = ["app"]
