"""The experiments behind the paper's tables: what is trained on what, and the paper's result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ppool.models import list_poolings, original_pooling
from ppool.training.recipe import FINE_TUNING, Recipe
from research import paper
from research.photographs import ARMS, TUNING, frozen_recipe, tuning_recipe

__all__ = ["EXPERIMENTS", "PRETRAINING", "Column", "Experiment", "recipe_of"]

Column = tuple[str, str]
"""A data set of :func:`ppool.training.datasets.open_dataset` and a network."""


@dataclass(frozen=True)
class Experiment:
    """One table.

    Attributes:
        title: What it compares.
        columns: Data sets and networks.
        rows: Poolings; ``original``, those the published network has; or a stage, at which alone
            P-pooling takes the original's place. A network without the stage has no such row.
        paper: The paper's figures by measure, column and row.
        notes: Footnotes.
        seeds: Runs that the paper averages, or that were planned.
        measures: What is printed of our own runs, where the paper has none.
        splits: Images to train on and to score.
        recipe: The settings of a row in a column; None where the network has no such stage.
        titles: Names of rows that are not the paper's.
        after: For a row the one whose weights of the same seed it goes on from.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    paper: Mapping[str, Mapping[Column, Mapping[str, float | None]]]
    notes: tuple[str, ...] = ()
    seeds: int = 1
    measures: tuple[str, ...] = ("mean_iou", "detail_iou", "boundary_iou")
    splits: tuple[str, str] = ("train", "val")
    recipe: Callable[[Column, str], Recipe | None] = lambda column, row: recipe_of(column[1], row)
    titles: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)


def _from_paper(
    number: str, title: str, tables: Mapping[str, Mapping[Column, Mapping[str, float | None]]],
    seeds: int = 1,
) -> Experiment:  # fmt: skip
    columns = tables["mean_iou"]
    rows = tuple(next(iter(columns.values())))
    return Experiment(title, tuple(columns), rows, tables, paper.NOTES[number], seeds)


def _frozen(column: Column, row: str) -> Recipe:
    return frozen_recipe(row, column[1], column[0])


def _tuning(_: Column, row: str) -> Recipe | None:
    return tuning_recipe(row)


def _on_photographs(dataset: str, title: str, measures: tuple[str, ...]) -> Experiment:
    networks = ("squeezenet_fcn", "vgg16") if dataset == "camvid" else ("squeezenet_fcn",)
    return Experiment(
        title,
        tuple((dataset, network) for network in networks),
        tuple(ARMS),
        {},
        seeds=5,
        measures=measures,
        splits=("trainval", "test"),
        recipe=_frozen,
        titles={row: arm.title for row, arm in ARMS.items()},
        after={row: arm.first for row, arm in ARMS.items() if arm.first},
    )


STAGES = ("pool1", "pool2", "pool3", "pool4", "pool5")

EXPERIMENTS: Mapping[str, Experiment] = {
    "1": _from_paper("1", "Poolings compared (Section 4.1)", {"mean_iou": paper.TABLE_1}),
    "2": _from_paper("2", "Full networks on VOC", {"mean_iou": paper.TABLE_2}, seeds=5),
    "3": _from_paper("3", "Full networks on VOC, one run each", {"mean_iou": paper.TABLE_3}),
    "5": _from_paper("5", "Full networks on ADE20K", paper.TABLE_5),
    "6": _from_paper("6", "P-pooling at one stage only", {"mean_iou": paper.TABLE_6}),
    "fineshapes": Experiment(
        "Tables 1 and 6 with small networks on FineShapes",
        (("fineshapes", "vgg_small"), ("fineshapes", "resnet_small")),
        (*(name for name in paper.ROW_NAMES if name in list_poolings()), *STAGES),
        {},
        seeds=5,
    ),
    "camvid-tuning": Experiment(
        "Settings of every pooling, chosen on CamVid's val",
        (("camvid", "squeezenet_fcn"),),
        tuple(f"{pooling}-{n}" for pooling, found in TUNING.items() for n in range(len(found))),
        {},
        seeds=1,
        recipe=_tuning,
        titles={
            f"{pooling}-{n}": f"{pooling}: {', '.join(f'{k} {v}' for k, v in changes.items())}"
            for pooling, found in TUNING.items()
            for n, changes in enumerate(found)
        },
    ),
    "camvid": _on_photographs(
        "camvid", "Poolings on CamVid's test", ("mean_iou", "detail_iou", "boundary_iou")
    ),
    "drive": _on_photographs(
        "drive", "The same settings on DRIVE", ("f1", "auc", "mean_iou", "boundary_iou")
    ),
    "em": _on_photographs(
        "em", "The same settings on EM membranes", ("f1", "mean_iou", "boundary_iou")
    ),
    "dibco": _on_photographs(
        "dibco", "The same settings on DIBCO's pages", ("f1", "mean_iou", "boundary_iou")
    ),
}
"""By the name that ``python -m research table`` takes."""

_SMALL = replace(
    FINE_TUNING,
    batch_size=8,
    crop=96,
    loss="balanced",
    precision="bfloat16",
    iterations=400,
    optimizer="adamw",
    schedule="cosine",
    learning_rate=5e-3,
    weight_decay=1e-4,
    warmup_iterations=30,
    head_learning_rate_scale=1.0,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)

PRETRAINING = replace(
    _SMALL,
    dataset="fineshapes-objects",
    task="classification",
    pooling="max",
    loss="mean",
    learning_rate=2e-3,
    iterations=1200,
    batch_size=32,
    crop=64,
)
"""How a small network learns to classify drawn objects, with max pooling, before fine-tuning."""

# Where the paper refers to the networks' own papers, what the first author's later code sets
# (github.com/kfxw/mydev-pytorch-semantic-segmentation at c1d4aaa).
_RECIPES: Mapping[str, Recipe] = {
    "vgg16": FINE_TUNING,
    "resnet50": replace(FINE_TUNING, multiple=32),
    "deeplab_largefov": FINE_TUNING,
    "fcn8s_inceptionv2": replace(
        FINE_TUNING,
        mean=(123 / 255, 117 / 255, 104 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        multiple=32,
    ),
    "deeplabv3_xception": replace(
        FINE_TUNING,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        learning_rate=1e-7,
        schedule="poly",
        crop=504,
        batch_size=16,
        iterations=46 * 661,
    ),
    "vgg_small": _SMALL,
    "resnet_small": _SMALL,
}


def recipe_of(network: str, row: str) -> Recipe | None:
    """The settings of one row of a table, or None where the network has no such stage.

    Raises:
        ValueError: if no experiment is made with this network.
    """
    if network not in _RECIPES:
        raise ValueError(f"network: expected one of {', '.join(_RECIPES)}, got {network!r}")
    recipe = replace(_RECIPES[network], network=network)
    original = original_pooling(network)
    if row in list_poolings():
        return replace(recipe, pooling=row)
    if row == "original":
        return replace(recipe, pooling=original)
    return replace(recipe, pooling=original | {row: "ppool"}) if row in original else None
