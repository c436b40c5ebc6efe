"""A plan cuts the batches once, so that many machines can score them in any order and get the same.

Whose batch an image is in changes its score, and no engine that spreads work promises that. So the batches are a file; a part of
the work is a list of their numbers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..store import atomic_write
from ..store.identity import Unidentified

if TYPE_CHECKING:  # else in the functions: to follow a plan and to merge it takes no PyTorch
    from .settings import Settings

FORMAT = 1


class PlanError(ValueError):
    """A plan that cannot be made, read or followed, or that is not done; the message says why."""


def write_plan(path: Path, images: list[Path], settings: Settings) -> Plan:
    """Cut images into batches, and keep that in a file of JSON lines: what decides the scores, the batches, a checksum.

    Of each image stand there its place in the list, its path (as it is spelt, from the folder that one works in), its size
    and the time of its last change.

    Raises:
        PlanError: the method is a stream, whose batches depend on one another, or the model cannot be identified.
        OSError: an image is not there, or the plan cannot be written.
    """
    from ..imaging import files as picture_files
    from .scoring import cut_batches

    scorer = settings.scorer()
    if scorer.carries:
        raise PlanError(
            f"the method '{settings.method}' is a stream: each batch needs those before it; `score` runs it whole"
        )
    try:
        identity = settings.identity(scorer)
    except Unidentified as error:
        raise PlanError(f"the model '{settings.model}' cannot be told from another: {error}") from None
    settings = replace(
        settings, model=_from_anywhere(settings.model), weights=settings.weights and _from_anywhere(settings.weights)
    )
    batches = cut_batches(len(images), settings.batch_size, scorer, settings.seed)
    head = {
        "tta-iqa plan": FORMAT,
        "settings": asdict(settings),
        "identity": identity,
        "max_pixels": picture_files.MAX_PIXELS,
        "folder": str(Path.cwd()),
        "images": len(images),
        "batches": len(batches),
    }
    with atomic_write(path.resolve()) as partial, partial.open("wb") as file:
        digest = hashlib.sha256()
        for part in (head, *([_entry(i, images[i]) for i in batch] for batch in batches)):
            line = json.dumps(part).encode() + b"\n"
            digest.update(line)
            file.write(line)
        file.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")
    return Plan(path)


def _from_anywhere(name: str) -> str:
    """A file by its whole path, as workers start in folders of their own."""
    return str(Path(name).resolve()) if Path(name).suffix and Path(name).is_file() else name


def _entry(place: int, path: Path) -> list:
    about = path.stat()
    return [place, str(path), about.st_size, about.st_mtime_ns]


class Plan:
    """Batches of images, as `write_plan` cut them.

    Attributes:
        settings: how they are scored; on the CPU, as the GPUs of a plan may be elsewhere.
        method, device: as it was made for.
        identity: of model, method and code; see `Settings.identity`.
        images, batches: how many there are.
        key: the checksum of the file.

    Raises:
        PlanError: no plan, or a damaged one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).resolve()
        digest, self._starts, last = hashlib.sha256(), [0], b""
        try:
            with self.path.open("rb") as file:  # line by line: a plan of many millions is read in little memory
                for line in file:
                    digest.update(last)
                    self._starts.append(self._starts[-1] + len(line))
                    last = line
                file.seek(0)
                head = json.loads(file.readline())
            self.key = json.loads(last)["sha256"]
            whole = self.key == digest.hexdigest() and head["tta-iqa plan"] == FORMAT
        except OSError as error:
            raise PlanError(f"cannot read '{path}': {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise PlanError(f"'{path}' is no plan of `tta-iqa plan`") from None
        if not whole:
            raise PlanError(f"the plan '{path}' is damaged, or of another version: make it again")
        self._settings, self.identity, self.max_pixels = head["settings"], head["identity"], head["max_pixels"]
        self.method, self.device = self._settings["method"], self._settings["device"]
        self.images, self.batches, self.folder = head["images"], head["batches"], Path(head["folder"])

    @cached_property
    def settings(self) -> Settings:
        from .settings import Settings

        return Settings(**self._settings | {"device": "cpu"})

    @property
    def parts(self) -> Path:
        """The folder in which finished batches are kept, beside the plan."""
        return self.path.with_suffix(".parts")

    def batch(self, number: int) -> list[tuple[int, Path]]:
        """Place in the list, and path as it was spelt, of each image of a batch."""
        return [(place, Path(name)) for place, name, _, _ in self._line(number)]

    def unchanged(self, number: int) -> list[Path]:
        """Where the images of a batch are.

        Raises:
            PlanError: one is gone, or has changed since the plan was made.
        """
        found = []
        for _, name, size, changed in self._line(number):
            path = self.folder / name
            try:
                about = path.stat()
            except OSError as error:
                raise PlanError(f"'{path}' of the plan cannot be found: {error.strerror}") from None
            if (about.st_size, about.st_mtime_ns) != (size, changed):
                raise PlanError(f"'{path}' has changed since the plan was made: plan again")
            found.append(path)
        return found

    def _line(self, number: int) -> list:
        if not 0 <= number < self.batches:
            raise PlanError(f"the plan '{self.path}' has no batch {number}: it has {self.batches}")
        with self.path.open("rb") as file:
            file.seek(self._starts[number + 1])
            return json.loads(file.readline())
