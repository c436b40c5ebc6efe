"""The command line: `tta-iqa score`, `evaluate`, `plan`, `shard`, `merge`, `databases`, `demo`, `experiment`, `bench`,
`endurance`, `manifest`, `pack`, `opinions`, `order-study`, `train`, `course`.

Results go to stdout, progress and remarks to stderr. Exit status: 0 all scored, 1 some, 2 none, bad usage, or results that
could not be written.
"""

from . import scoring, evaluation, sharding, databases, studies, opinions, training, course  # noqa: F401, I001 (the order of --help)
from .app import app

__all__ = ["app"]
