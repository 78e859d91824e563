"""The drawn data sets under their names, and how each is held while it is trained on."""

from __future__ import annotations

from pathlib import Path

from ppool.training.dataset import HELD_OUT_SEED, SegmentationDataset
from research.fineshapes import FineShapes
from research.memory import Kept
from research.pages import PageDataset

__all__ = ["fineshapes", "pages"]


def fineshapes(_: Path | None, split: str) -> SegmentationDataset:
    """The standard FineShapes: 2,000 scenes to train on and 500 to validate, 128 x 128.

    Kept in memory, for crops are cut from it again and again.
    """
    seeds = {"train": (2000, 0), "val": (500, HELD_OUT_SEED)}
    if split not in seeds:
        raise ValueError(f"fineshapes split: expected train or val, got {split!r}")
    count, seed = seeds[split]
    return Kept(FineShapes(count, seed=seed, height=128, width=128))


def pages(root: Path | None, split: str) -> SegmentationDataset:
    """What ``python -m research pages`` wrote, held in memory."""
    if root is None:
        raise ValueError("--data: expected the folder that `research pages` wrote, got none")
    return Kept(PageDataset(root / split))
