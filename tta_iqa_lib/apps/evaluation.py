"""A model on a database of opinions: the source model's scores and the adapted ones, compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple

import numpy as np

from ..adaptation.adapter import balanced_batches
from ..datasets.databases import Database
from ..metrics import Interval, bootstrap, krcc, plcc, srcc
from ..models.quality import ScoringModel
from ..store import Store
from .scoring import Row, score_batch

METRICS = {"SRCC": srcc, "PLCC": plcc, "KRCC": krcc}


def score_database(
    model: ScoringModel, database: Database, batch_size: int = 32, crops: int = 4, seed: int = 0
) -> Iterator[list[Row]]:
    """`score_files` with adaptation on all images, batch by batch. What is done is kept in the cache folder.

    An interrupted evaluation goes on where it stopped: the batches are the same, as the seed draws them. Several at once
    share what they have done. A batch with an image that cannot be read is tried anew each time.

    Args:
        crops: a square number; of each image.
        seed: draws the batches, and the copies that a loss asks for.
    """
    settings = {"batch_size": batch_size, "crops": crops, "seed": seed}
    store = Store("evaluate", depends_on=["apps.scoring"], model=model, files=database.paths, **settings)
    for number, batch in enumerate(balanced_batches(len(database), batch_size, seed)):
        files = [database.paths[i] for i in batch]
        kept = store.find(f"batch-{number}.json")
        if kept is None:
            rows = score_batch(model, files, True, crops, seed)
            if not any(row.error for row in rows):
                store.put(f"batch-{number}.json", [astuple(row)[1:] for row in rows])
        else:
            rows = [Row(path, *rest) for path, rest in zip(files, kept, strict=True)]
        yield rows


def compare(
    scores, source_scores, opinions, contents, count: int = 1000
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """By metric: the source model, the adapted one, and their difference, with 95 % intervals; contents are resampled.

    Args:
        scores, source_scores, opinions, contents: (N,) each.
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
