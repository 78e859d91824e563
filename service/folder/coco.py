"""COCO's documents: one for each page, so that a run can go on, and one of all.

Lin et al., ECCV 2014; Caesar et al., CVPR 2018; https://cocodataset.org/#format-data
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ppool.metadata import LabelClass
from ppool.service.results import ClassArea, ImageResult, Plane, RleMask

__all__ = ["document", "merge"]


def document(result: ImageResult, image: Mapping[str, Any], classes: Iterable[LabelClass]) -> bytes:
    """The document of one page: a mask of run lengths, a box and an area for each class ("stuff").

    Args:
        result: With run lengths, of planes where classes overlap.
        image: ``file_name``, ``width`` and ``height``, and more that COCO does not know.
        classes: Of the model; category ids are class ids.
    """
    areas: Sequence[ClassArea | Plane] = result.planes or result.classes
    annotations: list[dict[str, Any]] = []
    for area in areas:
        runs = area.mask if isinstance(area, Plane) else result.mask
        if not isinstance(runs, RleMask):
            raise TypeError("expected run lengths")
        if not area.pixels:
            continue
        counts = runs.counts[str(area.id)]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": area.id,
                "segmentation": {"size": runs.size, "counts": counts},
                "area": area.pixels,
                "bbox": _box(counts, runs.size[0]),
                "iscrowd": 0,
            }
        )
    categories = [{"id": label.id, "name": label.name, "color": label.color} for label in classes]
    images = [{"id": 1, **image}]
    return orjson.dumps({"images": images, "annotations": annotations, "categories": categories})


def _box(counts: str, height: int) -> list[int]:
    """Left, top, width and height in pixels of run lengths, column by column of ``height``."""
    lengths, value, shift = list[int](), 0, 0
    for character in counts.encode("ascii"):
        value |= (character - 48 & 0x1F) << shift
        shift += 5
        if character - 48 & 0x20:
            continue
        value -= (value >> shift - 1) << shift  # its highest bit is the sign
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    ends = np.cumsum(lengths)
    firsts, lasts = ends[:-1:2], ends[1::2] - 1
    columns, last_columns = firsts // height, lasts // height
    # A run that goes on in the next column reaches both ends.
    over = (columns != last_columns).any()
    top = 0 if over else int((firsts % height).min())
    bottom = height if over else int((lasts % height).max()) + 1
    left, right = int(columns[0]), int(last_columns[-1]) + 1
    return [left, top, right - left, bottom - top]


def merge(pages: Iterable[Path], target: Path) -> None:
    """Put the documents of pages into one, a page at a time.

    Raises:
        OSError: if that cannot be written.
    """
    paths = list(pages)
    categories = orjson.loads(paths[0].read_bytes())["categories"] if paths else []
    partial = target.with_name(f".ppool-{os.getpid()}-coco.partial")
    try:
        with partial.open("wb") as file:
            for opening, key in ((b'{"images":[', "images"), (b'],"annotations":[', "annotations")):
                file.write(opening)
                for number, entry in enumerate(_entries(paths, key), 1):
                    comma = b"," if number > 1 else b""
                    file.write(comma + orjson.dumps(entry | {"id": number}))
            file.write(b'],"categories":%b}' % orjson.dumps(categories))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from error


def _entries(paths: list[Path], key: str) -> Iterator[dict[str, Any]]:
    """The entries of a list of all documents, a page at a time."""
    for image, path in enumerate(paths, 1):
        for entry in orjson.loads(path.read_bytes())[key]:
            yield entry | {"image_id": image} if "image_id" in entry else entry
