"""A model on a database of opinions: the source model's scores and the adapted ones, compared (chapter 11)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..adaptation import adapter as adapt
from ..adaptation import control, loop, moments, rules, state
from ..adaptation import gates as gate
from ..datasets.databases import Database
from ..imaging import files as images
from ..metrics import Interval, bootstrap, krcc, plcc, srcc
from ..models.quality import ScoringModel
from ..store import cache_folder, code_hash
from . import scoring
from .scoring import Row, score_files

METRICS = {"SRCC": srcc, "PLCC": plcc, "KRCC": krcc}


def score_database(
    model: ScoringModel, database: Database, batch_size: int = 32, crops: int = 4, seed: int = 0
) -> Iterator[list[Row]]:
    """`score_files` with adaptation on all images, batch by batch. What is done is kept in the cache folder.

    An interrupted evaluation goes on where it stopped: the batches are the same, as the seed draws them.
    """
    digest = hashlib.sha256(code_hash(adapt, control, moments, rules, gate, images, state, loop, scoring).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    files = [f"{path.resolve()} {path.stat().st_mtime_ns}" for path in database.paths]
    digest.update(json.dumps([batch_size, crops, seed, files]).encode())
    kept = cache_folder() / "evaluate" / f"{digest.hexdigest()[:16]}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = _read_batches(kept)
    yield from done
    with kept.open("a", encoding="utf-8") as lines:
        for batch in score_files(model, list(database.paths), True, batch_size, crops, seed, skip=len(done)):
            rows = [(str(row.path), row.score, row.source_score, row.error) for row in batch]
            lines.write(json.dumps(rows) + "\n")
            lines.flush()
            yield batch


def _read_batches(kept: Path) -> list[list[Row]]:
    """The finished batches; a line that an interruption cut short is cut off."""
    if not kept.is_file():
        return []
    whole = [line for line in kept.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    kept.write_text("".join(whole), encoding="utf-8")
    return [[Row(Path(path), *rest) for path, *rest in json.loads(line)] for line in whole]


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
        name: tuple(
            bootstrap(statistic, len(truth), contents, count)
            for statistic in (
                lambda i, m=metric: m(old[i], truth[i]),
                lambda i, m=metric: m(new[i], truth[i]),
                lambda i, m=metric: m(new[i], truth[i]) - m(old[i], truth[i]),
            )
        )
        for name, metric in METRICS.items()
    }
