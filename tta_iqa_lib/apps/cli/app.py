"""The program itself, and how it complains."""

from __future__ import annotations

import sys
from typing import Annotated

import torch
import typer

app = typer.Typer(help="Blind image quality with test-time adaptation.", no_args_is_help=True, add_completion=False)


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"tta-iqa: {message}", file=sys.stderr)


@app.callback()
def main(threads: Annotated[int | None, typer.Option(help="CPU threads for PyTorch.", min=1)] = None) -> None:
    if threads:
        torch.set_num_threads(threads)
