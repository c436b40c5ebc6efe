"""The program itself, and how it complains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

app = typer.Typer(help="Blind image quality with test-time adaptation.", no_args_is_help=True, add_completion=False)

# How `evaluate` and `train` are told of a table of opinions.
DATABASE = "A folder in an official layout, or a table (.csv) of paths and opinions."
PathColumn = Annotated[str, typer.Option(help="Of a table: the column of image paths.")]
ScoreColumn = Annotated[str, typer.Option(help="Of a table: the column of opinions.")]
ImageFolder = Annotated[
    Path | None, typer.Option(help="Of a table: what its paths are relative to; default: its folder.")
]
LowerIsBetter = Annotated[
    bool, typer.Option("--lower-is-better", help="Of a table: the opinions are differences (DMOS).")
]


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"tta-iqa: {message}", file=sys.stderr)


@app.callback()
def main(threads: Annotated[int | None, typer.Option(help="CPU threads for PyTorch.", min=1)] = None) -> None:
    if threads:
        torch.set_num_threads(threads)
