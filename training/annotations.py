"""Exports of label tools: COCO, Label Studio and CVAT, as areas to paint into masks."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from ppool.service.codecs.kinds import SUFFIXES
from ppool.training.shapes import (
    Area,
    brush,
    coco_runs,
    cvat_runs,
    ellipse,
    polygons,
    rectangle,
    size_mismatch,
)

__all__ = ["Export", "Painted", "read_export"]


@dataclass(frozen=True)
class Painted:
    """One area of one class.

    Attributes:
        label: The class's name.
        area: Draws it for a photo's height and width.
        level: Areas of a higher one lie on top.
    """

    label: str
    area: Area
    level: int = 0


@dataclass
class Export:
    """What a file says.

    Attributes:
        labels: Names of the classes, in the file's order, with colours where it has some.
        photos: For each photo's file name what is painted on it.
    """

    labels: dict[str, str | None] = field(default_factory=dict)
    photos: dict[str, list[Painted]] = field(default_factory=dict)


def read_export(path: Path) -> Export:
    """Read one.

    Raises:
        ValueError: if it is of no known kind, or holds what makes no areas.
    """
    document: Any
    reader: Callable[[Any], Export]
    reader, kind = _coco, "COCO's images, categories and annotations"
    if path.suffix.lower() == ".xml":
        reader, kind = _cvat, "CVAT for images 1.1: <image> with <polygon>, <mask> and the like"
        document = _xml(path)
    else:
        try:
            document = json.loads(path.read_text("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, got {error}") from error
        if isinstance(document, list):
            reader, kind = _label_studio, "Label Studio's tasks with results"
    try:
        return reader(document)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: expected {kind}, got {what}") from error


def _xml(path: Path) -> ET.Element:
    try:
        return ET.fromstring(path.read_bytes())  # noqa: S314 (the user's own export)
    except ET.ParseError as error:
        raise ValueError(f"{path}: expected XML, got {error}") from error


def _coco(document: Mapping[str, Any]) -> Export:
    """Polygons, and run lengths as lists or as strings."""
    categories = sorted(document["categories"], key=lambda entry: int(entry["id"]))
    names = {entry["id"]: str(entry["name"]) for entry in categories}
    files = {entry["id"]: Path(unquote(entry["file_name"])).name for entry in document["images"]}
    found = Export(dict.fromkeys(names.values()), {name: [] for name in files.values()})
    sizes = {entry["id"]: (entry.get("height"), entry.get("width")) for entry in document["images"]}
    for entry in document["annotations"]:
        given = entry["segmentation"]
        if not given:
            raise ValueError(
                "an annotation without segmentation, as of a box alone; export polygons or masks"
            )
        if isinstance(given, Mapping):
            area = coco_runs(given["counts"], (int(given["size"][0]), int(given["size"][1])))
        else:
            area = _of_size(polygons([np.reshape(ring, (-1, 2)) for ring in given]), sizes, entry)
        painted = Painted(names[entry["category_id"]], area)
        found.photos[files[entry["image_id"]]].append(painted)
    return found


def _of_size(
    area: Area, sizes: Mapping[Any, tuple[int | None, int | None]], entry: Mapping[str, Any]
) -> Area:
    """Corners are in pixels of a photo of the size that the file says."""
    height, width = sizes[entry["image_id"]]
    if not height or not width:
        return area

    def checked(shape: tuple[int, int]) -> NDArray[np.bool_]:
        size_mismatch((int(height), int(width)), shape)
        return area(shape)

    return checked


def _cvat(root: ET.Element) -> Export:
    labels = root.iterfind(".//meta//labels/label")
    found = Export({_text(label, "name"): _colour(label.findtext("color")) for label in labels})
    images = [*root.iter("image")]
    if not images:
        raise ValueError("no <image>; export the task as 'CVAT for images 1.1'")
    for image in images:
        painted = found.photos.setdefault(Path(image.attrib["name"]).name, [])
        for entry in image:
            if entry.tag in _CVAT:
                area = _CVAT[entry.tag](entry.attrib)
                level = int(entry.attrib.get("z_order", 0))
                painted.append(Painted(entry.attrib["label"], area, level))
    return found


def _text(entry: ET.Element, name: str) -> str:
    text = entry.findtext(name)
    if text is None:
        raise KeyError(name)
    return text


def _colour(text: str | None) -> str | None:
    return text.lower() if text and re.fullmatch("#[0-9a-fA-F]{6}", text) else None


def _numbers(entry: Mapping[str, str], *names: str) -> list[float]:
    return [float(entry[name]) for name in names]


def _cvat_polygon(entry: Mapping[str, str]) -> Area:
    corners = [pair.split(",") for pair in entry["points"].split(";")]
    return polygons([np.array(corners, float)])


def _cvat_box(entry: Mapping[str, str]) -> Area:
    left, top, right, bottom = _numbers(entry, "xtl", "ytl", "xbr", "ybr")
    return rectangle((left, top), (right - left, bottom - top), float(entry.get("rotation", 0)))


def _cvat_ellipse(entry: Mapping[str, str]) -> Area:
    x, y, across, down = _numbers(entry, "cx", "cy", "rx", "ry")
    return ellipse((x, y), (across, down), float(entry.get("rotation", 0)))


def _cvat_mask(entry: Mapping[str, str]) -> Area:
    runs = [int(part) for part in entry["rle"].split(",")]
    box = [int(float(entry[name])) for name in ("left", "top", "width", "height")]
    return cvat_runs(runs, box)


_CVAT: Mapping[str, Callable[[Mapping[str, str]], Area]] = {
    "polygon": _cvat_polygon,
    "box": _cvat_box,
    "ellipse": _cvat_ellipse,
    "mask": _cvat_mask,
}


def _label_studio(tasks: Sequence[Mapping[str, Any]]) -> Export:
    """JSON, or JSON-MIN, of brushes, polygons, rectangles and ellipses."""
    found = Export()
    for task in tasks:
        painted = found.photos.setdefault(_task_photo(task), [])
        for value, size in _results(task):
            kind = next((name for name in _STUDIO if name in value), None)
            if kind is not None and value[kind]:
                painted.append(Painted(str(value[kind][0]), _STUDIO[kind](value, size)))
    labels = {entry.label for painted in found.photos.values() for entry in painted}
    found.labels = dict.fromkeys(sorted(labels))
    return found


def _task_photo(task: Mapping[str, Any]) -> str:
    fields = task.get("data", task)
    for link in fields.values():
        if isinstance(link, str):
            parts = urlparse(link)
            # Files that it serves itself are asked for as /data/local-files/?d=folder/photo.jpg.
            local = parts.query.startswith("d=")
            path = Path(unquote(parts.query[2:] if local else parts.path))
            if path.suffix.lower() in SUFFIXES:
                return path.name
    raise ValueError(f"a task without a photo's name, only {[*fields]!r}")


def _results(
    task: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], tuple[int, int]]]:
    if "annotations" in task:
        done = [entry for entry in task["annotations"] if not entry.get("was_cancelled")]
        # Of several people's the last, as the tool itself shows it.
        entries = [
            (entry["value"], entry)
            for entry in (done[-1]["result"] if done else ())
            if "value" in entry
        ]
    else:
        lists = [value for value in task.values() if isinstance(value, list)]
        entries = [(e, e) for held in lists for e in held if isinstance(e, Mapping)]
    for value, entry in entries:
        if "original_width" in entry:
            yield value, (int(entry["original_height"]), int(entry["original_width"]))


def _studio_polygon(value: Mapping[str, Any], size: tuple[int, int]) -> Area:
    return polygons([np.array(value["points"], float) * (size[1] / 100, size[0] / 100)], size)


def _studio_box(value: Mapping[str, Any], size: tuple[int, int]) -> Area:
    (left, width), (top, height) = (
        (value[start] * side / 100, value[length] * side / 100)
        for start, length, side in (("x", "width", size[1]), ("y", "height", size[0]))
    )
    turn = float(value.get("rotation", 0))
    return rectangle((left, top), (width, height), turn, about_corner=True, size=size)


def _studio_ellipse(value: Mapping[str, Any], size: tuple[int, int]) -> Area:
    (x, across), (y, down) = (
        (value[start] * side / 100, value[radius] * side / 100)
        for start, radius, side in (("x", "radiusX", size[1]), ("y", "radiusY", size[0]))
    )
    return ellipse((x, y), (across, down), float(value.get("rotation", 0)), size=size)


def _studio_brush(value: Mapping[str, Any], size: tuple[int, int]) -> Area:
    return brush(value["rle"], size)


_STUDIO: Mapping[str, Callable[[Mapping[str, Any], tuple[int, int]], Area]] = {
    "brushlabels": _studio_brush,
    "polygonlabels": _studio_polygon,
    "rectanglelabels": _studio_box,
    "ellipselabels": _studio_ellipse,
}
