"""Images, fields of numbers over them, and fractal noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppool.training.dataset import Image
from research.rng import Rng

__all__ = ["Field", "Image", "as_image", "clouds", "noise", "resized"]

Field = NDArray[np.float32]


def as_image(values: ArrayLike) -> Image:
    """Values of any type, clipped to 0..255 and rounded to bytes."""
    return np.clip(np.rint(np.asarray(values, np.float32)), 0, 255).astype(np.uint8)


def resized(values: Field, width: int, height: int) -> Field:
    """A field stretched smoothly over ``[height, width]``."""
    return np.asarray(
        cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC), np.float32
    )


def noise(
    rng: Rng, height: int, width: int, coarsest: float, octaves: int = 4, stretch: float = 1.0
) -> Field:
    """Fractal noise of mean 0 and standard deviation about 1, float32 [height, width].

    Args:
        rng: the choices.
        height: rows.
        width: columns.
        coarsest: size in pixels of the largest features; every octave halves it.
        octaves: how many sizes are added.
        stretch: features are this much longer along the rows.
    """
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        size, weight = coarsest / 2**octave, 0.6**octave
        rows = max(2, min(height, round(height / size) + 1))
        columns = max(2, min(width, round(width / (size * stretch)) + 1))
        grid = rng.standard_normal((rows, columns), np.float32)
        total += weight * resized(grid, width, height)
        power += weight**2
    return np.asarray(total / np.sqrt(power), np.float32)


def clouds(rng: Rng, side: int, coarsest: float, octaves: int = 1) -> Field:
    """As :func:`noise` on a square of ``side``, quicker, for features of many pixels."""
    step = int(np.clip(coarsest / 2 ** (octaves + 1), 1, 8))
    if step == 1:
        return noise(rng, side, side, coarsest, octaves)
    small = -(-side // step)
    field = noise(rng, small, small, coarsest / step, octaves)
    return np.asarray(cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
