"""Figure 5: by how much each class gains when one pooling takes another's place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from research.figures.style import ALARM, GREY, INK, WIDTH, paper, save

__all__ = ["class_gains", "draw_gains"]

Records = Sequence[Mapping[str, Any]]


def class_gains(results: Mapping[str, Records], pooling: str, over: str) -> dict[str, list[float]]:
    """IoU gained by each class, in percentage points, seed by seed; largest mean first.

    Args:
        results: For each pooling, the training record of every run.
        pooling: The one that gains.
        over: The one it is compared with, run with the same seeds.

    Raises:
        ValueError: if a pooling has no runs, or the two share no seed.
    """
    for name in (pooling, over):
        if not results.get(name):
            raise ValueError(f"pooling: expected one of {', '.join(results)}, got {name!r}")
    first, second = (
        {r["recipe"]["seed"]: r["held_out"]["iou"] for r in results[name]}
        for name in (pooling, over)
    )
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError(f"seeds: expected some that {pooling} and {over} share, got none")
    gains: dict[str, list[float]] = {}
    for label in first[seeds[0]]:
        pairs = [(first[seed][label], second[seed][label]) for seed in seeds]
        found = [100 * (a - b) for a, b in pairs if a is not None and b is not None]
        if found:
            gains[label] = found
    return dict(sorted(gains.items(), key=lambda item: -mean(item[1])))


def draw_gains(results_file: Path, folder: Path, pooling: str, over: str) -> list[Path]:
    """Draw Figure 5 from a results file and return its files.

    Bars are means over seeds, whiskers standard deviations of the paired differences.

    Args:
        results_file: What ``python -m research compare`` or ``python -m research table`` wrote.
        folder: Where the figure goes.
        pooling: The pooling, or row of the table, that gains.
        over: The one it is compared with.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no results, or none of a pooling.
    """
    groups = _groups(results_file)
    gains = {title: class_gains(results, pooling, over) for title, results in groups.items()}
    most = max(map(len, gains.values()))
    with paper():
        figure = Figure(figsize=(WIDTH / 2 * len(gains), 0.5 + 0.19 * most), layout="constrained")
        panels = figure.subplots(1, len(gains), squeeze=False)[0]
        for axes, (title, by_class) in zip(panels, gains.items(), strict=True):
            names = list(by_class)
            means = [mean(values) for values in by_class.values()]
            spread = [stdev(v) if len(v) > 1 else 0.0 for v in by_class.values()]
            colours = [INK if value >= 0 else ALARM for value in means]
            whiskers = {"elinewidth": 0.7, "ecolor": GREY, "capsize": 1.5}
            axes.barh(names, means, xerr=spread, color=colours, height=0.7, error_kw=whiskers)
            axes.axvline(0, color="black", linewidth=0.6)
            axes.invert_yaxis()
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.set_xlabel(f"IoU of {pooling} minus {over}, points")
            axes.set_title(title)
        return save(figure, folder, "figure-5")


def _groups(results_file: Path) -> dict[str, Mapping[str, Records]]:
    """The runs of each pooling, for each column of a table: a data set and a network."""
    try:
        document = json.loads(results_file.read_text("utf-8"))
        results = document.get("results", document)
        if all(isinstance(runs, list) for runs in results.values()):
            network = next(iter(results.values()))[0]["recipe"]["network"]
            results = {network: results}
        if not results or not all(isinstance(runs, dict) for runs in results.values()):
            raise TypeError
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise ValueError(
            f"{results_file}: expected results that `python -m research compare` or `table` wrote"
        ) from error
    return dict(results)
