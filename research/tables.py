"""``python -m research table``: run or resume the experiments of one of the paper's tables."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ppool.models import Checkpoint
from ppool.provenance import provenance
from ppool.training.compare import Records, run_all
from ppool.training.dataset import HELD_OUT_SEED, SegmentationDataset
from ppool.training.datasets import open_dataset
from ppool.training.recipe import Recipe
from ppool.training.train import Runtime, train
from research.experiments import EXPERIMENTS, PRETRAINING, Column, Experiment, recipe_of
from research.fineshapes import FineShapes, FineShapesObjects
from research.memory import InMemory, Kept
from research.report import Grid, grids

__all__ = ["Sizes", "Sources", "run_table"]

SCENE = 128
OBJECT = 64

_PUBLISHED = {
    "vgg16": ("vgg16*.pth", "torchvision's VGG16_Weights.IMAGENET1K_V1"),
    "deeplab_largefov": ("vgg16*.pth", "torchvision's VGG16_Weights.IMAGENET1K_V1"),
    "resnet50": ("resnet50*.pth", "torchvision's ResNet50_Weights.IMAGENET1K_V1"),
    "fcn8s_inceptionv2": ("bn_inception*.pth", "Cadene's bninception"),
    "deeplabv3_xception": ("xception*.pth", "Cadene's or timm's (legacy_)xception"),
}
_UNPACK = {
    "voc": "PASCAL VOC 2012 as VOCdevkit/VOC2012 and SBD as benchmark_RELEASE",
    "cityscapes": "Cityscapes as leftImg8bit and gtFine",
    "ade20k": "ADE20K SceneParsing as ADEChallengeData2016",
}


@dataclass(frozen=True)
class Sources:
    """Where a table's inputs are: the data sets' parent folder and that of published weights."""

    data: Path | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class Sizes:
    """How much of an experiment to run; ``None`` and empty are the experiment's own.

    Attributes:
        seeds: Runs a row.
        datasets: Data sets to keep.
        networks: Networks in place of the table's own.
        rows: Rows to keep.
        changes: Settings to replace, for :meth:`ppool.training.recipe.Recipe.changed`.
        pretraining: Iterations of a small network's classification.
        scenes: FineShapes scenes to train on; a quarter as many are held out.
        objects: Drawn objects to classify; a twentieth as many are held out.
    """

    seeds: int | None = None
    datasets: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    pretraining: int = PRETRAINING.iterations
    scenes: int = 2000
    objects: int = 12_000


def run_table(
    name: str, sources: Sources, sizes: Sizes, output: Path, runtime: Runtime
) -> list[Grid]:
    """Run what is missing of a table and write ``table-<name>.json`` and ``.md``.

    Runs are kept as ``output/<data set>-<network>/<row>-<seed>``, so tables share them.

    Raises:
        ValueError: if the name, a column or a row is unknown, or data or weights are missing; the
            message says what to get and where to put it.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"table: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    experiment = _selected(EXPERIMENTS[name], sizes)
    seeds = range(experiment.seeds if sizes.seeds is None else sizes.seeds)
    recipes = {column: _recipes(experiment, column, sizes) for column in experiment.columns}
    data = {dataset: _data(dataset, sources, sizes) for dataset, _ in experiment.columns}
    for column, rows in recipes.items():
        weights = str(_weights(column[1], sources, sizes, output, runtime))
        recipes[column] = {row: replace(recipe, weights=weights) for row, recipe in rows.items()}
    results: dict[Column, Records] = {
        column: {row: [] for row in rows} for column, rows in recipes.items()
    }
    # Seed by seed over all columns: a table cut short is whole for the seeds it has.
    for seed in seeds:
        for column, rows in recipes.items():
            folder = output / "-".join(column)
            for row, records in run_all(rows, [seed], data[column[0]], folder, runtime).items():
                results[column][row] += records
    return _published(name, experiment, results, output)


def _published(
    name: str, experiment: Experiment, results: dict[Column, Records], output: Path
) -> list[Grid]:
    found = grids(experiment, results)
    document = {
        "command": " ".join(["python -m research", *sys.argv[1:]]),
        "title": experiment.title,
        "paper": _joined(experiment.paper.get("mean_iou", {})),
        "notes": experiment.notes,
        "pretraining": _pretraining_records(experiment, output),
        "recipes": _joined({column: _recipes_of(rows) for column, rows in results.items()}),
        "results": _joined({column: _runs_of(rows) for column, rows in results.items()}),
        **provenance(),
    }
    (output / f"table-{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    text = [grid.markdown() for grid in found] + [f"- {note}" for note in experiment.notes]
    (output / f"table-{name}.md").write_text("\n".join(text) + "\n")
    return found


def _recipes_of(rows: Records) -> dict[str, Any]:
    """The settings of each row, which its runs share but for the seed."""
    return {row: {**runs[0]["recipe"], "seed": None} for row, runs in rows.items()}


def _runs_of(rows: Records) -> dict[str, Any]:
    """What is each run's own."""
    kept = ("seconds", "held_out", "alpha_maps", "commit")
    return {
        row: [
            {"recipe": {"seed": run["recipe"]["seed"]}} | {k: run[k] for k in kept} for run in runs
        ]
        for row, runs in rows.items()
    }


def _pretraining_records(experiment: Experiment, output: Path) -> dict[str, Any]:
    paths = {n: output / f"pretraining-{n}" / "checkpoint.pt" for _, n in experiment.columns}
    return {n: dict(Checkpoint.load(path).training) for n, path in paths.items() if path.exists()}


def _joined(columns: Any) -> dict[str, Any]:
    return {"/".join(column): entry for column, entry in columns.items()}


def _selected(experiment: Experiment, sizes: Sizes) -> Experiment:
    """The experiment with the columns and rows that are asked for."""
    own = tuple(dict.fromkeys(dataset for dataset, _ in experiment.columns))
    for kind, wanted, known in (
        ("dataset", sizes.datasets, own),
        ("pooling", sizes.rows, experiment.rows),
    ):
        if not set(wanted) <= set(known):
            raise ValueError(f"--{kind}: expected some of {', '.join(known)}; got {wanted!r}")
    datasets = sizes.datasets or own
    columns = tuple(column for column in experiment.columns if column[0] in datasets)
    if sizes.networks:
        columns = tuple((dataset, name) for dataset in datasets for name in sizes.networks)
    return replace(experiment, columns=columns, rows=sizes.rows or experiment.rows)


def _recipes(experiment: Experiment, column: Column, sizes: Sizes) -> dict[str, Recipe]:
    found = {row: recipe_of(column[1], row) for row in experiment.rows}
    return {
        row: replace(recipe.changed(sizes.changes), dataset=column[0])
        for row, recipe in found.items()
        if recipe
    }


def _data(
    dataset: str, sources: Sources, sizes: Sizes
) -> tuple[SegmentationDataset, SegmentationDataset]:
    if dataset == "fineshapes":
        counts = ((sizes.scenes, 0), (max(sizes.scenes // 4, 1), HELD_OUT_SEED))
        training, held_out = (
            Kept(FineShapes(count, seed=seed, height=SCENE, width=SCENE)) for count, seed in counts
        )
        return training, held_out
    if sources.data is None:
        raise ValueError(
            f"--data: this table needs {dataset}; download it, unpack {_UNPACK[dataset]} under one "
            "folder and name that folder"
        )
    name = "voc-aug" if dataset == "voc" else dataset
    return open_dataset(name, sources.data, "train"), open_dataset(dataset, sources.data, "val")


def _weights(network: str, sources: Sources, sizes: Sizes, output: Path, runtime: Runtime) -> Path:
    """A published file of classification weights, or our own of a small network."""
    if network not in _PUBLISHED:
        return _pretrained(network, sizes, output, runtime)
    pattern, what = _PUBLISHED[network]
    found = sorted(sources.weights.glob(pattern)) if sources.weights is not None else []
    if not found:
        raise ValueError(
            f"--weights: {network} starts from {what}; download it and name the folder that holds "
            f"{pattern}, got {str(sources.weights) if sources.weights else 'none'}"
        )
    return found[0]


def _pretrained(network: str, sizes: Sizes, output: Path, runtime: Runtime) -> Path:
    """Classify drawn objects with max pooling; keep all weights but the classifier's."""
    folder = output / f"pretraining-{network}"
    weights = folder / "weights.pt"
    recipe = replace(PRETRAINING, network=network, iterations=sizes.pretraining)
    if not (folder / "checkpoint.pt").exists():
        held_out = max(sizes.objects // 20, 1)
        training, known = (
            InMemory.of_objects(FineShapesObjects(count, seed=seed, size=OBJECT))
            for count, seed in ((sizes.objects, 0), (held_out, HELD_OUT_SEED))
        )
        train(recipe, training, known, folder, runtime=runtime)
    checkpoint = Checkpoint.load(folder / "checkpoint.pt")
    trunk = {k: v for k, v in checkpoint.state_dict.items() if not k.startswith("score.")}
    torch.save(trunk, weights)
    return weights
