"""DRIVE: vessels of the retina, counted inside the camera's field of view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE, Sample
from ppool.training.datasets.files import FilePairs, beside, find_folder, pictures, read_mask

__all__ = ["DRIVE_CLASSES", "drive"]

DRIVE_CLASSES = (LabelClass(0, "background", "#000000"), LabelClass(1, "vessel", "#ff4040"))
# GIF and PNG have the vessels as 255, or as the second of two colours.
_IDS = {0: 0, 1: 1, 255: 1}
_CURE = "unpack DRIVE's training.zip and test.zip, so that DRIVE/training lies in the data folder"
# The last fifth of the training images is held out for choosing settings.
_HELD_OUT = 4


class _Eyes(FilePairs):
    """Photographs whose labels count inside a mask only.

    Args:
        pairs: paths of an image and its labels.
        views: paths of the masks, 0 outside.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], views: Sequence[Path]) -> None:
        super().__init__(pairs, DRIVE_CLASSES, _IDS)
        self._views = tuple(views)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a sample is read from."""
        return (*super().files, *self._views)

    def __getitem__(self, index: int) -> Sample:
        sample, path = super().__getitem__(index), self._views[index]
        view = read_mask(path)
        if view.shape != sample.mask.shape:
            raise ValueError(
                f"{path}: expected the size of {self.pairs[index][0].name}, got "
                f"{view.shape[1]} x {view.shape[0]} pixels; restore both from the archive"
            )
        sample.mask[view == 0] = IGNORE
        return sample


def drive(root: Path, split: str) -> FilePairs:
    """DRIVE's 20 training and 20 test photographs, 565 x 584, labelled by the first observer.

    Args:
        root: the folder that holds ``DRIVE`` or ``drive``, or is it, with ``training`` and ``test``
            in it, each with ``images``, ``1st_manual`` and ``mask``.
        split: ``train`` (the first 16), ``val`` (the other 4), ``trainval`` or ``test``.

    Raises:
        FileNotFoundError: if a file of the split is missing.
        ValueError: if the split is unknown.
    """
    if split not in {"train", "val", "trainval", "test"}:
        raise ValueError(f"drive split: expected train, val, trainval or test, got {split!r}")
    root = find_folder(root, ("DRIVE", "drive"), "training")
    folder = root / "training"
    if split == "test":
        folder = root / ("testing" if (root / "testing").is_dir() else "test")
    images = pictures(folder / "images", _CURE)
    if split in {"train", "val"}:
        images = images[:-_HELD_OUT] if split == "train" else images[-_HELD_OUT:]
    numbers = [image.name.partition("_")[0] for image in images]
    labels = [beside(folder / "1st_manual", f"{number}_manual1", _CURE) for number in numbers]
    views = [beside(folder / "mask", f"{image.stem}_mask", _CURE) for image in images]
    return _Eyes(list(zip(images, labels, strict=True)), views)
