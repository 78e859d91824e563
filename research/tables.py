"""``python -m research table``: run or resume the experiments of one of the paper's tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ppool.models import Checkpoint
from ppool.provenance import provenance
from ppool.training.atomic import write_whole
from ppool.training.compare import Records, run_all
from ppool.training.dataset import HELD_OUT_SEED, SegmentationDataset
from ppool.training.datasets import open_dataset
from ppool.training.recipe import Recipe
from ppool.training.train import Runtime, train
from research.experiments import EXPERIMENTS, PRETRAINING, Column, Experiment
from research.fineshapes import FineShapes, FineShapesObjects, ObjectsAsScenes
from research.memory import Kept
from research.report import Grid, grids

__all__ = ["Sizes", "Sources", "run_table"]

SCENE = 128
OBJECT = 64

_VGG16 = ("vgg16*.pth", "vgg16*.h5", "hed*.h5")
_PUBLISHED = {
    "vgg16": (_VGG16, "torchvision's VGG16_Weights.IMAGENET1K_V1, or Keras' in HDF5"),
    "deeplab_largefov": (_VGG16, "torchvision's VGG16_Weights.IMAGENET1K_V1, or Keras' in HDF5"),
    "resnet50": (("resnet50*.pth",), "torchvision's ResNet50_Weights.IMAGENET1K_V1"),
    "squeezenet_fcn": (
        ("squeezenet*.npz", "squeezenet1_0*.pth"),
        "SqueezeNet v1.0 as released, or torchvision's squeezenet1_0",
    ),
    "fcn8s_inceptionv2": (("bn_inception*.pth",), "Cadene's bninception"),
    "deeplabv3_xception": (("xception*.pth",), "Cadene's or timm's (legacy_)xception"),
}
_UNPACK = {
    "voc": "PASCAL VOC 2012 as VOCdevkit/VOC2012 and SBD as benchmark_RELEASE",
    "cityscapes": "Cityscapes as leftImg8bit and gtFine",
    "ade20k": "ADE20K SceneParsing as ADEChallengeData2016",
    "camvid": "SegNet's tutorial as CamVid",
    "drive": "DRIVE as DRIVE/training and DRIVE/test",
    "em": "the slices of ISBI 2012 as em/image and em/label",
    "dibco": "the contests' pages as dibco",
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
        finished: Train nothing; make the table of the runs that are there.
    """

    seeds: int | None = None
    datasets: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    pretraining: int = PRETRAINING.iterations
    scenes: int = 2000
    objects: int = 12_000
    finished: bool = False


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
    results: dict[Column, Records] = {
        column: {row: [] for row in rows} for column, rows in recipes.items()
    }
    if sizes.finished:
        for column, found in results.items():
            for row in found:
                runs = (output / "-".join(column) / f"{row}-{seed}" for seed in seeds)
                found[row] = [_record(run) for run in runs if (run / "checkpoint.pt").exists()]
        return _published(name, experiment, results, output)
    data = {d: _data(d, experiment.splits, sources, sizes) for d, _ in experiment.columns}
    for column, rows in recipes.items():
        weights = str(_weights(column[1], sources, sizes, output, runtime))
        recipes[column] = {row: replace(recipe, weights=weights) for row, recipe in rows.items()}
    # Seed by seed over all columns: a table cut short is whole for the seeds it has.
    for seed in seeds:
        for column, rows in recipes.items():
            folder = output / "-".join(column)
            begun = {row: _begun(experiment, row, r, folder, seed) for row, r in rows.items()}
            for row, records in run_all(begun, [seed], data[column[0]], folder, runtime).items():
                results[column][row] += records
    return _published(name, experiment, results, output)


def _begun(experiment: Experiment, row: str, recipe: Recipe, folder: Path, seed: int) -> Recipe:
    """The recipe with the weights of the row it goes on from, if it does."""
    first = experiment.after.get(row)
    if first is None:
        return recipe
    return replace(recipe, weights=str(folder / f"{first}-{seed}" / "checkpoint.pt"))


def _record(run: Path) -> Mapping[str, Any]:
    return Checkpoint.load(run / "checkpoint.pt").training


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
    write_whole(output / f"table-{name}.json", _lines(document))
    text = [grid.markdown() for grid in found] + [f"- {note}" for note in experiment.notes]
    write_whole(output / f"table-{name}.md", "\n".join(text) + "\n")
    return found


def _lines(value: Any, depth: int = 0) -> str:
    """JSON with a line for every run and every recipe, for a person and a diff to read."""
    opened = depth < 3 and isinstance(value, dict)
    if not value or not (opened or (isinstance(value, list) and isinstance(value[0], dict))):
        return json.dumps(value)
    indent = "\n" + "  " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_lines(entry, depth + 1)}" for key, entry in value.items()]
    else:
        parts = [json.dumps(entry) for entry in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    ending = "" if depth else "\n"
    return f"{opening}{indent}{f',{indent}'.join(parts)}\n{'  ' * depth}{closing}{ending}"


def _recipes_of(rows: Records) -> dict[str, Any]:
    """The settings of each row, which its runs share but for the seed."""
    return {row: {**runs[0]["recipe"], "seed": None} for row, runs in rows.items() if runs}


def _runs_of(rows: Records) -> dict[str, Any]:
    """What is each run's own, as far as a table needs it."""
    kept = ("seconds", "threads", "processor", "alpha_maps", "commit")
    scores = ("mean_iou", "boundary_iou", "pixel_accuracy", "auc", "iou")
    return {
        row: [
            {
                "recipe": {"seed": run["recipe"]["seed"]},
                "held_out": {
                    name: run["held_out"][name] for name in scores if name in run["held_out"]
                },
                **{name: run[name] for name in kept},
            }
            for run in runs
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
    found = {row: experiment.recipe(column, row) for row in experiment.rows}
    return {
        row: replace(recipe.changed(sizes.changes), dataset=column[0])
        for row, recipe in found.items()
        if recipe
    }


def _data(
    dataset: str, splits: tuple[str, str], sources: Sources, sizes: Sizes
) -> tuple[SegmentationDataset, SegmentationDataset]:
    if dataset == "fineshapes":
        counts = ((sizes.scenes, 0), (max(sizes.scenes // 4, 1), HELD_OUT_SEED))
        drawn = (Kept(FineShapes(n, seed=s, height=SCENE, width=SCENE)) for n, s in counts)
        return next(drawn), next(drawn)
    if sources.data is None:
        raise ValueError(
            f"--data: this table needs {dataset}; download it, unpack {_UNPACK[dataset]} under one "
            "folder and name that folder"
        )
    name = "voc-aug" if dataset == "voc" else dataset
    training, held_out = splits
    return open_dataset(name, sources.data, training), open_dataset(dataset, sources.data, held_out)


def _weights(network: str, sources: Sources, sizes: Sizes, output: Path, runtime: Runtime) -> Path:
    """A published file of classification weights, or our own of a small network."""
    if network not in _PUBLISHED:
        return _pretrained(network, sizes, output, runtime)
    patterns, what = _PUBLISHED[network]
    folder = sources.weights
    found = [] if folder is None else [p for pattern in patterns for p in folder.glob(pattern)]
    if not found:
        raise ValueError(
            f"--weights: {network} starts from {what}; download it and name the folder that holds "
            f"{' or '.join(patterns)}, got {str(folder) if folder else 'none'}"
        )
    return found[0]


def _pretrained(network: str, sizes: Sizes, output: Path, runtime: Runtime) -> Path:
    """Classify drawn objects with max pooling; keep all weights but the classifier's."""
    folder = output / f"pretraining-{network}"
    weights = folder / "weights.pt"
    recipe = replace(PRETRAINING, network=network, iterations=sizes.pretraining)
    held_out = max(sizes.objects // 20, 1)
    training, known = (
        Kept(ObjectsAsScenes(FineShapesObjects(count, seed=seed, size=OBJECT)))
        for count, seed in ((sizes.objects, 0), (held_out, HELD_OUT_SEED))
    )
    # Done already, it looks whether it was done with these sizes.
    checkpoint = train(recipe, training, known, folder, runtime=runtime)
    if not weights.exists():
        trunk = {k: v for k, v in checkpoint.state_dict.items() if not k.startswith("score.")}
        torch.save(trunk, weights)
    return weights
