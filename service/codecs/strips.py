"""Large images a few rows at a time: whole, what lies in between takes too much memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["in_strips", "strips"]

_STRIP_ROWS = 128


def strips(height: int) -> Iterator[slice]:
    """The rows of an image of ``height``, a few at a time."""
    for top in range(0, height, _STRIP_ROWS):
        yield slice(top, min(top + _STRIP_ROWS, height))


def in_strips(
    image: Image.Image, convert: Callable[[Image.Image], Image.Image]
) -> NDArray[np.uint8]:
    """The pixels of an image after a conversion that looks at no neighbours, uint8 [h, w, C]."""
    width, height = image.size
    pixels: NDArray[np.uint8] | None = None
    for rows in strips(height):
        strip = np.asarray(convert(image.crop((0, rows.start, width, rows.stop))))
        if pixels is None:
            pixels = np.empty((height, *strip.shape[1:]), np.uint8)
        pixels[rows] = strip
    if pixels is None:
        raise ValueError("expected an image with rows, got none")
    return pixels
