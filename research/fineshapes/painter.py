"""Chooses colours: any class may have any, as long as it can be told from what is behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from research.fineshapes.canvas import Box, Canvas, Surface
from research.rng import Color, Rng

__all__ = ["Painter"]


class Painter:
    """A canvas, a source of choices and the few colours all things of the scene share."""

    def __init__(self, rng: Rng, canvas: Canvas) -> None:
        self.rng = rng
        self.canvas = canvas
        self._palette = [rng.color(15, 240) for _ in range(rng.whole(4, 7))]
        # Greys tell of brightness alone, as much of a street does.
        self._palette += [_grey(rng.whole(15, 240)) for _ in range(rng.whole(2, 4))]

    def paint(self, label: int, box: Box | None = None, texture: int = 0) -> int:
        """A new surface of class ``label``.

        Args:
            label: class id.
            box: where it will be drawn, (left, top, right, bottom): the colour is chosen among a
                few so as to stand out there.
            texture: which of the canvas's textures it has.
        """
        tried = [self.rng.tint(self.rng.pick(self._palette), 14) for _ in range(5)]
        color = tried[0]
        if box:
            color = tried[int(_distances(tried, self.canvas.behind(box)).argmax())]
        spread = self.rng.log_between(4, 40) if texture else 6.0
        other = self.rng.tint(color, spread)
        return self.canvas.add(Surface(label, color, other, texture))

    def textured(self, label: int, box: Box | None = None) -> int:
        """A new surface with any of the canvas's textures."""
        return self.paint(label, box, self.rng.whole(1, self.canvas.textures - 1))


def _grey(level: int) -> Color:
    return level, level, level


def _distances(colors: Sequence[Color], behind: Sequence[Color]) -> NDArray[np.float64]:
    """How far each of ``colors`` is from the nearest one behind it, float64 [len(colors)].

    Mostly a matter of brightness, a little of hue; 60 is plain to see, and more adds nothing.
    """
    difference = np.subtract(np.asarray(colors)[:, None], np.asarray(behind)[None])
    distance = abs(difference.mean(2)) + 0.3 * difference.std(2)
    return np.asarray(np.minimum(distance, 60.0).min(1))
