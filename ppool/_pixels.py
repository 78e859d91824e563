"""Photos resized as Pillow does it, to the bit, by native code in a fraction of the time.

Pillow resizes along rows, rounds to whole levels, and resizes that along columns; from version 13
on the other way around where far more rows than columns go. Each new pixel is a sum of old ones,
with weights in 2^-22 that a filter gives, wider where a photo is made smaller
(``src/libImaging/Resample.c``).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray

from ppool import _library

__all__ = ["Filter", "resized_pixels"]

Filter = Literal["bilinear", "bicubic"]

_BITS = 22
_COLUMNS_MAY_BE_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
# Where some versions before had another way.
_TALL = 100
# On both sides of the middle, in old pixels, or in new ones if these are larger.
_SUPPORT: dict[Filter, float] = {"bilinear": 1.0, "bicubic": 2.0}

Weights = NDArray[np.float64]


class _Taps(ctypes.Structure):
    _fields_ = (
        ("reach", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("first", "count", "weights")),
    )


class _Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("h", "w", "out_h", "out_w", "down_first")),
        *((name, ctypes.c_void_p) for name in ("pixels", "result")),
        *((name, _Taps) for name in ("across", "down")),
    )


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized, int32 [places] and, of the weights, [places, reach]."""

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    weights: NDArray[np.int32]

    def struct(self) -> _Taps:
        arrays = (self.first, self.count, self.weights)
        return _Taps(self.weights.shape[1], *(array.ctypes.data for array in arrays))


def resized_pixels(
    rgb: NDArray[np.uint8], height: int, width: int, kind: Filter
) -> NDArray[np.uint8] | None:
    """Pixels, uint8 [H, W, 3], at another size; ``None`` without native code for it."""
    resize = _library.entry("resize_pixels")
    if resize is None:
        return None
    rows, columns = rgb.shape[:2]
    down_first = height < rows and rows - height > 2 * (columns - width)
    if down_first and not _COLUMNS_MAY_BE_FIRST:
        if rows > _TALL * columns:
            return None
        down_first = False
    across, down = _axis(columns, width, kind), _axis(rows, height, kind)
    rgb, result = np.ascontiguousarray(rgb), np.empty((height, width, 3), np.uint8)
    addresses = rgb.ctypes.data, result.ctypes.data
    sizes = rows, columns, height, width, down_first
    job = _Job(*sizes, *addresses, across.struct(), down.struct())
    return None if resize(ctypes.byref(job), 1) else result


@lru_cache(maxsize=128)
def _axis(had: int, wanted: int, kind: Filter) -> _Axis:
    """The weights of each of ``wanted`` places that ``had`` become."""
    scale = had / wanted
    stretch = max(scale, 1.0)
    reach = _SUPPORT[kind] * stretch
    centre = (np.arange(wanted) + 0.5) * scale
    # Cut off towards zero, as in C.
    first = np.maximum((centre - reach + 0.5).astype(np.int32), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int32), had) - first
    places = np.arange(count.max(initial=1))
    weights = _weights(kind, (places + first[:, None] - centre[:, None] + 0.5) * (1 / stretch))
    weights[places >= count[:, None]] = 0
    total = np.zeros(wanted)
    for column in weights.T:  # in this order, or the last bit may be another
        total += column
    scaled = weights / total[:, None] * (1 << _BITS)
    return _Axis(first, count, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32))


def _weights(kind: Filter, distance: Weights) -> Weights:
    x: Weights = np.abs(distance)
    if kind == "bilinear":
        weights: Weights = np.maximum(1 - x, 0)
    else:
        near = ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * -0.5
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights
