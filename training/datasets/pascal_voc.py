"""PASCAL VOC 2012, and with SBD's extra masks the ``trainaug`` list that segmenters train on."""

from __future__ import annotations

from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import FilePairs, bit_shift_colors, read_names

__all__ = ["SBD", "VOC", "VOC_CLASSES", "trainaug", "voc", "voc_aug"]

VOC = Path("VOCdevkit") / "VOC2012"
SBD = Path("benchmark_RELEASE") / "dataset"
_LISTS = VOC / "ImageSets" / "Segmentation"

_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
VOC_CLASSES = tuple(
    LabelClass(index, name, color)
    for index, (name, color) in enumerate(zip(_NAMES, bit_shift_colors(len(_NAMES)), strict=True))
)
_IDS = {index: index for index in (*range(len(_NAMES)), IGNORE)}
_GET_VOC = "unpack VOCtrainval_11-May-2012.tar, so that VOCdevkit/VOC2012 lies in the data folder"
_GET_SBD = "unpack SBD's benchmark.tgz, so that benchmark_RELEASE/dataset lies in the data folder"


def voc(root: Path, split: str) -> FilePairs:
    """VOC 2012 alone: 1,464 images in ``train``, 1,449 in ``val``.

    Args:
        root: the folder that holds ``VOCdevkit/VOC2012``.
        split: ``train``, ``val`` or ``trainval``.

    Raises:
        FileNotFoundError: if the list of the split is missing.
        ValueError: if the split is unknown.
    """
    if split not in {"train", "val", "trainval"}:
        raise ValueError(f"voc split: expected train, val or trainval, got {split!r}")
    names = _list(root, split)
    return _pairs(
        root, [(name, root / VOC / "SegmentationClass" / f"{name}.png") for name in names]
    )


def voc_aug(root: Path, split: str) -> FilePairs:
    """VOC 2012 with SBD: 10,582 images in ``train``, VOC's own 1,449 in ``val``.

    Where ``SegmentationClassAug``, the merged folder that other projects make, lies beside
    ``SegmentationClass``, masks come from it. Otherwise an image of VOC's ``train`` list has VOC's
    mask, which is finer, and any other has SBD's, which has no 255 along outlines.

    Args:
        root: the folder that holds ``VOCdevkit/VOC2012`` and ``benchmark_RELEASE/dataset``.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: if a list is missing.
        ValueError: if the split is unknown.
    """
    if split == "val":
        return voc(root, "val")
    if split != "train":
        raise ValueError(f"voc-aug split: expected train or val, got {split!r}")
    merged = root / VOC / "SegmentationClassAug"
    if merged.is_dir():
        listed = (root / _LISTS / "trainaug.txt").is_file()
        names = _list(root, "trainaug") if listed else trainaug(root)
        return _pairs(root, [(name, merged / f"{name}.png") for name in names])
    own = {name: root / VOC / "SegmentationClass" / f"{name}.png" for name in _list(root, "train")}
    extra = root / SBD / "cls"
    names = trainaug(root)
    return _pairs(root, [(name, own.get(name, extra / f"{name}.mat")) for name in names])


def trainaug(root: Path) -> list[str]:
    """The names in (VOC train + SBD train + SBD val) - VOC val, sorted: 10,582 of the real lists.

    Raises:
        FileNotFoundError: if a list is missing.
    """
    sbd = [read_names(root / SBD / f"{split}.txt", _GET_SBD) for split in ("train", "val")]
    return sorted({*_list(root, "train"), *sbd[0], *sbd[1]} - {*_list(root, "val")})


def _list(root: Path, split: str) -> list[str]:
    return read_names(root / _LISTS / f"{split}.txt", _GET_VOC)


def _pairs(root: Path, masks: list[tuple[str, Path]]) -> FilePairs:
    images = root / VOC / "JPEGImages"
    return FilePairs([(images / f"{name}.jpg", mask) for name, mask in masks], VOC_CLASSES, _IDS)
