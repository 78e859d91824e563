"""Own photos made a data set: images and masks are looked at once, faults explained, and split."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ppool.metadata import LabelClass
from ppool.service.codecs.images import decode_file
from ppool.training.atomic import write_whole
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import bit_shift_colors, pictures, read_mask
from ppool.training.datasets.folder import DESCRIPTION, MASKS, describe

__all__ = ["Prepared", "prepare"]

# How many faults are told at once; the rest is counted.
_TOLD = 8


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` found.

    Attributes:
        classes: In mask order.
        splits: Names of the images of ``train`` and ``val``.
        shares: For each class the share of the labelled pixels.
    """

    classes: tuple[LabelClass, ...]
    splits: Mapping[str, Sequence[str]]
    shares: Mapping[str, float]


def prepare(root: Path, held_out: float = 0.2) -> Prepared:
    """Check ``root/images`` and ``root/masks``, or draw masks from polygons; split; describe.

    Masks are PNG files of the images' names with a class number a pixel, 255 where there is none.
    Instead there may be one COCO file, as Label Studio and CVAT export it: its polygons are drawn
    into ``root/masks``, large ones first, with class 0 for the rest. ``root/classes.txt`` names the
    classes, one a line, with a colour as ``#rrggbb`` behind the name if wanted; COCO names its own.

    Args:
        root: The folder.
        held_out: Share of the images to validate with; the same images each time.

    Raises:
        FileNotFoundError: if images, masks or class names are missing; the message says which.
        ValueError: if any mask does not fit: all that is wrong, file by file.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a share between 0 and 1, got {held_out!r}")
    images = pictures(root / "images", "put the photos there, and their masks into masks")
    if len(images) < 2:
        raise ValueError(f"{root / 'images'}: expected at least 2 images, to hold one out")
    twins = [stem for stem, count in Counter(path.stem for path in images).items() if count > 1]
    if twins:
        raise ValueError(f"{root / 'images'}: expected one image of each name, got {twins[:5]}")
    coco = sorted(root.glob("*.json")) if not (root / MASKS).is_dir() else []
    coco = [path for path in coco if path.name != DESCRIPTION]
    classes = _drawn(root, coco[0], images) if coco else _named(root)
    counts = _checked(root, images, classes)
    names = [path.name for path in images]
    random.Random(0).shuffle(names)  # noqa: S311 (which images, not whose secrets)
    first = max(1, round(held_out * len(names)))
    splits = {"train": sorted(names[first:]), "val": sorted(names[:first])}
    write_whole(root / DESCRIPTION, json.dumps(describe(classes, splits), indent=2) + "\n")
    total = max(int(counts.sum()), 1)
    shares = {entry.name: float(counts[entry.id] / total) for entry in classes}
    return Prepared(classes, splits, shares)


def _named(root: Path) -> tuple[LabelClass, ...]:
    path = root / "classes.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing; write the class names there, one a line in the order of the masks' "
            "numbers, or put a COCO export beside images"
        )
    lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    if not 1 < len(lines) < IGNORE:
        raise ValueError(f"{path}: expected 2 to 254 names, one a line, got {len(lines)}")
    colors = bit_shift_colors(len(lines))
    found = []
    for index, line in enumerate(lines):
        name, _, color = line.rpartition(" ")
        coloured = name and re.fullmatch("#[0-9a-fA-F]{6}", color)
        entry = (name.strip(), color.lower()) if coloured else (line, colors[index])
        found.append(LabelClass(index, *entry))
    return tuple(found)


def _checked(
    root: Path, images: Sequence[Path], classes: Sequence[LabelClass]
) -> NDArray[np.int64]:
    """How often each class occurs.

    Raises:
        ValueError: with what is wrong.
    """
    counts, faults = np.zeros(256, np.int64), []
    for image in images:
        try:
            counts += _counted(image, root / MASKS / f"{image.stem}.png", len(classes))
        except (OSError, ValueError) as error:
            faults.append(str(error))
    if faults:
        rest = f"\n... and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise ValueError("masks: " + "\n".join(faults[:_TOLD]) + rest)
    if not counts[: len(classes)].any():
        raise ValueError(f"{root / MASKS}: expected some labels, got only {IGNORE}")
    return counts[: len(classes)]


def _counted(image: Path, path: Path, classes: int) -> NDArray[np.int64]:
    photo = decode_file(image)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, the mask of {image.name}")
    _check_colours(path)
    mask = read_mask(path)
    height, width = photo.image.shape[:2]
    if mask.shape != (height, width):
        turned = mask.shape == (width, height)
        why = "; the photo's EXIF turns it, so turn the mask alike" if turned else ""
        raise ValueError(
            f"{path}: expected {width} x {height} pixels as {image.name} has upright, got "
            f"{mask.shape[1]} x {mask.shape[0]}{why}"
        )
    counts = np.bincount(mask.ravel(), minlength=256)
    wrong = np.flatnonzero(counts[classes:IGNORE]) + classes
    if len(wrong):
        why = "; 0 and 255 alone are no class numbers: divide by 255" if wrong[0] >= 128 else ""
        raise ValueError(
            f"{path}: expected class numbers 0 to {classes - 1} and {IGNORE} for none, got "
            f"{wrong[:8].tolist()}{why}"
        )
    return counts


def _check_colours(path: Path) -> None:
    """Refuse a mask of colours, with those it has."""
    try:
        with PIL.Image.open(path) as opened:
            if opened.mode not in {"RGB", "RGBA", "LA", "CMYK"}:
                return
            pixels = opened.convert("RGB").getcolors(1 << 24) or []
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: not a readable image") from error
    most = sorted(pixels, key=lambda entry: -entry[0])[:6]
    colors = ", ".join("#" + bytes(np.asarray(color).tolist()).hex() for _, color in most)
    raise ValueError(
        f"{path}: expected one channel of class numbers, got colours ({colors}); export the mask "
        "as grey or palette PNG with 0, 1, 2, ... for the classes"
    )


def _drawn(root: Path, path: Path, images: Sequence[Path]) -> tuple[LabelClass, ...]:
    """Masks from a COCO file's polygons; its categories are classes 1, 2, ... in order of id."""
    try:
        document: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        categories = sorted(document["categories"], key=lambda entry: entry["id"])
        files = {entry["id"]: Path(entry["file_name"]).name for entry in document["images"]}
        shapes: dict[str, list[tuple[float, int, list[list[float]]]]] = {}
        places = {entry["id"]: index for index, entry in enumerate(categories, 1)}
        for entry in document["annotations"]:
            polygons = entry["segmentation"]
            if not isinstance(polygons, list):
                raise ValueError("a mask as RLE; export polygons, or masks as PNG")
            found = float(entry.get("area", 0)), places[entry["category_id"]], polygons
            shapes.setdefault(files[entry["image_id"]], []).append(found)
        names = [str(entry["name"]) for entry in categories]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected COCO's images, categories and annotations with polygons, got {error}"
        ) from error
    colors = bit_shift_colors(len(names) + 1)
    (root / MASKS).mkdir()
    for image in images:
        mask = np.zeros(decode_file(image).image.shape[:2], np.uint8)
        # Small things lie upon large ones.
        for _, label, polygons in sorted(shapes.get(image.name, []), key=lambda entry: -entry[0]):
            for ring in polygons:  # one at a time: together, parts that overlap would be a hole
                corners = np.rint(np.reshape(ring, (-1, 2)) - 0.5).astype(np.int32)
                cv2.fillPoly(mask, [corners], label)
        PIL.Image.fromarray(mask).save(root / MASKS / f"{image.stem}.png")
    return tuple(
        LabelClass(index, name, color)
        for index, (name, color) in enumerate(zip(("background", *names), colors, strict=True))
    )
