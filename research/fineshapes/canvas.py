"""A scene as a map of surfaces: what is drawn later covers what was drawn before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from research.fields import Field, Image
from research.rng import Color

__all__ = ["Box", "Canvas", "Point", "Surface"]

Point = tuple[float, float]
Box = tuple[float, float, float, float]

# Dots along a pixel's side. Odd, so that the middle dot is the pixel's centre, which labels it.
DOTS = 3
MAX_SURFACES = 256


@dataclass(frozen=True)
class Surface:
    """What one kind of paint looks like, and the class it belongs to.

    Attributes:
        label: class id.
        color: where the texture is -1.
        other: where the texture is +1.
        texture: which of the canvas's textures.
    """

    label: int
    color: Color
    other: Color
    texture: int = 0


class Canvas:
    """Draws with surfaces in pixel coordinates, x to the right and y down, (0, 0) a corner.

    Args:
        height: rows of the finished image.
        width: columns of the finished image.
        textures: fields float32 [height, width] within about -1..1 that surfaces refer to.
    """

    def __init__(self, height: int, width: int, textures: Sequence[Field]) -> None:
        self.height = height
        self.width = width
        self.textures = len(textures)
        self._textures = np.stack(textures)
        self._surfaces: list[Surface] = []
        self._dots = np.zeros((height * DOTS, width * DOTS), np.uint8)

    def add(self, surface: Surface) -> int:
        """Take a surface into use; its number is what the drawing methods take as ``paint``."""
        if len(self._surfaces) == MAX_SURFACES:
            raise ValueError(f"expected at most {MAX_SURFACES} surfaces in a scene, got one more")
        self._surfaces.append(surface)
        return len(self._surfaces) - 1

    def polygon(self, points: Sequence[Point], paint: int) -> None:
        """Fill a polygon."""
        cv2.fillPoly(self._dots, [_dots(points)], paint)

    def rectangle(self, box: Box, paint: int) -> None:
        """Fill ``(left, top, right, bottom)``."""
        left, top, right, bottom = box
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], paint)

    def stroke(self, points: Sequence[Point], width: float, paint: int) -> None:
        """Draw a line through the points, at least one pixel wide so that it stays whole."""
        thickness = max(DOTS, round(width * DOTS))
        cv2.polylines(self._dots, [_dots(points)], False, paint, thickness)

    def strokes(self, lines: Sequence[Sequence[Point]], width: float, paint: int) -> None:
        """Draw several lines, as :meth:`stroke` does."""
        thickness = max(DOTS, round(width * DOTS))
        cv2.polylines(self._dots, [_dots(points) for points in lines], False, paint, thickness)

    def ellipse(
        self, center: Point, axes: Point, paint: int, *, angle: float = 0.0, width: float = 0.0
    ) -> None:
        """Draw an ellipse of the given half axes, or its outline where ``width`` is given."""
        x, y = center
        dots = (max(1, round(axes[0] * DOTS)), max(1, round(axes[1] * DOTS)))
        thickness = max(DOTS, round(width * DOTS)) if width else -1
        at = (round(x * DOTS), round(y * DOTS))
        cv2.ellipse(self._dots, at, dots, angle, 0, 360, paint, thickness)

    def behind(self, box: Box) -> list[Color]:
        """Mean colours of the surfaces at a few points of ``(left, top, right, bottom)``."""
        left, top, right, bottom = box
        rows = np.linspace(top, bottom, 5) * DOTS
        columns = np.linspace(left, right, 5) * DOTS
        at = self._dots[
            np.clip(rows, 0, len(self._dots) - 1).astype(int)[:, None],
            np.clip(columns, 0, self._dots.shape[1] - 1).astype(int),
        ]
        return [_mean(self._surfaces[index]) for index in np.unique(at)]

    def labels(self) -> Image:
        """The mask, uint8 [height, width]: the class of the surface at each pixel's centre."""
        table = np.asarray([surface.label for surface in self._surfaces], np.uint8)
        return table[self._centres()]

    def colors(self) -> Field:
        """The picture, float32 [height, width, 3] in 0..255: each pixel the mean of its dots."""
        middle = np.asarray([_mean(s) for s in self._surfaces], np.uint8)
        half = np.asarray([s.other for s in self._surfaces], np.float32) - middle
        textures = np.asarray([s.texture for s in self._surfaces], np.intp)
        # One look-up a channel is several times faster than indexing with the whole map.
        tables = np.zeros((MAX_SURFACES, 3), np.uint8)
        tables[: len(middle)] = middle
        dots = cv2.merge([cv2.LUT(self._dots, tables[:, channel]) for channel in range(3)])
        flat = cv2.resize(dots, (self.width, self.height), interpolation=cv2.INTER_AREA)
        centres = self._centres()
        pattern = np.take_along_axis(self._textures, textures[centres][None], 0)[0]
        return np.asarray(flat + pattern[..., None] * half[centres], np.float32)

    def _centres(self) -> Image:
        return self._dots[DOTS // 2 :: DOTS, DOTS // 2 :: DOTS]


def _mean(surface: Surface) -> Color:
    red, green, blue = ((a + b) // 2 for a, b in zip(surface.color, surface.other, strict=True))
    return red, green, blue


def _dots(points: Sequence[Point]) -> NDArray[np.int32]:
    return np.rint(np.asarray(points, np.float64) * DOTS).astype(np.int32)
