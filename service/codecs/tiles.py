"""Photos larger than the network's input: overlapping windows, blended on logits, strip by strip.

Logits of one row of windows are held at a time, so memory grows with the photo's width only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import InputPolicy, label_type
from ppool.service.codecs.probability import STRIP_VALUES, ScoreReader
from ppool.service.errors import CannotTile

__all__ = ["segment_tiles"]

Logits = NDArray[np.float32]
# Logits, [K, h, w], of a window, uint8 [H, W, 3].
Network = Callable[[NDArray[np.uint8]], Logits]

# Share of a window that it has in common with the next one, and the most pixels.
_OVERLAP, _MOST_OVERLAP = 0.25, 96
# Pixels of the side of one of several windows. With 1792 the network that ships takes 3 GB.
_MOST_SIDE = 1536


def segment_tiles(
    image: NDArray[np.uint8],
    policy: InputPolicy,
    network: Network,
    reader: ScoreReader | None = None,
    at_once: int = 1,
) -> NDArray[Any]:
    """Class ids of a photo, [H, W], at its full resolution.

    Where windows overlap, their logits are averaged with weights that fall to the window's edge;
    elsewhere the mask is what the network finds in the whole photo, as far as it sees no further
    than the window.

    Args:
        image: The photo, RGB, uint8 [H, W, 3].
        policy: Windows are of its one size, else no longer than ``max_side``, several no longer
            than 1536 pixels.
        network: The same stride for every window. It is called from threads of its own, so that
            what was found in one window is blended while it looks at the next.
        reader: Makes maps of the blended logits, which its mask is made of.
        at_once: Windows that the network looks at. Two keep cores busy while it does what one
            thread has to do.

    Raises:
        CannotTile: if the logits do not lie on a grid of whole pixels.
    """
    height, width = image.shape[:2]
    window = policy.size or (_window(height, policy), _window(width, policy))
    padded = _padded(image, window)
    found = _remembering(network)
    first = found(padded[: window[0], : window[1]])
    stride = window[0] // first.shape[1], window[1] // first.shape[2]
    if (stride[0] * first.shape[1], stride[1] * first.shape[2]) != window:
        raise CannotTile(
            "This model cannot do mode=tile: its logits do not lie on a grid of whole pixels."
        )
    most = policy.size or (_most(height, policy), _most(width, policy))
    rows, columns = (
        _starts(length, extent, _overlap(side), math.lcm(step, policy.multiple))
        for length, extent, side, step in zip((height, width), window, most, stride, strict=True)
    )
    padded = _padded(image, (rows[-1] + window[0], columns[-1] + window[1]))

    def logits(row: int, column: int) -> Logits:
        if not (row or column):
            return first
        top, left = row * stride[0], column * stride[1]
        return found(padded[top : top + window[0], left : left + window[1]])

    classes, high, wide = first.shape
    grid = _Grid(
        classes,
        high,
        wide,
        rows=[start // stride[0] for start in rows],
        columns=[start // stride[1] for start in columns],
        overlaps=[_overlap(side) / step for side, step in zip(window, stride, strict=True)],
    )
    labels = np.concatenate(list(_labels(_blended(grid, logits, at_once), stride, reader)))
    return labels[:height, :width]


@dataclass(frozen=True)
class _Grid:
    """Windows of ``classes`` x ``high`` x ``wide`` logits, beginning at these rows and columns.

    ``overlaps`` are how many rows and columns they have in common at least.
    """

    classes: int
    high: int
    wide: int
    rows: list[int]
    columns: list[int]
    overlaps: list[float]


def _padded(image: NDArray[np.uint8], least: tuple[int, int]) -> NDArray[np.uint8]:
    """The last row and column repeated until both sides are at least that long."""
    bottom, right = (max(0, want - had) for want, had in zip(least, image.shape, strict=False))
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), "edge") if bottom or right else image


def _window(length: int, policy: InputPolicy) -> int:
    """The side of windows: no longer than it takes for as many as are needed anyway.

    Example:
        >>> _window(3264, InputPolicy(max_side=1792, multiple=32))  # three of them
        1248
    """
    most = _most(length, policy)
    overlap = _overlap(most)
    count = _count(length, most, overlap)
    return policy.padded(-(-(length + (count - 1) * overlap) // count))


def _most(length: int, policy: InputPolicy) -> int:
    return policy.max_side if length <= policy.max_side else min(policy.max_side, _MOST_SIDE)


def _overlap(side: int) -> int:
    return min(int(side * _OVERLAP), _MOST_OVERLAP)


def _count(length: int, window: int, overlap: int) -> int:
    return 1 if length <= window else -(-(length - overlap) // (window - overlap))


def _starts(length: int, window: int, overlap: int, grid: int) -> list[int]:
    """Where windows begin along one axis: on the grid, evenly, the last one reaching the end.

    Example:
        >>> _starts(1000, 256, 64, 16)
        [0, 192, 384, 560, 752]
    """
    gaps = max(_count(length, window, overlap) - 1, 1)
    last = -(-max(length - window, 0) // grid)
    return sorted({round(gap * last / gaps) * grid for gap in range(gaps + 1)})


def _remembering(network: Network) -> Network:
    """The same network, asked once only for windows of one colour: margins and empty sheets."""
    known: dict[tuple[bytes, tuple[int, ...]], Logits] = {}
    alone = Lock()

    def logits(window: NDArray[np.uint8]) -> Logits:
        top = window[0]
        if (top != top[0]).any() or (window != top).any():
            return network(window)
        key = top[0].tobytes(), window.shape
        with alone:
            if key not in known:
                known.clear()
                known[key] = network(window)
            return known[key]

    return logits


def _blended(
    grid: _Grid, windows: Callable[[int, int], Logits], at_once: int = 1
) -> Iterator[Logits]:
    """The logits of the whole image, [K, rows, columns], from top to bottom.

    What it yields is overwritten by the next.

    Args:
        grid: Where the windows lie.
        windows: The logits of the window that begins at a row and column of logits.
        at_once: How many of them are looked for.
    """
    down = _shares(grid.rows, _ramp(grid.high, grid.overlaps[0]))
    across = _shares(grid.columns, _ramp(grid.wide, grid.overlaps[1]))
    sums = np.zeros((grid.classes, grid.high, grid.columns[-1] + grid.wide), np.float32)
    part = np.empty((grid.high, grid.wide), np.float32)
    ends = [*grid.rows[1:], grid.rows[-1] + grid.high]
    found = _ahead(
        windows, [(row, column) for row in grid.rows for column in grid.columns], at_once
    )
    for row, following, share in zip(grid.rows, ends, down, strict=True):
        for column, beside in zip(grid.columns, across, strict=True):
            share_of_all = np.outer(share, beside)
            for total, plane in zip(sums, next(found), strict=True):
                total[:, column : column + grid.wide] += np.multiply(plane, share_of_all, out=part)
        done = following - row
        yield sums[:, :done]
        # What the windows of the next row share with these moves up.
        sums[:, : grid.high - done] = sums[:, done:].copy()
        sums[:, grid.high - done :] = 0


def _ahead(
    windows: Callable[[int, int], Logits], places: list[tuple[int, int]], at_once: int
) -> Iterator[Logits]:
    """The logits of windows one after the other, those of the next in the making meanwhile."""
    with ThreadPoolExecutor(at_once) as threads:
        pending: deque[Future[Logits]] = deque()
        for place in places:
            pending.append(threads.submit(windows, *place))
            if len(pending) > at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _shares(starts: list[int], ramp: Logits) -> list[Logits]:
    """What share of the whole each of the windows along one axis has at each of its places."""
    length = len(ramp)
    sums = np.zeros(starts[-1] + length, np.float32)
    for start in starts:
        sums[start : start + length] += ramp
    return [ramp / sums[start : start + length] for start in starts]


def _ramp(length: int, overlap: float) -> Logits:
    """Weights along one axis of a window: 1 in the middle, falling over the overlap."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.minimum(distance / (overlap + 1), 1).astype(np.float32)


def _labels(
    strips: Iterator[Logits], stride: tuple[int, int], reader: ScoreReader | None
) -> Iterator[NDArray[Any]]:
    """Each strip resized by the stride, as the file's own ``ResizeArgMax`` does, and labelled."""
    context = 0 if stride == (1, 1) else 1
    top = 0
    for block in _with_neighbours(strips) if context else strips:
        rows = block.shape[1] - 2 * context
        step = max(STRIP_VALUES // (block[:, 0].size * math.prod(stride)), 1)
        for row in range(0, rows, step):
            # Some rows at a time, which stay in the processor's caches.
            fine = block[:, row : min(row + step, rows) + 2 * context]
            if context:
                fine = _stretched(_stretched(fine, stride[0], -2), stride[1], -1)
            labels = _label(fine)
            if reader is not None:
                reader.add(top, reader.prepared(fine), labels)
            yield labels
            top += len(labels)


def _with_neighbours(strips: Iterator[Logits]) -> Iterator[Logits]:
    """Each strip with a row and column more on each side, to interpolate with."""
    block = next(strips).copy()
    above = block[:, :1]
    for following in chain(strips, [None]):
        below = block[:, -1:] if following is None else following[:, :1]
        yield np.pad(
            np.concatenate((above, block, below), axis=1), ((0, 0), (0, 0), (1, 1)), "edge"
        )
        if following is not None:
            above, block = block[:, -1:], following.copy()


def _label(logits: Logits) -> NDArray[Any]:
    kind = np.dtype(label_type(len(logits)))
    best, label = logits[0].copy(), np.zeros(logits.shape[1:], kind)
    wins, mark = np.empty(label.shape, np.bool_), np.empty_like(label)
    for index, plane in enumerate(logits[1:], 1):
        # Strictly: the first class keeps a tie. A later class is the larger number, so that no mask
        # is needed, with which NumPy takes ten times as long.
        np.greater(plane, best, out=wins)
        np.multiply(wins.view(np.uint8), kind.type(index), out=mark)
        np.maximum(label, mark, out=label)
        np.maximum(best, plane, out=best)
    return label


def _stretched(plane: Logits, step: int, axis: int) -> Logits:
    """Half-pixel bilinear resizing by a whole number; the outermost rows are context only."""
    count = plane.shape[axis] - 2
    position = (np.arange(count * step) + 0.5) / step + 0.5
    low = position.astype(np.intp)
    if step == 1:
        return plane.take(low, axis)
    share = (position - low).astype(np.float32)
    share = share[:, None] if axis == -2 else share
    return plane.take(low, axis) * (1 - share) + plane.take(low + 1, axis) * share
