"""How a network is fed a photo, and how its mask comes back to the photo's pixels.

The service, ``ppool-train`` and ``ppool-export`` all go by this, so that what one of them measures
is what another answers. Photos are resized by :mod:`ppool.service.codecs`, which has the libraries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import InputPolicy

__all__ = [
    "Feed",
    "Normalisation",
    "feed",
    "padded_shape",
    "padded_side",
    "resized_labels",
    "tiled_shape",
]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of RGB in [0, 1], as the network was trained with."""

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{name}: expected three values (RGB), got {values!r}")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(
                f"mean: expected values of RGB in [0, 1], got {self.mean!r}; divide mean and std "
                "by 255 if they are of RGB in [0, 255]"
            )
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std: expected positive values, got {self.std!r}")

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uint8 [N, H, W, 3] to normalised float32 [N, 3, H, W]."""
        x = images.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        x /= 255
        x -= np.reshape(self.mean, (3, 1, 1)).astype(np.float32)
        x /= np.reshape(self.std, (3, 1, 1)).astype(np.float32)
        return x


@dataclass(frozen=True)
class Feed:
    """A photo as the network takes it.

    Attributes:
        image: RGB, uint8 [H, W, 3], padded.
        content: How many rows and columns of it are the photo; the rest is padding.
        photo: Height and width of the photo itself, upright.
    """

    image: NDArray[np.uint8]
    content: tuple[int, int]
    photo: tuple[int, int]

    def cropped(self, values: NDArray[Any], stride: int = 1) -> NDArray[Any]:
        """What of [..., H / stride, W / stride] belongs to the photo."""
        height, width = (_ceil_div(side, stride) for side in self.content)
        return values[..., :height, :width]

    def mask(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels of ``image``, [H, W], as labels of the photo's own pixels."""
        return resized_labels(self.cropped(labels), *self.photo)


def feed(image: NDArray[np.uint8], policy: InputPolicy, photo: tuple[int, int]) -> Feed:
    """Repeat the last row and column of ``image`` until both sides stand on a rung.

    Args:
        image: The photo, uint8 [h, w, 3], of the size that ``policy.reduced`` says.
        policy: Of the network.
        photo: Height and width that the photo had before.
    """
    height, width = content = image.shape[:2]
    shape = padded_shape(height, width, policy)
    if shape == content:
        return Feed(image, content, photo)
    padded = np.empty((*shape, 3), np.uint8)
    padded[:height, :width] = image
    padded[:height, width:] = image[:, -1:]
    padded[height:] = padded[height - 1]
    return Feed(padded, content, photo)


def resized_labels(labels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Labels, [h, w], at another size; each pixel takes the one nearest to its centre.

    Example:
        >>> resized_labels(np.array([[1, 2, 3]]), 1, 6)
        array([[1, 1, 2, 2, 3, 3]])
    """
    # Columns first: rows are copied whole, which is quicker, and there are more of them then.
    for axis, wanted in ((1, width), (0, height)):
        had = labels.shape[axis]
        if had != wanted:
            labels = labels.take((2 * np.arange(wanted) + 1) * had // (2 * wanted), axis)
    return labels


def padded_side(side: int, policy: InputPolicy) -> int:
    """The rung of the ladder that holds ``side`` pixels, so that photos of many sizes are of few.

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


def _ceil_div(value: int, divisor: int) -> int:
    return -(-value // divisor)
