"""The paper's claim on real photographs: arms, how they are tuned, and what is frozen.

benchmarks/real/PROTOCOL.md says why. Everything that decides a result is here or in
``benchmarks/real/frozen.json``, which :func:`freeze` writes from the tuning runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ppool.training.atomic import write_whole
from ppool.training.recipe import PHOTOGRAPHS, Recipe

__all__ = [
    "ARMS",
    "FROZEN",
    "PUBLISHED",
    "THIN",
    "TUNING",
    "chosen_settings",
    "freeze",
    "frozen_recipe",
    "tuning_recipe",
]

FROZEN = Path(__file__).parents[1] / "benchmarks" / "real" / "frozen.json"

THIN = {"camvid": ("pole", "sign", "fence", "pedestrian", "bicyclist")}
"""Classes that were named thin before any run."""

PUBLISHED = {("camvid", "squeezenet_fcn"): 55, ("camvid", "vgg16"): 58}
"""Mean IoU in per cent that a baseline of max pooling should be near; tables say if it is not."""

CAMVID = replace(
    PHOTOGRAPHS,
    dataset="camvid",
    pooling="max",
    iterations=400,
    alpha_init=None,
    offset_scale=None,
    bias_learning_rate_scale=None,
)
"""What all runs share: a tuning run; the others are longer."""

FINAL_ITERATIONS = PHOTOGRAPHS.iterations

Changes = Mapping[str, Any]


TUNING: Mapping[str, tuple[Changes, ...]] = {
    # What max pooling chooses is where the others start from.
    "max": ({"learning_rate": 6e-4}, {"learning_rate": 1.2e-3}),
    "gated": ({"ppool_place": "after_relu"}, {"ppool_place": "before_relu"}),
    "ppool": tuple(
        {**form, "bias_learning_rate_scale": 100.0}
        for form in (
            {"ppool_place": "before_relu", "alpha_init": 5.0},
            {"ppool_place": "before_relu", "alpha_init": 10.0},
            {"ppool_place": "after_relu", "alpha_init": 1.0, "offset_scale": 1.0},
            {"ppool_place": "after_relu", "alpha_init": 2.0, "offset_scale": 1.0},
            {"ppool_place": "after_relu", "alpha_init": 1.0, "offset_scale": 3.0},
        )
    ),
}
"""Settings of every pooling, one seed each, on train, scored on val."""


@dataclass(frozen=True)
class Arm:
    """One row of the test's table.

    Attributes:
        title: As printed.
        pooling: Whose frozen settings it has.
        first: The arm whose weights of the same seed it goes on from, for as long again.
        changes: Settings in place of the frozen ones.
    """

    title: str
    pooling: str
    first: str | None = None
    changes: Changes | None = None


ARMS: Mapping[str, Arm] = {
    "max": Arm("Max", "max"),
    "gated": Arm("Gated", "gated"),
    "average": Arm("Average", "max", changes={"pooling": "average"}),
    "ppool": Arm("P-pooling, frozen", "ppool"),
    "ppool_paper": Arm(
        "P-pooling as the paper sets it",
        "ppool",
        changes={
            "ppool_place": "after_relu",
            "alpha_init": 20.0,
            "offset_scale": None,
            "bias_learning_rate_scale": None,
            "branch_learning_rate_scale": 3.0,
        },
    ),
    "max_twice": Arm("Max, then max again", "max", first="max"),
    "max_ppool": Arm("Max, then P-pooling", "ppool", first="max"),
}


def chosen_settings() -> dict[str, Changes]:
    """What is frozen so far, by pooling."""
    if not FROZEN.is_file():
        return {}
    found: dict[str, Changes] = json.loads(FROZEN.read_text("utf-8"))["chosen"]
    return found


def tuning_recipe(row: str) -> Recipe | None:
    """The recipe of a tuning run, ``<pooling>-<number>``; None until max pooling's are frozen."""
    pooling, _, number = row.rpartition("-")
    shared = {} if pooling == "max" else chosen_settings().get("max")
    if shared is None:
        return None
    return replace(CAMVID, pooling=pooling, **{**shared, **TUNING[pooling][int(number)]})


def frozen_recipe(row: str, network: str, dataset: str) -> Recipe:
    """The recipe of one arm with the frozen settings, on any of the data sets.

    Raises:
        ValueError: if not everything is frozen yet.
    """
    arm, chosen = ARMS[row], chosen_settings()
    if set(chosen) != set(TUNING):
        raise ValueError(
            f"{FROZEN}: expected the settings of {', '.join(TUNING)}, got "
            f"{', '.join(chosen) or 'none'}; run the table camvid-tuning and `python -m research "
            "freeze` until all are there: nothing is scored on test before"
        )
    settings = {**chosen["max"], **chosen[arm.pooling], **(arm.changes or {})}
    return replace(
        CAMVID,
        dataset=dataset,
        network=network,
        iterations=FINAL_ITERATIONS,
        **{"pooling": arm.pooling, **settings},
    )


def freeze(table: Path, seeds: int = 1) -> dict[str, Changes]:
    """Choose, for each pooling, the setting with the best mean IoU on val, and write it down.

    Max pooling's are chosen first, for the others start from them: a pooling is chosen once all its
    settings have been run, and never again.

    Args:
        table: ``table-camvid-tuning.json``.
        seeds: How many runs every setting must have.

    Returns:
        What was chosen now. :data:`FROZEN` has it with every score that it was chosen from.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no pooling to choose for; the message says what is missing.
    """
    (results,) = json.loads(table.read_text("utf-8"))["results"].values()
    document: dict[str, Any] = {"chosen": {}, "scores": {}}
    if FROZEN.is_file():
        document = json.loads(FROZEN.read_text("utf-8"))
    now: dict[str, Changes] = {}
    missing: list[str] = []
    for pooling, settings in TUNING.items():
        if pooling in document["chosen"]:
            continue
        rows = [f"{pooling}-{number}" for number in range(len(settings))]
        runs = {row: results.get(row, []) for row in rows}
        scores = {row: [run["held_out"]["mean_iou"] for run in runs[row]] for row in rows}
        lacking = [f"{row} ({len(scores[row])})" for row in rows if len(scores[row]) != seeds]
        if lacking:
            missing += lacking
            continue
        best = max(rows, key=lambda row: fmean(scores[row]))
        now[pooling] = settings[rows.index(best)]
        document["chosen"][pooling] = dict(now[pooling])
        document["scores"] |= scores
    if not now:
        why = f"expected {seeds} runs of {', '.join(missing)}" if missing else "all are frozen"
        raise ValueError(f"{table}: nothing to freeze; {why}")
    FROZEN.parent.mkdir(parents=True, exist_ok=True)
    write_whole(FROZEN, json.dumps(document, indent=2) + "\n")
    return now
