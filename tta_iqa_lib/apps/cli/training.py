"""Source models: `train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .app import DATABASE, ImageFolder, LowerIsBetter, PathColumn, ScoreColumn, app
from .output import report


@app.command()
def train(
    database: Annotated[
        Path | None, typer.Argument(help=f"{DATABASE} Without it: TinyShift, the book's small benchmark.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help='A network of timm, or "torchvision/NAME"; pretrained.')
    ] = "tf_efficientnet_lite0",
    weights: Annotated[
        Path | None, typer.Option(help="A file with the backbone's weights (.safetensors, .pth); default: ImageNet's.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Units between features and score; 0: a linear regressor.", min=0)] = 0,
    path_column: PathColumn = "path",
    score_column: ScoreColumn = "score",
    images: ImageFolder = None,
    lower_is_better: LowerIsBetter = False,
    name: Annotated[
        str | None, typer.Option(help="Of the database, as the model will say it; default: its own.")
    ] = None,
    side: Annotated[int, typer.Option(help="Pictures are brought to a shorter side of so many pixels.", min=32)] = 384,
    crop: Annotated[int | None, typer.Option(help="Side of the random crops; default: the backbone's.", min=32)] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="May be given several times; default: 0.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images; default: 14, or 16 on TinyShift.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images of a training step.", min=2)] = 32,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate of the backbone, a fifth of the regressor's; default: the shipped model's."
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Ends after so many epochs without a better validation SRCC.", min=1)
    ] = 5,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: a GPU if there is one.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Model file (.safetensors), or folder; default: this folder, or data/models for TinyShift."),
    ] = None,
) -> None:
    """Train a source model on the opinions in a database; start it again after an interruption, and it goes on.

    The database is split by content: four fifths to train on, a tenth to choose the epoch, a tenth to measure SRCC and PLCC
    on. Pictures are cropped at random and mirrored. Beside the model, NAME.safetensors, stands its learning curve, NAME.png.
    Known layouts: as `evaluate`. Without a database source-SEED.safetensors is trained on TinyShift's source split; then only
    --seed, --epochs and --out count.
    """
    from ...store import check_folder, data_folder

    for seed in seeds or [0]:
        if database is None:
            file = _place(out or data_folder() / "models", f"source-{seed}", seeds)
            try:
                check_folder(file.parent)
                _tinyshift(file, seed, epochs or 16)
            except OSError as error:
                report(str(error))
                raise typer.Exit(2) from None
            continue
        from ...datasets.databases import read
        from ...models.fine_tuning import Settings

        table = {"path_column": path_column, "score_column": score_column, "folder": images}
        settings = Settings(
            backbone=backbone,
            hidden=hidden,
            weights=weights and str(weights),
            side=side,
            crop=crop,
            epochs=epochs or 14,
            batch_size=batch_size,
            patience=patience,
            seed=seed,
            **({"lr": lr, "head_lr": 5 * lr} if lr else {}),
        )
        try:
            found = read(database, **table, higher_is_better=not lower_is_better)
            found = replace(found, name=name or found.name)
            stem = "-".join([*found.name.lower().split(), backbone.replace("/", "-"), str(seed)])
            _opinions(_place(out or Path(), stem, seeds), found, settings, device)
        except (OSError, ValueError) as error:
            report(str(error))
            raise typer.Exit(2) from None


def _place(out: Path, stem: str, seeds: list[int] | None) -> Path:
    """The model's file: `out` itself, or in the folder `out`."""
    if out.suffix != ".safetensors":
        return out / f"{stem}.safetensors"
    if seeds and len(seeds) > 1:
        report(f"--out names one file, '{out}', for {len(seeds)} seeds; name a folder")
        raise typer.Exit(2)
    return out


def _tinyshift(file: Path, seed: int, epochs: int) -> None:
    from ...models.saving import save_model
    from ...models.training import train_source

    model, about = train_source(seed, epochs)
    save_model(model, file, about)
    print(f"{file}: SRCC {about['srcc_source_test']:.3f} on source/test")


def _opinions(file: Path, database, settings, device: str | None) -> None:
    import torch

    from ...models.opinion_model import draw_curve, train_on_opinions
    from ...models.saving import save_model
    from ...store import check_folder

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_folder(file.parent)
    checkpoint = file.with_suffix(".checkpoint")
    if checkpoint.is_file():
        report(f"going on from '{checkpoint}'")
    report(f"{database.name}: {len(database)} images; {settings.backbone} on {device}, {settings.epochs} epochs")
    model, about, curve = train_on_opinions(database, settings, device, checkpoint)
    save_model(model, file, about, half=True)
    draw_curve(curve, file.with_suffix(".png"), f"{settings.backbone} on {database.name}")
    checkpoint.unlink(missing_ok=True)
    counts = about["images"]
    print(f"{file}: trained on {counts['train']} images; on the {counts['test']} of contents that had no part in it:")
    for metric, (value, low, high) in about["test"].items():
        print(f"{metric.upper()} {value:.3f} [{low:.3f}, {high:.3f}]")
