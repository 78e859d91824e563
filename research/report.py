"""Our results beside the paper's, as tables for the terminal, for a README and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.table import Table
from scipy import stats

from ppool.training.compare import Records, per_cent
from research.experiments import Column, Experiment
from research.fineshapes import DETAIL_CLASSES, FINE_SHAPES_CLASSES
from research.paper import ROW_NAMES
from research.photographs import PUBLISHED, THIN

__all__ = ["MEASURES", "Grid", "gain", "grids"]

MEASURES = {
    "f1": "F1 of the class sought",
    "auc": "area under the ROC curve",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "detail_iou": "mean IoU of thin classes",
    "boundary_iou": "mean IoU along boundaries",
}
_THIN = {"fineshapes": tuple(FINE_SHAPES_CLASSES[index].name for index in DETAIL_CLASSES), **THIN}

Runs = Sequence[Mapping[str, Any]]


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
    """All tables of an experiment: its measures, what classes gain, and where alpha ended.

    Args:
        experiment: What was run.
        results: By column the records of every row.
    """
    measures = tuple(experiment.paper) or experiment.measures
    found = [_measure(experiment, results, measure) for measure in measures]
    if not experiment.paper:
        found += [_gains(experiment, column, records) for column, records in results.items()]
    found += [_alphas(experiment, column, records) for column, records in results.items()]
    return [grid for grid in found if grid.rows]


def value(record: Mapping[str, Any], measure: str, dataset: str) -> float | None:
    """One measure of one run, as a share.

    ``detail_iou`` is the mean over the classes that were named thin; ``f1`` that of the last class,
    2 IoU / (1 + IoU), of all pixels together.
    """
    held_out = record["held_out"]
    if measure == "detail_iou":
        return fmean(held_out["iou"][name] or 0.0 for name in _THIN[dataset])
    if measure == "f1":
        iou = list(held_out["iou"].values())[-1]
        return None if iou is None else 2 * iou / (1 + iou)
    found: float | None = held_out.get(measure)  # what an older run has not is left out
    return found


def _row_name(experiment: Experiment, row: str) -> str:
    return experiment.titles.get(row) or ROW_NAMES.get(row, f"P-pooling at {row} only")


def _measure(experiment: Experiment, results: Mapping[Column, Records], measure: str) -> Grid:
    printed = experiment.paper.get(measure, {})
    most = {column: max(map(len, records.values())) for column, records in results.items()}
    header = ["pooling"]
    for column, seeds in most.items():
        header.append(f"{' / '.join(column)} ({_seeds(seeds)})")
        if column in printed:
            header.append("paper")
    rows = []
    for row in experiment.rows:
        cells = [_row_name(experiment, row)]
        for column, records in results.items():
            runs = records.get(row, [])
            cell = per_cent([value(run, measure, column[0]) for run in runs])
            # Means over unlike numbers of seeds are not to be compared without saying so.
            fewer = runs and len(runs) < most[column]
            cells.append(f"{cell} ({_seeds(len(runs))})" if fewer else cell)
            if column in printed:
                theirs = printed[column].get(row)
                cells.append("-" if theirs is None else f"{theirs:g}")
        if set(cells[1:]) != {"-"}:
            rows.append(tuple(cells))
    title = f"{MEASURES[measure]}, %"
    if measure == "mean_iou":
        title += "".join(_below_level(column, records) for column, records in results.items())
    return Grid(title, tuple(header), tuple(rows))


def _below_level(column: Column, records: Records) -> str:
    """A remark, where max pooling is not near what is published for a network of its size."""
    scores = [run["held_out"]["mean_iou"] for run in records.get("max", [])]
    wanted = PUBLISHED.get(column)
    if wanted is None or not scores or 100 * fmean(scores) >= wanted:
        return ""
    return f"; max pooling is below the {wanted} of networks like {column[1]}"


def _seeds(count: int) -> str:
    return f"{count} {'seed' if count == 1 else 'seeds'}"


def _gains(experiment: Experiment, column: Column, records: Records) -> Grid:
    """Gain over max pooling with the same seed, by class, for poolings at all stages."""
    named = {**ROW_NAMES, **experiment.titles}
    others = [row for row in records if row in named and row != "max" and records[row]]
    if not records.get("max") or not others:
        return Grid("", (), ())
    classes = list(records["max"][0]["held_out"]["iou"])
    rows = []
    for label in (*classes, *experiment.measures):
        cells = [MEASURES.get(label, label)]
        cells += [gain(column[0], records[row], records["max"], label) for row in others]
        rows.append(tuple(cells))
    header = ("class", *(_row_name(experiment, row) for row in others))
    title = (
        f"{' / '.join(column)}: gain over max pooling, points; mean ± standard deviation over "
        "shared seeds [Student's 95 % interval of the mean]"
    )
    return Grid(title, header, tuple(rows))


def gain(dataset: str, runs: Runs, over: Runs, label: str) -> str:
    """What one row has over another in a class or measure, as a table's cell.

    Paired by seed; seeds that only one of the two has are left out.
    """
    ours, theirs = (
        {run["recipe"]["seed"]: _of(run, label, dataset) for run in found} for found in (runs, over)
    )
    gains = [
        a - b
        for seed in sorted(ours.keys() & theirs.keys())
        if (a := ours[seed]) is not None and (b := theirs[seed]) is not None
    ]
    cell = per_cent(gains, sign="+")
    if len(gains) < len(runs):
        cell += f" ({_seeds(len(gains))})"
    if len(gains) > 1:
        half = 100 * stats.t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
        cell += f" [{100 * fmean(gains) - half:+.1f}, {100 * fmean(gains) + half:+.1f}]"
    return cell


def _of(run: Mapping[str, Any], label: str, dataset: str) -> float | None:
    if label in MEASURES:
        return value(run, label, dataset)
    found: float | None = run["held_out"]["iou"][label]
    return found


def _alphas(experiment: Experiment, column: Column, records: Records) -> Grid:
    """Mean of alpha on held-out images, and the range of its channels' means, over seeds."""
    rows = []
    for row, runs in records.items():
        for stage in runs[0]["alpha_maps"] if runs else ():
            maps = [run["alpha_maps"][stage] for run in runs]
            mean, low, high = (
                fmean(entry[key] for entry in maps)
                for key in ("mean", "lowest_channel", "highest_channel")
            )
            name = _row_name(experiment, row)
            rows.append((name, stage, f"{mean:.2f}", f"{low:.2f} to {high:.2f}"))
    header = ("pooling", "stage", "mean alpha", "means of channels")
    return Grid(f"{' / '.join(column)}: where alpha ended", header, tuple(rows))
