"""``ppool-train``: draw pages, train, evaluate, compare, draw the paper's figures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from models import Checkpoint, list_poolings
from training import compare as comparison
from training.evaluate import BAND, Normalisation, evaluate
from training.figure_command import figures
from training.pages import Page, PageDataset, write_dataset
from training.provenance import provenance
from training.recipe import Recipe
from training.train import train

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

app.add_typer(figures, name="figure")

DEFAULTS = Recipe()

Data = Annotated[Path, typer.Option(help="Folder written by `ppool-train pages`.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for results.")]
Iterations = Annotated[int, typer.Option(help="Optimiser steps.")]
BatchSize = Annotated[int, typer.Option(help="Crops a step.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 leaves PyTorch's default.")]


@app.command()
def pages(
    root: Annotated[Path, typer.Argument(help="Folder to write train/ and val/ into.")],
    count: Annotated[int, typer.Option(help="Pages to draw, a tenth of them held out.")] = 1000,
    seed: Annotated[int, typer.Option(help="First seed; page i is drawn from seed + i.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Draw pages with exact labels; continues where an earlier call stopped."""
    write_dataset(root, count, seed=seed, workers=workers, val_share=0.1)


@app.command()
def run(
    data: Data,
    output: Output,
    network: Annotated[str, typer.Option(help="Name of the network.")] = DEFAULTS.network,
    pooling: Annotated[
        str, typer.Option(help=f"One of: {', '.join(list_poolings())}.")
    ] = DEFAULTS.pooling,
    seed: Annotated[int, typer.Option(help="Decides weights and batches.")] = DEFAULTS.seed,
    iterations: Iterations = DEFAULTS.iterations,
    batch_size: BatchSize = DEFAULTS.batch_size,
    threads: Threads = 0,
) -> None:
    """Train one network; continues where an earlier call stopped."""
    _use_threads(threads)
    recipe = replace(
        DEFAULTS,
        network=network,
        pooling=pooling,
        seed=seed,
        iterations=iterations,
        batch_size=batch_size,
    )
    checkpoint = train(recipe, *_load(data), output)
    console.print(comparison.table({pooling: [checkpoint.training]}))
    console.print(f"wrote {output / 'checkpoint.pt'}")


@app.command()
def evaluation(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt.")],
    data: Data,
    band: Annotated[int, typer.Option(help="Pixels that count as near a boundary.")] = BAND,
) -> None:
    """Score a checkpoint on the held-out pages: IoU, accuracy, IoU along boundaries, speed."""
    loaded = Checkpoint.load(checkpoint)
    held_out = PageDataset(data / "val")
    found = evaluate(
        loaded.build(),
        (held_out[i] for i in range(len(held_out))),
        num_classes=len(loaded.classes),
        normalise=Normalisation(loaded.mean, loaded.std),
        multiple=loaded.input.multiple,
        band=band,
    )
    console.print(found.table(loaded.classes))
    console.print(
        f"{len(held_out)} images, {found.milliseconds:.1f} ms an image (median), "
        f"{torch.get_num_threads()} threads of {provenance()['processor']}"
    )


@app.command()
def compare(
    data: Data,
    output: Output,
    seeds: Annotated[int, typer.Option(help="Runs for each pooling.")] = 3,
    pooling: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default ppool and max.")
    ] = None,
    iterations: Iterations = DEFAULTS.iterations,
    batch_size: BatchSize = DEFAULTS.batch_size,
    threads: Threads = 0,
) -> None:
    """Train with several poolings and seeds and print the table; resumable run by run."""
    _use_threads(threads)
    recipe = replace(DEFAULTS, iterations=iterations, batch_size=batch_size)
    poolings = pooling or ["ppool", "max"]
    results = comparison.compare(recipe, poolings, range(seeds), _load(data), output)
    console.print(comparison.table(results))


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def _load(data: Path) -> tuple[list[Page], list[Page]]:
    """Both splits in memory: crops are drawn from every page again and again."""
    training, held_out = PageDataset(data / "train"), PageDataset(data / "val")
    return [training[i] for i in range(len(training))], [held_out[i] for i in range(len(held_out))]


def main() -> None:
    """Entry point: a mistake of the user is one line, not a traceback."""
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        console.print(f"[bold red]error:[/] {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
