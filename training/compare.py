"""Several recipes with several seeds on the same data, as one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from ppool.training.atomic import write_whole
from ppool.training.dataset import SegmentationDataset
from ppool.training.recipe import Recipe
from ppool.training.train import Runtime, train

__all__ = ["Records", "compare", "per_cent", "run_all", "table"]

Records = dict[str, list[Mapping[str, Any]]]
"""For each recipe's name the training record of every seed."""


def run_all(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    data: tuple[SegmentationDataset, SegmentationDataset],
    output: Path,
    runtime: Runtime | None = None,
) -> Records:
    """Train every (recipe, seed), resuming what is begun and skipping what is done.

    Args:
        recipes: Settings by name; their seeds are not used.
        seeds: One run a seed.
        data: Images to train on and held-out images.
        output: Folder that holds one folder a run, ``<name>-<seed>``.
        runtime: How to run.

    """
    results: Records = {name: [] for name in recipes}
    for seed in seeds:
        for name, recipe in recipes.items():
            run = replace(recipe, seed=seed)
            checkpoint = train(run, *data, output / f"{name}-{seed}", runtime=runtime)
            results[name].append(checkpoint.training)
    return results


def compare(
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    data: tuple[SegmentationDataset, SegmentationDataset],
    output: Path,
    runtime: Runtime | None = None,
) -> Records:
    """As :func:`run_all`, and write the records to ``output/results.json``."""
    results = run_all(recipes, seeds, data, output, runtime)
    write_whole(output / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Held-out IoU in per cent for each class: mean and standard deviation over seeds."""
    runs = next(iter(results.values()))
    columns = [f"{name} ({len(records)} seeds)" for name, records in results.items()]
    grid = Table("class", *columns, title="IoU on held-out images, %")
    for name in runs[0]["held_out"]["iou"]:
        cells = (per_cent([r["held_out"]["iou"][name] for r in runs]) for runs in results.values())
        grid.add_row(name, *cells)
    grid.add_section()
    for name, key in (
        ("mean IoU", "mean_iou"),
        ("mean IoU along boundaries", "boundary_iou"),
        ("pixel accuracy", "pixel_accuracy"),
    ):
        grid.add_row(
            name, *(per_cent([r["held_out"][key] for r in runs]) for runs in results.values())
        )
    return grid


def per_cent(values: Sequence[float | None], *, sign: str = "") -> str:
    """Mean and standard deviation of shares, in per cent; ``-`` if there is none."""
    found = [100 * value for value in values if value is not None]
    if not found:
        return "-"
    spread = f" ± {stdev(found):.1f}" if len(found) > 1 else ""
    return f"{mean(found):{sign}.1f}{spread}"
