"""The regions of each class in the forms of labelling tools."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ppool.service.codecs.brush import brush_rle
from ppool.service.codecs.probability import OWN, WHITE, Maps

__all__ = ["brush_files", "outline_files", "score_files"]

# Of a class: who corrects them by hand wants no more. And how far an edge may move, in pixels.
_MOST_OUTLINES, _TOLERANCE = 1000, 1.0


def brush_files(planes: Mapping[int, NDArray[np.uint8]]) -> dict[str, bytes]:
    """The run lengths of Label Studio's brush for each class that is there.

    Shape:
        Each plane is [H, W], 0 or 1.
    """
    return {
        f"brush/{label}": brush_rle(plane.view(np.bool_))
        for label, plane in planes.items()
        if plane.any()
    }


def outline_files(planes: Mapping[int, NDArray[np.uint8]]) -> dict[str, bytes]:
    """The outer edges of the largest regions of each class that is there, in percent, as JSON.

    Shape:
        Each plane is [H, W], 0 or 1.
    """
    # GEOS takes a while, and memory.
    from ppool.service.codecs.outlines import outlines

    files = {}
    for label, plane in planes.items():
        if not plane.any():
            continue
        sides, found = np.array(plane.shape[::-1]), outlines(plane.view(np.bool_))
        largest = np.argsort(-found.areas, kind="stable")[:_MOST_OUTLINES]
        rings = [
            np.asarray(polygon.exterior.coords)[:-1] / sides * 100
            for polygon in found.simplified(_TOLERANCE)[largest]
        ]
        files[f"outlines/{label}"] = json.dumps([ring.round(4).tolist() for ring in rings]).encode()
    return files


def score_files(maps: Maps) -> dict[str, bytes]:
    """How probable each class is where it is, on average, as JSON; none without probabilities."""
    own = maps.probability.get(OWN)
    files = {}
    for label, plane in maps.planes.items():
        values = maps.probability.get(label, own)
        if values is not None and plane.any():
            mean = values[plane.view(np.bool_)].mean(dtype=np.float64) / WHITE[str(values.dtype)]
            files[f"score/{label}"] = json.dumps(round(float(mean), 6)).encode()
    return files
