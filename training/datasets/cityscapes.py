"""Cityscapes with the 19 classes of its benchmark."""

from __future__ import annotations

from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import FilePairs

__all__ = ["CITYSCAPES_CLASSES", "LABEL_IDS", "cityscapes"]

# Train id, label id, name and colour, as in the label table of Cityscapes' own scripts.
_TABLE = (
    (0, 7, "road", "#804080"),
    (1, 8, "sidewalk", "#f423e8"),
    (2, 11, "building", "#464646"),
    (3, 12, "wall", "#66669c"),
    (4, 13, "fence", "#be9999"),
    (5, 17, "pole", "#999999"),
    (6, 19, "traffic light", "#faaa1e"),
    (7, 20, "traffic sign", "#dcdc00"),
    (8, 21, "vegetation", "#6b8e23"),
    (9, 22, "terrain", "#98fb98"),
    (10, 23, "sky", "#4682b4"),
    (11, 24, "person", "#dc143c"),
    (12, 25, "rider", "#ff0000"),
    (13, 26, "car", "#00008e"),
    (14, 27, "truck", "#000046"),
    (15, 28, "bus", "#003c64"),
    (16, 31, "train", "#005064"),
    (17, 32, "motorcycle", "#0000e6"),
    (18, 33, "bicycle", "#770b20"),
)
CITYSCAPES_CLASSES = tuple(LabelClass(train_id, name, color) for train_id, _, name, color in _TABLE)
LABEL_IDS = tuple(label_id for _, label_id, _, _ in _TABLE)
"""The value in a ``_labelIds.png`` of each class."""

_LABEL_IDS_TO_IDS = dict.fromkeys((*range(34), IGNORE), IGNORE) | {
    label_id: train_id for train_id, label_id, _, _ in _TABLE
}
_TRAIN_IDS_TO_IDS = {index: index for index in (*range(len(_TABLE)), IGNORE)}


def cityscapes(root: Path, split: str) -> FilePairs:
    """Cityscapes' fine annotations: 2,975 images in ``train``, 500 in ``val``.

    Masks are the ``_labelIds.png`` of the archive, mapped to train ids as they are read, or, where
    the first image has one, the ``_labelTrainIds.png`` made by Cityscapes' scripts.

    Args:
        root: the folder that holds ``leftImg8bit`` and ``gtFine``.
        split: ``train`` or ``val``; the labels of ``test`` are not public.

    Raises:
        FileNotFoundError: if the split holds no images.
        ValueError: if the split is unknown.
    """
    if split not in {"train", "val"}:
        raise ValueError(f"cityscapes split: expected train or val, got {split!r}")
    folder = root / "leftImg8bit" / split
    images = sorted(folder.glob("*/*_leftImg8bit.png"))
    if not images:
        raise FileNotFoundError(
            f"{folder}: expected <city>/*_leftImg8bit.png, found none; unpack "
            "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip in the data folder"
        )
    converted = _mask(root, images[0], "labelTrainIds").is_file()
    kind = "labelTrainIds" if converted else "labelIds"
    return FilePairs(
        [(image, _mask(root, image, kind)) for image in images],
        CITYSCAPES_CLASSES,
        _TRAIN_IDS_TO_IDS if converted else _LABEL_IDS_TO_IDS,
    )


def _mask(root: Path, image: Path, kind: str) -> Path:
    split, city = image.parts[-3:-1]
    name = image.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
    return root / "gtFine" / split / city / name
