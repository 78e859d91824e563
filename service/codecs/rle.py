"""Run-length masks as COCO stores them: column by column, zeros first, counts as a short string."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["coco_rle", "crossed_rle", "plane_rle"]


def coco_rle(mask: NDArray[np.unsignedinteger]) -> dict[int, str]:
    """The compressed COCO run lengths of every class present in ``mask``.

    Shape:
        ``mask`` is [H, W]; each string decodes, with ``size`` [H, W], to a binary mask.

    Example:
        >>> coco_rle(np.array([[0, 1], [0, 1]], np.uint8))
        {0: '022', 1: '22'}
    """
    flat = mask.T.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], starts))
    ends = np.append(starts[1:], flat.size)
    labels = flat[starts]
    strings = {}
    for label in np.unique(labels):
        chosen = labels == label
        edges = np.column_stack((starts[chosen], ends[chosen])).ravel()
        counts = np.diff(edges, prepend=0)
        if edges[-1] < flat.size:
            counts = np.append(counts, flat.size - edges[-1])
        strings[int(label)] = _compress(counts)
    return strings


def plane_rle(plane: NDArray[np.uint8]) -> str:
    """The compressed COCO run lengths of the ones of a plane of zeros and ones, [H, W].

    Example:
        >>> plane_rle(np.zeros((2, 2), np.uint8))
        '4'
    """
    return coco_rle(plane).get(1) or _compress(np.array([plane.size]))


def crossed_rle(crossings: NDArray[np.int64], size: int) -> str:
    """The compressed COCO run lengths of a region, from the places where it begins and ends.

    Args:
        crossings: In any order, column by column; where it ends and begins again is none.
        size: How many pixels there are.

    Example:
        >>> crossed_rle(np.array([2, 0]), 4)
        '022'
    """
    places, often = np.unique(crossings, return_counts=True)
    places = places[often == 1]
    ends = places if len(places) and places[-1] == size else np.append(places, size)
    return _compress(np.diff(ends, prepend=0))


def _compress(counts: NDArray[np.int64]) -> str:
    """COCO's string: from the fourth on, the difference to two before; 5 bits a character.

    The sixth bit says that more follow; 48 is added to be printable (cocoapi, ``rleToString``).
    """
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    unfinished = np.ones(len(rest), bool)
    columns = []
    while unfinished.any():
        bits = rest & 0x1F
        rest >>= 5
        # The sign is the highest bit written, so a group that would misstate it needs a follower.
        more = np.where(bits & 0x10, rest != -1, rest != 0)
        columns.append(np.where(unfinished, bits + 48 + 0x20 * more, 0))
        unfinished &= more
    characters = np.column_stack(columns).ravel()
    return characters[characters > 0].astype(np.uint8).tobytes().decode("ascii")
