"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

from training.dataset import SegmentationDataset
from training.fineshapes import FineShapes

__all__ = ["DATASETS", "open_dataset"]


def _fineshapes(root: Path | None, split: str) -> SegmentationDataset:
    """The standard FineShapes: 2,000 scenes to train on and 500 to validate, 128 x 128."""
    del root
    # Far apart, so that no scene of one split is ever one of the other's.
    seeds = {"train": (2000, 0), "val": (500, 1 << 40)}
    if split not in seeds:
        raise ValueError(f"fineshapes split: expected train or val, got {split!r}")
    count, seed = seeds[split]
    return FineShapes(count, seed=seed, height=128, width=128)


DATASETS = {"fineshapes": _fineshapes}


def open_dataset(name: str, root: Path | None, split: str) -> SegmentationDataset:
    """Open a data set.

    Args:
        name: one of :data:`DATASETS`.
        root: its folder; ``fineshapes`` is drawn and needs none.
        split: ``train`` or ``val``; each data set names its own in the error for a wrong one.

    Raises:
        ValueError: if the name or the split is unknown.
    """
    if name not in DATASETS:
        raise ValueError(f"data set: expected one of {', '.join(DATASETS)}; got {name!r}")
    return DATASETS[name](root, split)
