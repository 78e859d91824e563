"""Patterns of walls, grounds and things: fields within -1..1 that blend two colours."""

from __future__ import annotations

import numpy as np

from research.fields import Field, noise
from research.rng import Rng

__all__ = ["textures"]


def textures(rng: Rng, height: int, width: int) -> list[Field]:
    """A scene's patterns, float32 [height, width] each; the first is plain."""
    plain = 0.15 * noise(rng, height, width, 4, 2)
    clouds = np.tanh(noise(rng, height, width, rng.log_between(12, 60), 4))
    grain = np.tanh(noise(rng, height, width, rng.log_between(2, 8), 2, rng.between(1, 6)))
    patterns = [rng.pick((_stripes, _bricks, _tiles, _speckles)) for _ in range(3)]
    drawn = [pattern(rng, height, width) for pattern in patterns]
    # Patterns fade in and out with wear, so none of them is a ruler.
    wear = 0.75 + 0.25 * clouds
    return [
        np.asarray(field, np.float32)
        for field in (plain, clouds, grain, *(wear * f for f in drawn))
    ]


def _stripes(rng: Rng, height: int, width: int) -> Field:
    """Boards, blinds or corduroy at any angle: as narrow as a cable is."""
    rows, columns = np.ogrid[:height, :width]
    angle = rng.pick((0.0, np.pi / 2, rng.between(0, np.pi)))
    period, share = rng.log_between(3, 16), rng.between(0.15, 0.6)
    phase = (rows * np.cos(angle) + columns * np.sin(angle)) / period % 1
    return np.where(phase < share, 1, -1).astype(np.float32)


def _bricks(rng: Rng, height: int, width: int) -> Field:
    """Courses of bricks with joints about a pixel wide."""
    tall = rng.between(4, 9)
    wide = tall * rng.between(1.5, 3)
    rows, columns = np.ogrid[:height, :width]
    course = rows // tall
    joints = (rows % tall < 1) | ((columns + (course % 2) * wide / 2) % wide < 1)
    return np.where(joints, 1, -0.6).astype(np.float32)


def _tiles(rng: Rng, height: int, width: int) -> Field:
    """Tiles in perspective, running to a point above the middle of the picture."""
    rows, columns = np.ogrid[:height, :width]
    depth = 1 / (rows + height * rng.between(0.05, 0.5))
    across = (columns - width * rng.between(0.2, 0.8)) * depth * rng.between(4, 12)
    along = depth * height * rng.between(4, 12)
    joints = ((across % 1) < 0.12) | ((along % 1) < 0.15)
    checks = (np.floor(across) + np.floor(along)) % 2
    field = 2 * checks - 1 if rng.chance(0.4) else np.where(joints, 1, -0.6)
    return np.asarray(field, np.float32)


def _speckles(rng: Rng, height: int, width: int) -> Field:
    """Gravel, terrazzo or foliage in the distance."""
    field = noise(rng, height, width, rng.log_between(2.5, 8), 2)
    return np.where(field > rng.between(0.3, 1.2), 1, -0.5).astype(np.float32)
