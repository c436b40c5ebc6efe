"""The command line: `tta-iqa score`, `evaluate`, `plan`, `shard`, `merge`, `demo`, `experiment`, `opinions`, `manifest`,
`train` (chapter 11).

Results go to stdout, progress and remarks to stderr. Exit status: 0 all scored, 1 some, 2 none, bad usage, or results that
could not be written.
"""

from . import scoring, sharding, studies, training  # noqa: F401 (the commands, in the order of --help)
from .app import app

__all__ = ["app"]
