"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ppool.training.dataset import SegmentationDataset
from ppool.training.datasets.ade20k import ade20k
from ppool.training.datasets.binarised import dibco
from ppool.training.datasets.camvid import camvid
from ppool.training.datasets.cityscapes import cityscapes
from ppool.training.datasets.drive import drive
from ppool.training.datasets.em import em
from ppool.training.datasets.folder import folder
from ppool.training.datasets.pascal_voc import voc, voc_aug

__all__ = ["DATASETS", "open_dataset"]


Opener = Callable[[Path | None, str], SegmentationDataset]


def _on_disk(name: str, opener: Callable[[Path, str], SegmentationDataset]) -> Opener:
    def opened(root: Path | None, split: str) -> SegmentationDataset:
        if root is None:
            raise ValueError(f"{name}: expected the folder of its files; add --data FOLDER")
        return opener(root, split)

    return opened


DATASETS: dict[str, Opener] = {
    "voc": _on_disk("voc", voc),
    "voc-aug": _on_disk("voc-aug", voc_aug),
    "cityscapes": _on_disk("cityscapes", cityscapes),
    "ade20k": _on_disk("ade20k", ade20k),
    "camvid": _on_disk("camvid", camvid),
    "dibco": _on_disk("dibco", dibco),
    "drive": _on_disk("drive", drive),
    "em": _on_disk("em", em),
    "folder": _on_disk("folder", folder),
}
"""Name to a function of folder and split; others, such as drawn ones, are added under theirs."""


def open_dataset(name: str, root: Path | None, split: str) -> SegmentationDataset:
    """Open a data set; of one on disk, only the names of its files are read now.

    Args:
        name: one of :data:`DATASETS`.
        root: the folder its archives were unpacked in; what is drawn needs none.
        split: ``train`` or ``val``; ``voc``, ``camvid``, ``dibco``, ``drive`` and ``em`` have
            ``trainval`` too, and the last four ``test``.

    Raises:
        FileNotFoundError: if the folder does not hold the data set.
        ValueError: if the name or the split is unknown.
    """
    if name not in DATASETS:
        raise ValueError(f"data set: expected one of {', '.join(DATASETS)}; got {name!r}")
    return DATASETS[name](root, split)
