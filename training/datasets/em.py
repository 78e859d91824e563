"""Membranes of neurites in electron microscopy: the training half of the ISBI 2012 challenge."""

from __future__ import annotations

from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.datasets.files import FilePairs, find_folder, pictures

__all__ = ["EM_CLASSES", "em"]

EM_CLASSES = (LabelClass(0, "cell", "#e0e0e0"), LabelClass(1, "membrane", "#202080"))
_IDS = {0: 1, 255: 0}
_PARTS = {
    "train": slice(0, 20),
    "val": slice(20, 25),
    "trainval": slice(0, 25),
    "test": slice(25, 30),
}


def em(root: Path, split: str) -> FilePairs:
    """Thirty slices of one block, 512 x 512.

    Neighbouring slices look alike, so the split is by depth: 20 to train on, then 5 to validate,
    then 5 to test. The labels of the challenge's own test are not public.

    Args:
        root: the folder that holds ``em``, or is it, with ``image`` and ``label`` in it.
        split: ``train``, ``val``, ``trainval`` or ``test``.

    Raises:
        FileNotFoundError: if there are no slices.
        ValueError: if the split is unknown, or there are not thirty slices.
    """
    if split not in _PARTS:
        raise ValueError(f"em split: expected {', '.join(_PARTS)}, got {split!r}")
    folder = find_folder(root, ("em", "EM"), "label")
    images = pictures(
        folder / "image", "unpack the slices, so that em/image lies in the data folder"
    )
    images.sort(key=lambda path: (len(path.stem), path.stem))  # 2 before 10
    if len(images) != 30:
        raise ValueError(f"{folder / 'image'}: expected 30 slices, got {len(images)}")
    pairs = [(image, folder / "label" / f"{image.stem}.png") for image in images]
    return FilePairs(pairs[_PARTS[split]], EM_CLASSES, _IDS)
