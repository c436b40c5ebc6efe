"""The program itself: what holds for every command."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..tables import KEEP_BYTES
from .output import print_lines

HELP = (
    "Blind image quality with test-time adaptation.\n\n"
    "Results go to standard output, progress and remarks to standard error. Exit status: 0 all images were scored, 1 some, "
    "2 none, bad usage, or results that could not be written. `tta-iqa --install-completion` lets the Tab key complete "
    "commands, options and the names of models and methods."
)
app = typer.Typer(help=HELP, no_args_is_help=True)

# How `evaluate` and `train` are told of a table of opinions.
DATABASE = "A folder in an official layout, or a table (.csv, .xlsx, .parquet) of paths and opinions."
PathColumn = Annotated[str, typer.Option(help="Of a table: the column of image paths.")]
ScoreColumn = Annotated[str, typer.Option(help="Of a table: the column of opinions.")]
ImageFolder = Annotated[
    Path | None, typer.Option(help="Of a table: what its paths are relative to; default: its folder.")
]
LowerIsBetter = Annotated[
    bool, typer.Option("--lower-is-better", help="Of a table: the opinions are differences (DMOS).")
]


@app.callback()
def main(
    context: typer.Context,
    threads: Annotated[int | None, typer.Option(help="CPU threads for PyTorch.", min=1)] = None,
    max_megapixels: Annotated[
        int | None, typer.Option(help="Refuse larger pictures; default: 300. One takes 4 MB a megapixel.", min=1)
    ] = None,
) -> None:
    if threads:
        import torch  # here, as some commands need none of it

        torch.set_num_threads(threads)
    if max_megapixels:
        from ...imaging import files

        files.MAX_PIXELS = max_megapixels * 1_000_000
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=KEEP_BYTES)
    warnings.filterwarnings(
        "ignore", module="PIL"
    )  # on metadata, mostly; what keeps a file from being read is an error
    context.call_on_close(lambda: print_lines([]))
