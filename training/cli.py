"""``ppool train``: train, evaluate and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from ppool._cli import command_line
from ppool.feeding import Normalisation
from ppool.models import Checkpoint, list_poolings
from ppool.training import compare as comparison
from ppool.training.dataset import SegmentationDataset
from ppool.training.datasets import DATASETS, open_dataset
from ppool.training.evaluate import BAND, evaluate
from ppool.training.processes import processes
from ppool.training.provenance import provenance
from ppool.training.recipe import PAGES, RECIPES, Recipe
from ppool.training.train import Runtime, train

__all__ = ["app"]

app = command_line("Train, evaluate and compare networks.")
console = Console()

Data = Annotated[Path, typer.Option(help="Folder of the data.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for results.")]
Iterations = Annotated[int | None, typer.Option(help="Optimiser steps; default the recipe's.")]
BatchSize = Annotated[int | None, typer.Option(help="Crops a step; default the recipe's.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves PyTorch's default.")]


@app.command()
def run(
    output: Output,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data; drawn sets need none.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help=f"{' or '.join(RECIPES)}, or a file such as a run's recipe.json.")
    ] = "pages",
    dataset: Annotated[
        str | None, typer.Option(help=f"{', '.join(DATASETS)}; default the recipe's.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Default the recipe's.")] = None,
    pooling: Annotated[
        str | None, typer.Option(help=f"One of: {', '.join(list_poolings())}.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of classification weights to start from.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides weights and batches.")] = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as precision=bfloat16; may be repeated."),
    ] = None,
    threads: Threads = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read images ahead.")] = 0,
    tensorboard: Annotated[bool, typer.Option(help="Also write curves for TensorBoard.")] = False,
) -> None:
    """Train one network; continues where an earlier call stopped.

    Every setting of a run is in one recipe; the options replace single ones. For several GPUs or
    processes: `torchrun --nproc-per-node N -m ppool.training run ...`.
    """
    _use_threads(threads)
    asked = {
        "dataset": dataset,
        "network": network,
        "pooling": pooling,
        "weights": weights,
        "seed": seed,
        "iterations": iterations,
        "batch_size": batch_size,
    }
    if recipe not in RECIPES and not Path(recipe).is_file():
        raise ValueError(f"--recipe: expected {', '.join(RECIPES)} or a file, got {recipe!r}")
    base = RECIPES[recipe] if recipe in RECIPES else Recipe.load(Path(recipe))
    chosen = replace(base, **_given(asked)).changed(settings or [])
    runtime = Runtime(workers, tensorboard)
    with processes() as group:
        checkpoint = train(chosen, *_load(chosen.dataset, data), output, runtime=runtime)
    if group.rank == 0:
        console.print(comparison.table({str(chosen.pooling): [checkpoint.training]}))
        console.print(f"wrote {output / 'checkpoint.pt'}")


@app.command()
def evaluation(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data; drawn sets need none.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help=f"{', '.join(DATASETS)}; default the checkpoint's.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which images to score.")] = "val",
    band: Annotated[int, typer.Option(min=1, help="Pixels that count as near a boundary.")] = BAND,
    threads: Threads = 0,
) -> None:
    """Score a checkpoint: IoU by class, accuracy, IoU along boundaries, time an image."""
    _use_threads(threads)
    loaded = Checkpoint.load(checkpoint)
    trained_on = loaded.training.get("recipe", {}).get("dataset", "pages")
    held_out = open_dataset(dataset or trained_on, data, split)
    names, known = ([c.name for c in classes] for classes in (held_out.classes, loaded.classes))
    if names != known:
        raise ValueError(
            f"data set: expected the classes of the checkpoint, {', '.join(known)}; "
            f"got {', '.join(names)}; choose another with --dataset"
        )
    found = evaluate(
        loaded.build(),
        (held_out[i] for i in range(len(held_out))),
        num_classes=len(loaded.classes),
        normalise=Normalisation(loaded.mean, loaded.std),
        policy=loaded.input,
        band=band,
    )
    console.print(found.table(loaded.classes))
    console.print(
        f"{len(held_out)} images, {found.milliseconds:.1f} ms an image (median; "
        f"PyTorch threads: {torch.get_num_threads()}; {provenance()['processor']})"
    )


@app.command()
def compare(
    data: Data,
    output: Output,
    seeds: Annotated[int, typer.Option(min=1, help="Runs for each pooling.")] = 3,
    pooling: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default ppool and max.")
    ] = None,
    iterations: Iterations = None,
    batch_size: BatchSize = None,
    threads: Threads = 0,
) -> None:
    """Train with several poolings and seeds and print the table; resumable run by run."""
    _use_threads(threads)
    recipe = replace(PAGES, **_given({"iterations": iterations, "batch_size": batch_size}))
    recipes = {name: replace(recipe, pooling=name) for name in pooling or ["ppool", "max"]}
    results = comparison.compare(recipes, range(seeds), _load("pages", data), output)
    console.print(comparison.table(results))


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _load(dataset: str, data: Path | None) -> tuple[SegmentationDataset, SegmentationDataset]:
    return open_dataset(dataset, data, "train"), open_dataset(dataset, data, "val")
