"""Options that several commands share: which model, which method, and how."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import report

if TYPE_CHECKING:
    from ..settings import Settings

DEFAULT_MODEL = "photographs"
SHIPPED = (DEFAULT_MODEL, "source-0", "source-1", "source-2")


def _shipped(incomplete: str) -> list[str]:
    return [name for name in SHIPPED if name.startswith(incomplete)]


def fair(incomplete: str) -> list[str]:
    from ...experiments.methods import FAIR

    return [name for name in FAIR if name.startswith(incomplete)]


Images = Annotated[
    list[Path],
    typer.Argument(
        help='Files, folders (searched recursively), patterns such as "photos/**/*.jpg", tables of paths '
        "(.csv, .tsv, .xlsx, .parquet), or - for a list of paths on standard input."
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        help="photographs, the shipped model of human opinions; source-0, -1 or -2, the book's small ones of computed quality; a "
        "file that `tta-iqa train` wrote; timm:NAME with --weights; pyiqa:NAME; or package.module:function, which gives a model.",
        autocompletion=_shipped,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Of timm:NAME, pyiqa:NAME or package.module:function: a file (.safetensors, .pth) of its weights."
    ),
]
Adapt = Annotated[
    bool, typer.Option("--adapt", help="Adapt to the images, by the default recipe, before scoring them.")
]
Processes = Annotated[int | None, typer.Option(help="Runs at a time; default: one a core.", min=1)]
METHOD = (
    "The short name of a method of chapter 9, such as rank+gc or memo (a wrong one lists all); or package.module:name, a Recipe "
    "or a function (model, seed) of your own."
)
Method = Annotated[str | None, typer.Option(help=f"Adapt by another method. {METHOD}", autocompletion=fair)]
BatchSize = Annotated[int, typer.Option(help="Images that are adapted to together.", min=1)]
Crops = Annotated[int, typer.Option(help="Crops per image: 1, 4, 9, 16 …")]
Seed = Annotated[int, typer.Option(help="Draws the batches.", min=0)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")]
Readers = Annotated[
    int,
    typer.Option("--workers", help="Threads that read pictures ahead of the model. The scores are the same.", min=0),
]


def settings_of(adapt: bool, method: str | None, weights: Path | None, **others) -> Settings:
    """Raises: ValueError."""
    from ..scorers import DEFAULT_METHOD
    from ..settings import Settings

    method = method or (DEFAULT_METHOD if adapt else None)
    return Settings(method=method, weights=str(weights) if weights else None, **others)


def images_of(paths: Sequence[Path], path_column: str) -> list[Path]:
    """`find_images`; what is left out of a folder is said.

    Raises:
        OSError, ValueError: as it does.
    """
    from ..inputs import find_images

    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        files = find_images(paths, path_column)
    for warning in left_out:
        report(str(warning.message))
    return files
