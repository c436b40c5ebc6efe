"""A model on a database of opinions: the source model's scores and the adapted ones, compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple

import numpy as np

from ..datasets.databases import Database
from ..metrics import Interval, bootstrap, krcc, plcc, srcc
from ..models.quality import ScoringModel
from ..store import Store
from .loading import import_by_name
from .results import Row
from .scorers import DEFAULT_METHOD, Scorer
from .scoring import cut_batches, score_batches

METRICS = {"SRCC": srcc, "PLCC": plcc, "KRCC": krcc}


def score_database(
    model: ScoringModel,
    database: Database,
    batch_size: int = 32,
    crops: int = 4,
    seed: int = 0,
    method: str = DEFAULT_METHOD,
    workers: int = 0,
) -> Iterator[list[Row]]:
    """`score_files` by a method on all images, batch by batch. What is done is kept in the cache folder.

    An interrupted evaluation goes on where it stopped: the batches are the same, as the seed draws them. Several at once
    share what they have done. A batch with an image that cannot be read is tried anew each time; of a stream, whose batches
    need those before them, nothing is kept.

    Args:
        crops: a square number; of each image.
        seed: draws the batches, and the copies that a loss asks for.
        method: see `Scorer`.
        workers: threads that read pictures ahead of the model.

    Raises:
        ValueError: as `Scorer`.
    """
    scorer = Scorer(model, method, crops, seed)
    batches = [[database.paths[i] for i in batch] for batch in cut_batches(len(database), batch_size, scorer, seed)]
    store = None
    if not scorer.carries:
        own = import_by_name(method) if ":" in method else None
        settings = {"batch_size": batch_size, "crops": crops, "seed": seed, "method": method, "own": own}
        store = Store("evaluate", depends_on=["apps.scoring"], model=model, files=database.paths, **settings)
    todo = []
    for number, files in enumerate(batches):
        kept = store and store.find(f"batch-{number}.json")
        if kept:
            yield [Row(path, *rest) for path, rest in zip(files, kept, strict=True)]
        else:
            todo.append(number)
    for number, rows in zip(todo, score_batches(scorer, (batches[n] for n in todo), workers), strict=True):
        if store and not any(row.error for row in rows):
            store.put(f"batch-{number}.json", [astuple(row)[1:] for row in rows])
        yield rows


def compare(
    scores, source_scores, opinions, contents, count: int = 1000
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """By metric: the source model, the adapted one, and their difference, with 95 % intervals; contents are resampled.

    Args:
        scores, source_scores, opinions, contents: (N,) each; in the place of the source model may stand another method.
        count: bootstrap draws.
    """
    new, old, truth = (np.asarray(values, dtype=float) for values in (scores, source_scores, opinions))
    return {
        name: (
            bootstrap(lambda i, m=metric: m(old[i], truth[i]), len(truth), contents, count),
            bootstrap(lambda i, m=metric: m(new[i], truth[i]), len(truth), contents, count),
            bootstrap(lambda i, m=metric: m(new[i], truth[i]) - m(old[i], truth[i]), len(truth), contents, count),
        )
        for name, metric in METRICS.items()
    }
