"""The regions of a mask as documents: GeoJSON features, COCO annotations, a list of components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from ppool.metadata import LabelClass
from ppool.service.codecs.outlines import Outlines, outlines
from ppool.service.codecs.rle import crossed_rle
from ppool.service.results import Component

__all__ = ["Region", "coco", "components", "features", "regions"]

_BACKGROUND = "background"

Region = tuple[LabelClass, Outlines]


def regions(
    mask: NDArray[Any],
    planes: Mapping[int, NDArray[np.uint8]],
    classes: Sequence[LabelClass],
    wanted: Sequence[int] | None,
) -> list[Region]:
    """The regions of each class that has any.

    Args:
        mask: Class ids, [H, W].
        planes: Where classes are, whatever the mask has there, [H, W] by class id.
        classes: Of the model.
        wanted: Ids of classes; ``None`` for all but the background.

    Raises:
        TooDetailed: if they are noise.
    """
    chosen = (
        [label for label in classes if label.name.lower() != _BACKGROUND]
        if wanted is None
        else [classes[number] for number in wanted]
    )
    if planes and wanted is None:
        chosen = [label for label in chosen if label.id in planes]
    found = []
    for label in chosen:
        plane = planes[label.id].astype(bool) if label.id in planes else mask == label.id
        if plane.any():
            found.append((label, outlines(plane)))
    return found


def components(found: Sequence[Region]) -> list[Component]:
    """Class, area and box of every region."""
    return [
        Component(label.id, label.name, area, (left, top, width, height))
        for label, shapes in found
        for area, (left, top, width, height) in zip(
            shapes.areas.tolist(), shapes.boxes.tolist(), strict=True
        )
    ]


def features(found: Sequence[Region], tolerance: float) -> bytes:
    """A feature collection, as RFC 7946 has it but in pixels, y down.

    Args:
        found: The regions.
        tolerance: How far in pixels an edge may move.
    """
    entries = [
        {
            "type": "Feature",
            "bbox": (left, top, left + width, top + height),
            "geometry": {"type": "Polygon", "coordinates": rings},
            "properties": {"id": label.id, "name": label.name, "color": label.color, "area": area},
        }
        for label, shapes in found
        for area, (left, top, width, height), rings in zip(
            shapes.areas.tolist(),
            shapes.boxes.tolist(),
            _rings(shapes.simplified(tolerance)),
            strict=True,
        )
    ]
    return orjson.dumps({"type": "FeatureCollection", "features": entries})


def coco(
    found: Sequence[Region],
    tolerance: float,
    photo: tuple[str, int, int],
    classes: Sequence[LabelClass],
) -> bytes:
    """A COCO data set of one photo; what has holes, which its polygons cannot have, as run lengths.

    Args:
        found: The regions.
        tolerance: How far in pixels an edge of a polygon may move.
        photo: Name, height and width.
        classes: Of the model; their ids are those of the categories.
    """
    name, height, width = photo
    annotations: list[dict[str, Any]] = []
    for label, shapes in found:
        kept = zip(
            shapes.areas.tolist(),
            shapes.boxes.tolist(),
            shapes.polygons,
            _rings(shapes.simplified(tolerance)),
            strict=True,
        )
        for area, box, exact, (shell, *holes) in kept:
            one: Any = [[value for point in shell[:-1] for value in point]]
            if holes:
                one = {"size": (height, width), "counts": _filled(exact, height, width)}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": label.id,
                    "segmentation": one,
                    "area": area,
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    return orjson.dumps(
        {
            "images": [{"id": 1, "file_name": name, "height": height, "width": width}],
            "annotations": annotations,
            "categories": [
                {"id": label.id, "name": label.name, "supercategory": ""} for label in classes
            ],
        }
    )


def _rings(polygons: NDArray[Any]) -> Iterator[list[list[list[float]]]]:
    """The rings of each polygon as lists of points, whole numbers where all of them are."""
    if not len(polygons):
        return
    _, corners, (rings, firsts) = shapely.to_ragged_array(polygons)
    whole = corners.astype(np.int64)
    points = (whole if np.array_equal(whole, corners) else corners).tolist()
    for begin, end in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
        yield [points[rings[ring] : rings[ring + 1]] for ring in range(begin, end)]


def _filled(polygon: Any, height: int, width: int) -> str:
    """The run lengths of what a polygon along the edges of pixels encloses.

    Down each column of pixels, a run ends wherever an edge crosses it.
    """
    corners, ring = shapely.get_coordinates(
        shapely.get_parts(shapely.boundary(polygon)), return_index=True
    )
    points = corners.astype(np.int64)
    level = (ring[1:] == ring[:-1]) & (points[1:, 1] == points[:-1, 1])
    starts, stops = np.sort((points[:-1, 0][level], points[1:, 0][level]), axis=0)
    lengths = stops - starts
    columns = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    crossings = columns * height + np.repeat(points[1:, 1][level], lengths)
    return crossed_rle(crossings, height * width)
