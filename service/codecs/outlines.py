"""A class's pixels to polygons that follow their edges: traced by contourpy, simplified by GEOS.

A pixel in column x and row y is the square from (x, y) to (x + 1, y + 1), so what is not simplified
encloses the very pixels. Pixels that share an edge belong together, and those that share no more
than a corner do not, as GDAL and SciPy have it: each component is then one polygon with holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from ppool.service.errors import TooDetailed

__all__ = ["Outlines", "outlines"]

# Contours of so many pixels are traced at a time, which takes 28 bytes for each.
_MOST_CELLS = 2**24
# Of a class; what has more is noise, and its JSON would have a gigabyte.
_MOST_REGIONS, _MOST_CORNERS = 50_000, 2**21
# Of a ring that are simplified together, as the time may grow with the square.
_PIECE = 1024
# Putting back what crosses something may let it cross something else.
_ATTEMPTS = 4
# How far a corner is from where half a pixel of it was cut off.
_BEVEL = np.sqrt(0.5) / 2

Polygons = NDArray[np.object_]
# Whole numbers, [N, 2]: x and y.
Corners = NDArray[np.intp]


@dataclass(frozen=True)
class Outlines:
    """The connected components of a class, from top to bottom.

    Attributes:
        polygons: Along the edges of pixels, [N].
        areas: In pixels, int64 [N].
        boxes: Left, top, width and height in pixels, int64 [N, 4].
    """

    polygons: Polygons
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def simplified(self, tolerance: float) -> Polygons:
        """Valid polygons with fewer corners, [N], which are multiples of half a pixel.

        Args:
            tolerance: How far in pixels an edge may move (Douglas and Peucker, 1973); 0 keeps the
                pixels as they are. What would vanish or cross something stays as it is.
        """
        return _simplified(self.polygons, tolerance)


def outlines(plane: NDArray[np.bool_]) -> Outlines:
    """Trace what is set in ``plane``, [H, W].

    Raises:
        TooDetailed: if that has more components or corners than anyone can use.
    """
    cells, tops, lefts = _squeezed(plane)
    rows = max(_MOST_CELLS // max(cells.shape[1], 1), 1)
    strips = [
        _traced(cells[top : top + rows], tops[top : top + rows + 1], lefts)
        for top in range(0, len(cells), rows)
    ]
    polygons = _joined(strips, tops[rows::rows]) if len(strips) > 1 else strips[0]
    if len(polygons) > _MOST_REGIONS or shapely.get_num_coordinates(polygons).sum() > _MOST_CORNERS:
        raise TooDetailed(
            f"Ask for the mask as run lengths or PNG, or for fewer classes: one has more than "
            f"{_MOST_REGIONS} regions or {_MOST_CORNERS} corners, too many for polygons."
        )
    sides = shapely.bounds(polygons).astype(np.int64).reshape(-1, 4)
    order = np.lexsort((sides[:, 0], sides[:, 1]))
    sides, polygons = sides[order], polygons[order]
    boxes = np.concatenate((sides[:, :2], sides[:, 2:] - sides[:, :2]), axis=1)
    return Outlines(polygons, shapely.area(polygons).astype(np.int64), boxes)


def _squeezed(
    plane: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]:
    """The plane without rows and columns like the ones before, and where those left begin.

    A mask that was made larger has many of them. The ends are added to the beginnings.
    """
    places = []
    for axis in (0, 1):
        lines = plane if axis == 0 else plane.T
        new = (lines[1:] != lines[:-1]).any(axis=1)
        begins = np.concatenate(([0], np.flatnonzero(new) + 1))
        plane = plane.take(begins, axis)
        places.append(np.append(begins, len(lines)))
    return plane, places[0], places[1]


def _traced(cells: NDArray[np.bool_], tops: NDArray[np.intp], lefts: NDArray[np.intp]) -> Polygons:
    """The polygons of the cells that are set, whose edges are at ``tops`` and ``lefts``."""
    framed = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2))
    framed[1:-1, 1:-1] = cells
    contours: Any = contour_generator(z=framed, fill_type=FillType.OuterOffset)
    # Half way between set and not: each point is the middle of a cell's edge.
    points, offsets = contours.filled(0.5, np.inf)
    if not points:
        return np.empty(0, np.object_)
    middles = np.concatenate(points)
    lengths = np.concatenate([np.diff(ring.astype(np.intp)) for ring in offsets])
    upright = middles[:, 0] % 1 != 0
    # Between the middle of an upright edge and that of a level one lies a corner.
    turns = upright[:-1] != upright[1:]
    turns[np.cumsum(lengths)[:-1] - 1] = False
    first, second = middles[:-1][turns], middles[1:][turns]
    is_upright = upright[:-1][turns]
    x = np.where(is_upright, first[:, 0], second[:, 0]).astype(np.intp)
    y = np.where(is_upright, second[:, 1], first[:, 1]).astype(np.intp)
    corners = np.column_stack((lefts[x], tops[y]))
    ends = np.searchsorted(np.flatnonzero(turns), np.cumsum(lengths) - 1)
    owners = np.repeat(np.arange(len(offsets)), [len(ring) - 1 for ring in offsets])
    return _polygons(*_untangled(corners, ends, owners))


def _untangled(
    corners: Corners, ends: NDArray[np.intp], owners: NDArray[np.intp]
) -> tuple[list[Corners], NDArray[np.intp]]:
    """Rings and which polygon each is of; one that touches itself becomes several.

    GEOS can do that, in ten seconds for half a million corners.
    """
    rings = np.split(corners, ends[:-1])
    wide, high = corners.max(axis=0) + 1
    of_ring = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    keys = np.sort((of_ring * high + corners[:, 1]) * wide + corners[:, 0])
    tangled = set((keys[1:][keys[1:] == keys[:-1]] // (high * wide)).tolist())
    if not tangled:
        return rings, owners
    pieces = [_pieces(ring) if index in tangled else [ring] for index, ring in enumerate(rings)]
    counts = [len(several) for several in pieces]
    return [piece for several in pieces for piece in several], np.repeat(owners, counts)


def _pieces(ring: Corners) -> list[Corners]:
    """What a ring is cut into where it comes back to a corner; first what encloses the others."""
    pieces, path, places = [], list[tuple[int, int]](), dict[tuple[int, int], int]()
    for x, y in ring.tolist():
        if (start := places.get((x, y))) is not None:
            pieces.append(path[start:])
            for corner in path[start:]:
                del places[corner]
            del path[start:]
        places[x, y] = len(path)
        path.append((x, y))
    pieces.append(path)
    # Shells run against the clock, where y points up, and holes with it.
    return sorted(map(np.array, pieces), key=_enclosed, reverse=True)


def _enclosed(ring: Corners) -> int:
    """Twice the area, with a sign."""
    x, y = ring.T
    return int(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _polygons(rings: Sequence[NDArray[Any]], owners: NDArray[np.intp]) -> Polygons:
    """Polygons of rings that are not closed; the first of each is its shell."""
    counts = np.array([len(ring) for ring in rings])
    ends = np.cumsum(counts)
    corners = np.concatenate(rings)
    closed = np.insert(corners, ends, corners[ends - counts], axis=0).astype(np.float64)
    offsets = np.concatenate(([0], ends + np.arange(1, len(rings) + 1)))
    firsts = np.flatnonzero(np.diff(owners, prepend=-1, append=-1))
    made: Polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, closed, (offsets, firsts)
    )
    return made


def _joined(strips: list[Polygons], seams: NDArray[np.intp]) -> Polygons:
    """The polygons of strips as if they had been traced at once."""
    polygons = np.concatenate(strips)
    sides = shapely.bounds(polygons).reshape(-1, 4)
    cut = np.isin(sides[:, 1], seams) | np.isin(sides[:, 3], seams)
    whole = shapely.get_parts(shapely.union_all(polygons[cut]))
    # At a seam corners were left where an edge goes straight on.
    joined: Polygons = np.concatenate((polygons[~cut], shapely.simplify(whole, 0)))
    return joined


def _simplified(polygons: Polygons, tolerance: float) -> Polygons:
    """Every ring simplified by itself, but for what would then cross something."""
    if tolerance <= _BEVEL or not len(polygons):
        return polygons
    pieces = _Pieces(polygons)
    lines = shapely.simplify(pieces.lines, tolerance - _BEVEL, preserve_topology=False)
    for _ in range(_ATTEMPTS):
        made = pieces.put_together(lines)
        invalid = ~shapely.is_valid(made)
        if not invalid.any():
            break
        of_invalid = np.flatnonzero(invalid[pieces.polygon])
        found = lines[of_invalid]
        tree = shapely.STRtree(found)
        crossing = ~shapely.is_simple(found)
        for predicate in ("crosses", "overlaps"):
            pairs = tree.query(found, predicate)
            one, other = pieces.polygon[of_invalid[pairs]]
            crossing[pairs[:, one == other]] = True
        lines[of_invalid[crossing]] = pieces.lines[of_invalid[crossing]]
    made[invalid] = polygons[invalid]
    return made


class _Pieces:
    """The rings of polygons cut into lines, each beginning where the one before ends.

    Attributes:
        lines: The pieces, [N].
        polygon: Which polygon each is of, [N].
    """

    def __init__(self, polygons: Polygons) -> None:
        _, self._corners, (self._rings, self._firsts) = shapely.to_ragged_array(polygons)
        points, lengths = _bevelled(self._corners, self._rings)
        counts = -(-(lengths - 1) // _PIECE)
        self._ring = np.repeat(np.arange(len(lengths)), counts)
        self._number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        ends = np.cumsum(lengths)
        starts = (ends - lengths)[self._ring] + self._number * _PIECE
        sizes = np.minimum(starts + _PIECE + 1, ends[self._ring]) - starts
        places = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        self.lines: Polygons = shapely.linestrings(
            points[places], indices=np.repeat(np.arange(len(sizes)), sizes)
        )
        owners = np.repeat(np.arange(len(polygons)), np.diff(self._firsts))
        self.polygon = owners[self._ring]

    def put_together(self, lines: Polygons) -> Polygons:
        """The polygons with ``lines`` in place of the pieces; no ring loses all of its area."""
        corners, piece = shapely.get_coordinates(lines, return_index=True)
        again = np.diff(piece, prepend=0).astype(bool) & (self._number[piece] > 0)
        corners, ring = corners[~again], self._ring[piece[~again]]
        flat = np.bincount(ring) < 4
        of_exact = np.repeat(np.arange(len(flat)), np.diff(self._rings))
        kept, exact = ~flat[ring], flat[of_exact]
        rings = np.concatenate((ring[kept], of_exact[exact]))
        order = np.argsort(rings, kind="stable")
        offsets = np.concatenate(([0], np.cumsum(np.bincount(rings))))
        both = np.concatenate((corners[kept], self._corners[exact]))
        made: Polygons = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, both[order], (offsets, self._firsts)
        )
        return made


def _bevelled(
    corners: NDArray[np.float64], rings: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Closed rings with half a pixel cut off at each corner, and how many points each has.

    A slanted edge is steps of pixels, whose corners lie on both sides of it; these points lie on
    it, so that it is found sooner and nothing is left of the steps.
    """
    is_edge = np.ones(len(corners), bool)
    is_edge[rings[1:] - 1] = False
    starts, stops = corners[is_edge], corners[1:][is_edge[:-1]]
    half = np.sign(stops - starts) / 2
    points = np.stack((starts + half, stops - half), axis=1).reshape(-1, 2)
    ends = 2 * (rings[1:] - np.arange(1, len(rings)))
    counts = np.diff(ends, prepend=0)
    return np.insert(points, ends, points[ends - counts], axis=0), counts + 1
