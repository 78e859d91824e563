"""Writes FineShapes as files in the layouts of PASCAL VOC with SBD, Cityscapes and ADE20K."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import scipy.io
from rich.progress import track

from ppool.training.dataset import HELD_OUT_SEED, IGNORE, Sample
from ppool.training.datasets.ade20k import ADE
from ppool.training.datasets.cityscapes import LABEL_IDS
from ppool.training.datasets.files import bit_shift_colors
from ppool.training.datasets.pascal_voc import SBD, VOC
from research.fields import Image
from research.fineshapes import DETAIL_CLASSES, FineShapes
from research.fineshapes.classes import (
    BACKGROUND,
    BLOCK,
    BODY,
    CABLE,
    GROUND,
    LATTICE,
    POLE,
    TABLE,
    TWIG,
    WHEEL,
)

__all__ = ["CITYSCAPES_IDS", "LAYOUTS", "Plan", "write_fineshapes"]

CITYSCAPES_IDS = {
    BACKGROUND: 10,  # sky
    GROUND: 0,  # road
    BLOCK: 2,  # building
    BODY: 13,  # car
    POLE: 5,  # pole
    CABLE: 6,  # traffic light, the thing in Cityscapes that hangs
    WHEEL: 18,  # bicycle
    LATTICE: 4,  # fence
    TABLE: 7,  # traffic sign, a board on a post
    TWIG: 8,  # vegetation
}
"""The Cityscapes train id that stands for each class of FineShapes."""


@dataclass(frozen=True)
class Plan:
    """Which scenes to write: a fifth of ``count`` is held out."""

    count: int
    height: int
    width: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 5:
            raise ValueError(
                f"count: expected at least 5, of which 1 is held out, got {self.count!r}"
            )

    @property
    def splits(self) -> dict[str, FineShapes]:
        """The scenes of ``train`` and ``val``."""
        held_out = self.count // 5
        return {
            "train": self._scenes(self.count - held_out, self.seed),
            "val": self._scenes(held_out, self.seed + HELD_OUT_SEED),
        }

    def _scenes(self, count: int, seed: int) -> FineShapes:
        return FineShapes(count, seed=seed, height=self.height, width=self.width)


def write_fineshapes(root: Path, layout: str, plan: Plan) -> None:
    """Draw scenes and write them as the files of another data set.

    PASCAL VOC and ADE20K keep images as JPEG, so those lose a little; masks lose nothing.

    Args:
        root: the folder to write into; made if missing.
        layout: one of :data:`LAYOUTS`.
        plan: the scenes.

    Raises:
        ValueError: if the layout is unknown, or its folder is already there: what might be a real
            data set is never written into.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}; got {layout!r}")
    folders, write = LAYOUTS[layout]
    for folder in folders:
        if (root / folder).exists():
            raise ValueError(f"{root / folder}: already there; name another folder or remove it")
    write(root, plan)


def _scenes(plan: Plan) -> Iterator[tuple[str, int, Sample]]:
    """All scenes with their split and number, under a progress bar."""
    splits = plan.splits
    jobs = [(split, index) for split, scenes in splits.items() for index in range(len(scenes))]
    for split, index in track(jobs, "Drawing scenes"):
        yield split, index, splits[split][index]


def _write_voc(root: Path, plan: Plan) -> None:
    """Every other training scene is VOC's own; the rest, and the held-out ones, are SBD's.

    As in the real pair, SBD's lists name images that VOC holds out, so the ``trainaug`` rule has
    something to take away.
    """
    names: dict[str, list[str]] = {"train": [], "val": [], "sbd": []}
    palette = b"".join(bytes.fromhex(color[1:]) for color in bit_shift_colors(256))
    for split, index, scene in _scenes(plan):
        name = f"{2007 if split == 'train' else 2012}_{index:06d}"
        _save(PIL.Image.fromarray(scene.image), root / VOC / "JPEGImages" / f"{name}.jpg")
        if split == "val" or index % 2 == 0:
            names[split].append(name)
            mask = PIL.Image.fromarray(_with_outlines(scene.mask))
            mask.putpalette(palette)
            _save(mask, root / VOC / "SegmentationClass" / f"{name}.png")
        if split == "val" or index % 2:
            names["sbd"].append(name)
            path = root / SBD / "cls" / f"{name}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(path, {"GTcls": {"Segmentation": scene.mask}}, do_compression=True)
    lists = root / VOC / "ImageSets" / "Segmentation"
    _save_names(lists / "train.txt", names["train"])
    _save_names(lists / "val.txt", names["val"])
    _save_names(lists / "trainval.txt", sorted(names["train"] + names["val"]))
    _save_names(root / SBD / "train.txt", names["sbd"][::2])
    _save_names(root / SBD / "val.txt", names["sbd"][1::2])


def _with_outlines(mask: Image) -> Image:
    """The mask with 255 along the outlines of large things, as VOC has; thin ones stay whole."""
    outlines = np.zeros(mask.shape, np.bool_)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        edge = mask[a] != mask[b]
        outlines[a] |= edge
        outlines[b] |= edge
    thin = np.isin(mask, DETAIL_CLASSES).astype(np.uint8)
    near_thin = cv2.dilate(thin, np.ones((3, 3), np.uint8)) > 0
    return np.where(outlines & ~near_thin, np.uint8(IGNORE), mask)


def _write_cityscapes(root: Path, plan: Plan) -> None:
    table = np.zeros(256, np.uint8)
    for label, train_id in CITYSCAPES_IDS.items():
        table[label] = LABEL_IDS[train_id]
    for split, index, scene in _scenes(plan):
        place, stem = Path(split) / "fineshapes", f"fineshapes_000000_{index:06d}"
        image = root / "leftImg8bit" / place / f"{stem}_leftImg8bit.png"
        _save(PIL.Image.fromarray(scene.image), image)
        mask = root / "gtFine" / place / f"{stem}_gtFine_labelIds.png"
        _save(PIL.Image.fromarray(table[scene.mask]), mask)


def _write_ade20k(root: Path, plan: Plan) -> None:
    for split, index, scene in _scenes(plan):
        place = "training" if split == "train" else "validation"
        stem = f"ADE_{split}_{index + 1:08d}"
        _save(PIL.Image.fromarray(scene.image), root / ADE / "images" / place / f"{stem}.jpg")
        mask = PIL.Image.fromarray(scene.mask + np.uint8(1))
        _save(mask, root / ADE / "annotations" / place / f"{stem}.png")


def _save(image: PIL.Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # For JPEG, with colours at full resolution, or a coloured cable turns grey; PNG ignores both.
    image.save(path, quality=95, subsampling=0)


def _save_names(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


LAYOUTS: dict[str, tuple[tuple[Path, ...], Callable[[Path, Plan], None]]] = {
    "voc": ((VOC, SBD), _write_voc),
    "cityscapes": ((Path("leftImg8bit"), Path("gtFine")), _write_cityscapes),
    "ade20k": ((ADE,), _write_ade20k),
}
