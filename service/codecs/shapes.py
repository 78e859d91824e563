"""The few shapes that images are padded to, so that photos of different sizes share a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import InputPolicy

__all__ = ["pad", "padded_shape", "padded_side", "tiled_shape"]


def padded_side(side: int, policy: InputPolicy) -> int:
    """The rung of the ladder that holds ``side`` pixels.

    Rungs are multiples of ``policy.multiple``, four to each doubling, so a side grows by
    less than a quarter plus one multiple; the last rung just holds ``policy.max_side``.

    Example:
        >>> [padded_side(side, InputPolicy(max_side=1000, multiple=16)) for side in (7, 300, 1000)]
        [16, 320, 1008]
    """
    multiple = policy.multiple
    units, most = _ceil_div(side, multiple), _ceil_div(policy.max_side, multiple)
    step = max(1 << (units - 1).bit_length() >> 3, 1)
    return min(_ceil_div(units, step) * step, most) * multiple


def padded_shape(height: int, width: int, policy: InputPolicy) -> tuple[int, int]:
    """Height and width after padding: on the ladder, or the policy's one size."""
    return policy.size or (padded_side(height, policy), padded_side(width, policy))


def tiled_shape(height: int, width: int, policy: InputPolicy) -> tuple[int, int]:
    """Height and width in whole windows: what segmenting a photo in windows costs grows with it."""
    high, wide = policy.size or (policy.max_side, policy.max_side)
    return _ceil_div(height, high) * high, _ceil_div(width, wide) * wide


def pad(image: NDArray[np.uint8], policy: InputPolicy) -> NDArray[np.uint8]:
    """Repeat the last row and column of ``image`` until both sides stand on a rung.

    Shape:
        ``image`` is uint8 [H, W, 3] with sides of at most ``policy.max_side``; the result
        [*padded_shape(H, W), 3].
    """
    height, width = image.shape[:2]
    shape = padded_shape(height, width, policy)
    if shape == (height, width):
        return image
    padded = np.empty((*shape, 3), np.uint8)
    padded[:height, :width] = image
    padded[:height, width:] = image[:, -1:]
    padded[height:] = padded[height - 1]
    return padded


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)
