"""The command lines of ``python -m research table`` and ``freeze``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from ppool._cli import MisuseError
from ppool.training.cli import given_options
from ppool.training.train import Runtime
from research import photographs
from research.experiments import EXPERIMENTS
from research.tables import Sizes, Sources, run_table

__all__ = ["freeze", "table"]

NAMES = ", ".join(EXPERIMENTS)

# Options of table that are sizes of an experiment; any other is a setting of its recipes.
_SELECTIONS = {"dataset": "datasets", "network": "networks", "pooling": "rows"}
_COUNTS = ("seeds", "pretraining", "scenes", "objects")


def table(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"One of: {NAMES}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for runs and the table.")
    ] = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with VOCdevkit, leftImg8bit, CamVid and so on in it."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder with the published classification weights.")
    ] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Train nothing: the table of the runs there are.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0 leaves PyTorch's default.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read images ahead.")] = 0,
) -> None:
    """Run or resume a table's experiments and print ours beside the paper's.

    Interrupt it at will: what is finished is kept, and the same command goes on from there.

    Only a part: --dataset, --network (any) and --pooling, each repeatable, and --seeds.
    FineShapes: --scenes to train on, --objects and --pretraining iterations for the classifier.
    Any other option is a setting of all its recipes, as --iterations 100; `--set NAME=VALUE` too.
    """
    if threads:
        torch.set_num_threads(threads)
    sizes = _sizes(given_options(context.args), finished=finished)
    console = Console()
    for grid in run_table(name, Sources(data, weights), sizes, output, Runtime(workers=workers)):
        console.print(grid.rich())
    for note in EXPERIMENTS[name].notes:
        console.print(f"- {note}")
    console.print(f"wrote {output / f'table-{name}.json'} and .md")


def _sizes(options: Sequence[tuple[str, str]], *, finished: bool) -> Sizes:
    found: dict[str, Any] = dict.fromkeys(_SELECTIONS.values(), ())
    changes: list[str] = []
    for name, text in options:
        if name in _SELECTIONS:
            found[_SELECTIONS[name]] += (text,)
        elif name in _COUNTS:
            if not text.isdigit() or not int(text):
                raise MisuseError(f"--{name}: expected a whole number from 1 on, got {text!r}")
            found[name] = int(text)
        else:
            changes.append(text if name == "set" else f"{name}={text}")
    return Sizes(**found, changes=tuple(changes), finished=finished)


def freeze(
    table: Annotated[Path, typer.Argument(help="table-camvid-tuning.json.")],
) -> None:
    """Choose every pooling's settings from the tuning runs, once, before anything sees test."""
    for pooling, settings in photographs.freeze(table).items():
        words = ", ".join(f"{name} {value}" for name, value in settings.items())
        Console().print(f"{pooling}: {words}")
    Console().print(f"wrote {photographs.FROZEN}; commit it before the table camvid")
