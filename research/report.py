"""Our results beside the paper's, as tables for the terminal, for a README and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.table import Table

from ppool.training.compare import Records, per_cent
from research.experiments import Column, Experiment
from research.fineshapes import DETAIL_CLASSES, FINE_SHAPES_CLASSES
from research.paper import ROW_NAMES

__all__ = ["Grid", "grids"]

MEASURES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "detail_iou": "mean IoU of thin classes",
    "boundary_iou": "mean IoU along boundaries",
}
DRAWN = ("mean_iou", "detail_iou", "boundary_iou")
_DETAIL = tuple(FINE_SHAPES_CLASSES[index].name for index in DETAIL_CLASSES)


@dataclass(frozen=True)
class Grid:
    """One table of text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(*self.header, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a file."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"**{self.title}**\n\n{body}\n"


def grids(experiment: Experiment, results: Mapping[Column, Records]) -> list[Grid]:
    """All tables of an experiment: its measures, and for FineShapes the classes and alphas.

    Args:
        experiment: What was run.
        results: By column the records of every row.
    """
    drawn = not experiment.paper
    measures = DRAWN if drawn else tuple(experiment.paper)
    found = [_measure(experiment, results, measure) for measure in measures]
    if drawn:
        found += [_gains(column, records) for column, records in results.items()]
    found += [_alphas(column, records) for column, records in results.items()]
    return [grid for grid in found if grid.rows]


def value(record: Mapping[str, Any], measure: str) -> float | None:
    """One measure of one run, as a share."""
    held_out = record["held_out"]
    if measure == "detail_iou":
        return fmean(held_out["iou"][name] or 0.0 for name in _DETAIL)
    found: float | None = held_out[measure]
    return found


def _values(records: Sequence[Mapping[str, Any]], measure: str) -> list[float | None]:
    return [value(record, measure) for record in records]


def _row_name(row: str) -> str:
    return ROW_NAMES.get(row, f"P-pooling at {row} only")


def _measure(experiment: Experiment, results: Mapping[Column, Records], measure: str) -> Grid:
    printed = experiment.paper.get(measure, {})
    header = ["pooling"]
    for column, records in results.items():
        seeds = max(map(len, records.values()))
        header.append(f"{' / '.join(column)} ({seeds} {'seed' if seeds == 1 else 'seeds'})")
        if column in printed:
            header.append("paper")
    rows = []
    for row in experiment.rows:
        cells = [_row_name(row)]
        for column, records in results.items():
            cells.append(per_cent(_values(records[row], measure)) if row in records else "-")
            if column in printed:
                theirs = printed[column].get(row)
                cells.append("-" if theirs is None else f"{theirs:g}")
        if set(cells[1:]) != {"-"}:
            rows.append(tuple(cells))
    return Grid(f"{MEASURES[measure]}, %", tuple(header), tuple(rows))


def _gains(column: Column, records: Records) -> Grid:
    """Gain over max pooling with the same seed, by class, for poolings at all stages."""
    others = [row for row in records if row in ROW_NAMES and row != "max"]
    if "max" not in records or not others:
        return Grid("", (), ())
    rows = []
    for label in (*(entry.name for entry in FINE_SHAPES_CLASSES), *DRAWN):
        cells = [MEASURES.get(label, label)]
        for row in others:
            pairs = zip(_of(records[row], label), _of(records["max"], label), strict=True)
            gains = [a - b for a, b in pairs if a is not None and b is not None]
            cells.append(per_cent(gains, sign="+"))
        rows.append(tuple(cells))
    header = ("class", *(_row_name(row) for row in others))
    return Grid(f"{' / '.join(column)}: gain over max pooling, points of IoU", header, tuple(rows))


def _of(records: Sequence[Mapping[str, Any]], label: str) -> list[float | None]:
    if label in MEASURES:
        return _values(records, label)
    return [record["held_out"]["iou"][label] for record in records]


def _alphas(column: Column, records: Records) -> Grid:
    """Mean of alpha on held-out images, and the range of its channels' means, over seeds."""
    rows = []
    for row, runs in records.items():
        for stage in runs[0]["alpha_maps"]:
            maps = [run["alpha_maps"][stage] for run in runs]
            mean, low, high = (
                fmean(entry[key] for entry in maps)
                for key in ("mean", "lowest_channel", "highest_channel")
            )
            rows.append((_row_name(row), stage, f"{mean:.2f}", f"{low:.2f} to {high:.2f}"))
    header = ("pooling", "stage", "mean alpha", "means of channels")
    return Grid(f"{' / '.join(column)}: where alpha ended", header, tuple(rows))
