"""CamVid with the 11 classes and the split that most papers use (SegNet's tutorial)."""

from __future__ import annotations

from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import FilePairs, find_folder, pictures

__all__ = ["CAMVID_CLASSES", "camvid"]

# The order of SegNet's annotation files and the colours of its legend.
_TABLE = (
    ("sky", "#808080"),
    ("building", "#800000"),
    ("pole", "#c0c080"),
    ("road", "#804080"),
    ("pavement", "#3c28de"),
    ("tree", "#808000"),
    ("sign", "#c08080"),
    ("fence", "#404080"),
    ("car", "#400080"),
    ("pedestrian", "#404000"),
    ("bicyclist", "#0080c0"),
)
CAMVID_CLASSES = tuple(LabelClass(index, *entry) for index, entry in enumerate(_TABLE))
_VOID = len(_TABLE)
_IDS = {index: index for index in range(_VOID)} | {_VOID: IGNORE}
_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}


def camvid(root: Path, split: str) -> FilePairs:
    """CamVid at 480 x 360: 367 photographs in ``train``, 101 in ``val``, 233 in ``test``.

    ``val`` is one sequence, unlike the others. Value 11 of the annotations, void, is not counted.

    Args:
        root: the folder that holds ``CamVid`` or ``camvid``, or is it, with ``train``,
            ``trainannot`` and so on in it.
        split: ``train``, ``val``, ``trainval`` or ``test``.

    Raises:
        FileNotFoundError: if the split holds no images.
        ValueError: if the split is unknown.
    """
    if split not in _PARTS:
        raise ValueError(f"camvid split: expected {', '.join(_PARTS)}, got {split!r}")
    folder = find_folder(root, ("CamVid", "camvid"), "trainannot")
    pairs = [
        (image, folder / f"{part}annot" / f"{image.stem}.png")
        for part in _PARTS[split]
        for image in pictures(
            folder / part,
            "unpack SegNet's tutorial, so that CamVid/train and CamVid/trainannot lie in the data "
            "folder",
        )
    ]
    return FilePairs(pairs, CAMVID_CLASSES, _IDS)
