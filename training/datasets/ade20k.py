"""ADE20K as the scene parsing benchmark of 150 classes."""

from __future__ import annotations

import re
from pathlib import Path

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import FilePairs, bit_shift_colors

__all__ = ["ADE", "ade20k", "ade20k_classes"]

ADE = Path("ADEChallengeData2016")
COUNT = 150

# Each line of objectInfo150.txt: index, share of pixels, images in both splits, synonyms.
_LINE = re.compile(r"^\s*(\d+)\s+[\d.]+\s+\d+\s+\d+\s+(.+?)\s*$", re.MULTILINE)
_SPLITS = {"train": "training", "val": "validation"}
_NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person,
earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea,
mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion,
base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace,
refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove,
palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light,
truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track,
apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship,
fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall,
tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal,
bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""


def ade20k(root: Path, split: str) -> FilePairs:
    """ADE20K: 20,210 images in ``train``, 2,000 in ``val``; 0 in a mask, "other", is not counted.

    Args:
        root: the folder that holds ``ADEChallengeData2016``.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: if the split holds no images.
        ValueError: if the split is unknown, or ``objectInfo150.txt`` is there and is not the list.
    """
    if split not in _SPLITS:
        raise ValueError(f"ade20k split: expected train or val, got {split!r}")
    folder = root / ADE / "images" / _SPLITS[split]
    images = sorted(folder.glob("*.jpg"))
    if not images:
        raise FileNotFoundError(
            f"{folder}: expected *.jpg, found none; unpack ADEChallengeData2016.zip in the data "
            "folder"
        )
    masks = root / ADE / "annotations" / _SPLITS[split]
    return FilePairs(
        [(image, masks / f"{image.stem}.png") for image in images],
        ade20k_classes(root),
        {0: IGNORE} | {index + 1: index for index in range(COUNT)},
    )


def ade20k_classes(root: Path) -> tuple[LabelClass, ...]:
    """The 150 classes, named by the first word in ``objectInfo150.txt`` where that is present.

    Colours follow PASCAL VOC's rule from index 1 on; they are not those of ADE20K's own pictures.

    Raises:
        ValueError: if the file does not list 150 classes.
    """
    path = root / ADE / "objectInfo150.txt"
    names = [name.strip() for name in _NAMES.replace("\n", " ").split(",")]
    if path.is_file():
        found = _LINE.findall(path.read_text("utf-8"))
        if [int(index) for index, _ in found] != list(range(1, COUNT + 1)):
            raise ValueError(
                f"{path}: expected lines 1 to {COUNT} of index, ratio, two counts and name, got "
                f"{len(found)} such lines; restore it from ADEChallengeData2016.zip or remove it"
            )
        names = [re.split("[,;]", synonyms)[0] for _, synonyms in found]
    colors = bit_shift_colors(COUNT + 1)[1:]
    return tuple(
        LabelClass(index, name, color)
        for index, (name, color) in enumerate(zip(names, colors, strict=True))
    )
