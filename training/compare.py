"""The same network, data and recipe with several poolings and seeds, as one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from training.pages import Page
from training.recipe import Recipe
from training.train import train

__all__ = ["compare", "table"]


def compare(
    recipe: Recipe,
    poolings: Sequence[str],
    seeds: Sequence[int],
    data: tuple[Sequence[Page], Sequence[Page]],
    output: Path,
) -> dict[str, list[Mapping[str, Any]]]:
    """Train every (pooling, seed), resuming what is begun and skipping what is done.

    Args:
        recipe: Settings all runs share.
        poolings: Names of :func:`models.list_poolings`.
        seeds: One run a seed.
        data: Training pages and held-out pages.
        output: Folder that holds one folder a run, ``<pooling>-<seed>``.

    Returns:
        For each pooling the training record of every run; also written to
        ``output/results.json``.
    """
    results: dict[str, list[Mapping[str, Any]]] = {pooling: [] for pooling in poolings}
    for seed in seeds:
        for pooling in poolings:
            run = replace(recipe, pooling=pooling, seed=seed)
            checkpoint = train(run, *data, output / f"{pooling}-{seed}")
            results[pooling].append(checkpoint.training)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Held-out IoU in per cent for each class: mean and standard deviation over seeds."""
    runs = next(iter(results.values()))
    columns = [f"{pooling} ({len(records)} seeds)" for pooling, records in results.items()]
    grid = Table("class", *columns, title="IoU on held-out drawn pages, %")
    for name in runs[0]["held_out"]["iou"]:
        cells = (_cell([r["held_out"]["iou"][name] for r in runs]) for runs in results.values())
        grid.add_row(name, *cells)
    grid.add_section()
    for name, key in (("mean IoU", "mean_iou"), ("pixel accuracy", "pixel_accuracy")):
        grid.add_row(
            name, *(_cell([r["held_out"][key] for r in runs]) for runs in results.values())
        )
    return grid


def _cell(values: Sequence[float | None]) -> str:
    found = [100 * value for value in values if value is not None]
    if not found:
        return "-"
    spread = f" ± {stdev(found):.1f}" if len(found) > 1 else ""
    return f"{mean(found):.1f}{spread}"
