"""The command line of ``python -m research table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from ppool.training.train import Runtime
from research.experiments import EXPERIMENTS, PRETRAINING
from research.tables import Sizes, Sources, run_table

__all__ = ["table"]

NAMES = ", ".join(EXPERIMENTS)


def table(
    name: Annotated[str, typer.Argument(help=f"One of: {NAMES}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for runs and the table.")
    ] = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with VOCdevkit, leftImg8bit or ADEChallengeData2016 in it."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder with the published classification weights.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only these data sets; may be repeated.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="These networks instead, such as vgg_small; may be repeated."),
    ] = None,
    pooling: Annotated[
        list[str] | None, typer.Option(help="Only these rows; may be repeated.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs a row; default the paper's.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Default the recipe's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE in place of the recipe's; may be repeated."),
    ] = None,
    pretraining: Annotated[
        int, typer.Option(min=1, help="Iterations of a small network's classification.")
    ] = PRETRAINING.iterations,
    scenes: Annotated[
        int, typer.Option(min=1, help="FineShapes scenes to train on.")
    ] = Sizes.scenes,
    objects: Annotated[int, typer.Option(min=1, help="Drawn objects to classify.")] = Sizes.objects,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0 leaves PyTorch's default.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read images ahead.")] = 0,
) -> None:
    """Run or resume a table's experiments and print ours beside the paper's.

    Interrupt it at will: what is finished is kept, and the same command goes on from there.
    """
    if threads:
        torch.set_num_threads(threads)
    changes = [] if iterations is None else [f"iterations={iterations}"]
    sizes = Sizes(
        seeds=seeds,
        datasets=tuple(dataset or ()),
        networks=tuple(network or ()),
        rows=tuple(pooling or ()),
        changes=(*changes, *(settings or ())),
        pretraining=pretraining,
        scenes=scenes,
        objects=objects,
    )
    console = Console()
    for grid in run_table(name, Sources(data, weights), sizes, output, Runtime(workers=workers)):
        console.print(grid.rich())
    for note in EXPERIMENTS[name].notes:
        console.print(f"- {note}")
    console.print(f"wrote {output / f'table-{name}.json'} and .md")
