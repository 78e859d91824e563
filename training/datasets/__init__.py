"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ppool.training.dataset import HELD_OUT_SEED, SegmentationDataset
from ppool.training.datasets.ade20k import ade20k
from ppool.training.datasets.cityscapes import cityscapes
from ppool.training.datasets.pascal_voc import voc, voc_aug
from ppool.training.datasets.write import LAYOUTS, Plan, write_fineshapes
from ppool.training.fineshapes import FineShapes

__all__ = ["DATASETS", "LAYOUTS", "Plan", "open_dataset", "write_fineshapes"]


def _fineshapes(split: str) -> SegmentationDataset:
    """The standard FineShapes: 2,000 scenes to train on and 500 to validate, 128 x 128."""
    seeds = {"train": (2000, 0), "val": (500, HELD_OUT_SEED)}
    if split not in seeds:
        raise ValueError(f"fineshapes split: expected train or val, got {split!r}")
    count, seed = seeds[split]
    return FineShapes(count, seed=seed, height=128, width=128)


_ON_DISK: dict[str, Callable[[Path, str], SegmentationDataset]] = {
    "voc": voc,
    "voc-aug": voc_aug,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
}
DATASETS = ("fineshapes", *_ON_DISK)


def open_dataset(name: str, root: Path | None, split: str) -> SegmentationDataset:
    """Open a data set; of one on disk, only the names of its files are read now.

    Args:
        name: one of :data:`DATASETS`.
        root: the folder its archives were unpacked in; ``fineshapes`` is drawn and needs none.
        split: ``train`` or ``val``; ``voc`` has ``trainval`` too.

    Raises:
        FileNotFoundError: if the folder does not hold the data set.
        ValueError: if the name or the split is unknown.
    """
    if name == "fineshapes":
        return _fineshapes(split)
    if name not in _ON_DISK:
        raise ValueError(f"data set: expected one of {', '.join(DATASETS)}; got {name!r}")
    if root is None:
        raise ValueError(f"{name}: expected the folder its archives were unpacked in, got None")
    return _ON_DISK[name](root, split)
