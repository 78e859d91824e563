"""The network that ships with other poolings, trained alike, on real pages.

Usage: PPOOL_DIBCO=FOLDER python -m benchmarks.pages_poolings data/pages. The data are drawn by
``python -m research pages data/pages``. Interrupt it at will: the same command goes on from there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.measure import write
from benchmarks.pages import Mask, Segment, judge, pages_of
from ppool.feeding import Normalisation
from ppool.models import Checkpoint
from ppool.training.atomic import write_whole
from ppool.training.compare import run_all
from ppool.training.dataset import Sample
from ppool.training.evaluate import fed, predict
from ppool.training.recipe import PAGES
from ppool.training.train import Runtime
from research.pages import PageDataset

__all__ = ["POOLINGS", "main"]

POOLINGS = ("max", "gated", "ppool")


def main(
    data: Annotated[Path, typer.Argument(help="Drawn pages: train/ and val/.")],
    folder: Annotated[Path | None, typer.Option(envvar="PPOOL_DIBCO", help="Real pages.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="For runs.")] = Path("runs"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each pooling.")] = 3,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe `pages`.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: PyTorch's default.")] = 0,
    store: Annotated[str | None, typer.Option(help="Name of the result to write.")] = None,
) -> None:
    """Train what is missing, judge it and print; with ``--store`` write the result."""
    if folder is None:
        raise typer.BadParameter("name the folder of the real pages, or set PPOOL_DIBCO")
    if threads:
        torch.set_num_threads(threads)
    shared = PAGES.changed(setting or ())
    recipes = {pooling: replace(shared, pooling=pooling) for pooling in POOLINGS}
    drawn = PageDataset(data / "train"), PageDataset(data / "val")
    scores: dict[str, list[dict[str, Any]]] = {pooling: [] for pooling in POOLINGS}
    for seed in range(seeds):
        records = run_all(recipes, [seed], drawn, output, Runtime(workers=1))
        for pooling, (record,) in records.items():
            real = _judged(output / f"{pooling}-{seed}", folder)
            held_out = 100 * record["held_out"]["mean_iou"]
            scores[pooling].append({"seed": seed, "drawn mean IoU": round(held_out, 2), **real})
    console = Console()
    console.print(_table(scores))
    if store:
        command = f"python -m benchmarks.pages_poolings {data}"
        for change in setting or ():
            command += f" --set {change}"
        settings = {
            name: getattr(shared, name)
            for name in ("network", "iterations", "batch_size", "crop", "learning_rate", "loss")
        }
        results = {"settings": {**settings, "pages": len(drawn[0])}, "runs": scores}
        console.print(f"wrote {write(store, f'{command} --store {store}', results)}")


def _judged(run: Path, folder: Path) -> dict[str, Any]:
    """F-measures of a finished run on the real pages, kept beside it."""
    kept = run / "real.json"
    if not kept.exists():
        checkpoint = Checkpoint.load(run / "checkpoint.pt")
        found = judge(_segmenter(checkpoint), checkpoint.classes, pages_of(folder))
        scores = {
            "real mean F": found["mean"]["model"],
            "contests": {name: row["model"] for name, row in found["contests"].items()},
        }
        write_whole(kept, json.dumps(scores))
    scores = json.loads(kept.read_text("utf-8"))
    return dict(scores)


def _segmenter(checkpoint: Checkpoint) -> Segment:
    """What a request without options would be answered, without the detour of an exported file."""
    network = checkpoint.build().eval()
    normalise = Normalisation(checkpoint.mean, checkpoint.std)

    def segment(photo: bytes) -> Mask:
        pixels = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
        sample = Sample(pixels, np.zeros(pixels.shape[:2], np.uint8))
        return predict(network, fed(sample, checkpoint.input), normalise)

    return segment


def _table(scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    grid = Table("pooling", "real pages, mean F, %", "drawn pages, mean IoU, %", "runs")
    for pooling, runs in scores.items():
        columns = [[run[name] for run in runs] for name in ("real mean F", "drawn mean IoU")]
        grid.add_row(pooling, *map(_spread, columns), str(len(runs)))
    return grid


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


if __name__ == "__main__":
    typer.run(main)
