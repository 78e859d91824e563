"""Own photos made a data set: images and masks are looked at once, faults explained, and split."""

from __future__ import annotations

import glob
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ppool.metadata import LabelClass
from ppool.service.codecs.images import decode_file
from ppool.training.annotations import Export, Painted, read_export
from ppool.training.atomic import write_whole
from ppool.training.dataset import IGNORE
from ppool.training.datasets.files import bit_shift_colors, pictures, read_mask
from ppool.training.datasets.folder import DESCRIPTION, MASKS, describe

__all__ = ["Prepared", "prepare"]

CLASSES, BACKGROUND = "classes.txt", "background"
_UPLOADED = re.compile("^[0-9a-f]{8}-")
# How many faults are told at once; the rest is counted.
_TOLD = 8


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` found.

    Attributes:
        classes: In mask order.
        splits: Names of the images of ``train`` and ``val``.
        shares: For each class the share of the labelled pixels.
        left_out: Names of images that the export does not name.
        drawn: The export that masks were drawn from; ``None`` if they were there.
    """

    classes: tuple[LabelClass, ...]
    splits: Mapping[str, Sequence[str]]
    shares: Mapping[str, float]
    left_out: Sequence[str] = ()
    drawn: Path | None = None


def prepare(root: Path, held_out: float = 0.2) -> Prepared:
    """Check ``root/images`` and ``root/masks``, or draw masks from an export; split; describe.

    Masks are PNG files of the images' names with a class number a pixel, 255 where there is none.
    ``root/classes.txt`` names the classes, one a line, with a colour as ``#rrggbb`` behind the name
    if wanted.

    Instead there may be one export of a label tool: COCO (polygons or run lengths), Label Studio
    (JSON) or CVAT for images (XML). Its areas are drawn into ``root/masks``, large ones first, and
    its classes written to ``classes.txt`` behind the one of all other pixels, ``background``; where
    there is a ``classes.txt``, that decides the order, and its first is the one of all others.
    Images that the export does not name are left out. Masks that are there are not drawn again.

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
    twins = [stem for stem, count in Counter(path.stem for path in images).items() if count > 1]
    if twins:
        raise ValueError(f"{root / 'images'}: expected one image of each name, got {twins[:5]}")
    path = _export_beside(root)
    annotated, left_out = images, []
    if path is not None:
        export = read_export(path)
        painted = _matched(path, export, images)
        annotated = [image for image in images if image.name in painted]
        left_out = [image.name for image in images if image.name not in painted]
    if len(annotated) < 2:
        raise ValueError(
            f"{root / 'images'}: expected at least 2 images, to hold one out, got {len(annotated)}"
        )
    drawn = path if path is not None and not (root / MASKS).exists() else None
    if drawn is not None:
        _draw(root, drawn, export, painted)
    classes = _named(root)
    counts = _checked(root, annotated, classes)
    names = [image.name for image in annotated]
    random.Random(0).shuffle(names)  # noqa: S311 (which images, not whose secrets)
    first = max(1, round(held_out * len(names)))
    splits = {"train": sorted(names[first:]), "val": sorted(names[:first])}
    write_whole(root / DESCRIPTION, json.dumps(describe(classes, splits), indent=2) + "\n")
    total = max(int(counts.sum()), 1)
    shares = {entry.name: float(counts[entry.id] / total) for entry in classes}
    return Prepared(classes, splits, shares, left_out, drawn)


def _export_beside(root: Path) -> Path | None:
    found = sorted(
        path
        for path in root.glob("*")
        if path.suffix.lower() in {".json", ".xml"} and path.name != DESCRIPTION
    )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{root}: expected one export, got {names}; keep the one that counts")
    return found[0] if found else None


def _matched(path: Path, export: Export, images: Sequence[Path]) -> dict[str, list[Painted]]:
    """What is painted on each image that the export names.

    Raises:
        ValueError: if it names none.
    """
    names = {image.name for image in images}
    # Label Studio puts eight digits before the names of uploaded files.
    found = {
        name if name in names else _UPLOADED.sub("", name): painted
        for name, painted in export.photos.items()
    }
    found = {name: painted for name, painted in found.items() if name in names}
    if not found:
        given = ", ".join([*export.photos][:3]) or "none at all"
        raise ValueError(f"{path}: expected names of files in images, got others: {given}")
    return found


def _draw(root: Path, path: Path, export: Export, painted: Mapping[str, Sequence[Painted]]) -> None:
    """Write masks, and ``classes.txt`` where there is none.

    Raises:
        ValueError: with what does not fit, before anything is written.
    """
    if (root / CLASSES).is_file():
        places = {entry.name: entry.id for entry in _named(root)}
        lines = []
    else:
        others = [name for name in export.labels if name.lower() != BACKGROUND]
        places = {name: index for index, name in enumerate(others, 1)}
        places |= {name: 0 for name in export.labels if name.lower() == BACKGROUND}
        lines = [BACKGROUND, *(f"{name} {export.labels[name] or ''}".strip() for name in others)]
    if len(places) >= IGNORE:
        raise ValueError(f"{path}: expected at most {IGNORE - 1} classes, got {len(places)}")
    unknown = {entry.label for entries in painted.values() for entry in entries} - places.keys()
    if unknown:
        raise ValueError(
            f"{path}: expected the classes of {CLASSES}, {', '.join(places)}, got also "
            f"{', '.join(sorted(unknown))}"
        )
    masks, faults = {}, []
    for name, entries in painted.items():
        shape = decode_file(root / "images" / name).image.shape[:2]
        try:
            masks[Path(name).stem] = _mask(shape, entries, places)
        except ValueError as error:
            faults.append(f"{path}: {name}: {error}")
    if faults:
        raise ValueError(_told(faults))
    if lines:
        write_whole(root / CLASSES, "\n".join(lines) + "\n")
    (root / MASKS).mkdir()
    for stem, mask in masks.items():
        PIL.Image.fromarray(mask).save(root / MASKS / f"{stem}.png")


def _mask(
    shape: tuple[int, int], entries: Sequence[Painted], places: Mapping[str, int]
) -> NDArray[np.uint8]:
    drawn = [(entry, entry.area(shape)) for entry in entries]
    mask = np.zeros(shape, np.uint8)
    # Small things lie upon large ones.
    for entry, area in sorted(drawn, key=lambda pair: (pair[0].level, -int(pair[1].sum()))):
        mask[area] = places[entry.label]
    return mask


def _named(root: Path) -> tuple[LabelClass, ...]:
    path = root / CLASSES
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing; write the class names there, one a line in the order of the masks' "
            "numbers, or put an export of COCO, Label Studio or CVAT beside images"
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
        raise ValueError("masks: " + _told(faults))
    seen = np.flatnonzero(counts[: len(classes)])
    if not len(seen):
        raise ValueError(f"{root / MASKS}: expected some labels, got only {IGNORE}")
    if len(seen) == 1:
        only = classes[seen[0]]
        said = f"expected two classes or more, got {only.id} ({only.name!r}) alone"
        if counts[IGNORE] and not only.id:
            said += f"; {IGNORE} says that a pixel has no label: for {classes[1].name!r} write 1"
        raise ValueError(f"{root / MASKS}: {said}")
    return counts[: len(classes)]


def _told(faults: Sequence[str]) -> str:
    rest = f"\n... and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
    return "\n".join(faults[:_TOLD]) + rest


def _counted(image: Path, path: Path, classes: int) -> NDArray[np.int64]:
    photo = decode_file(image)
    if not path.is_file():
        others = [*path.parent.glob(f"{glob.escape(image.stem)}.*")]
        why = f"; {others[0].name} is there: save it as PNG, which keeps numbers" if others else ""
        raise FileNotFoundError(f"{path}: missing, the mask of {image.name}{why}")
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
        if len(wrong) > _TOLD:
            why = "; so many: was it a JPEG once, or resized with smoothing?"
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
