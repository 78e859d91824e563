"""Pen writing: a procedural cursive and handwriting-like faces, word by word on a wavering line."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from research.pages.classes import HANDWRITING
from research.pages.fonts import FontFace, FontLibrary
from research.pages.sheet import Box, Ink, Sheet, text_alpha
from research.rng import Color, Rng

__all__ = ["Hand"]

Path = NDArray[np.float64]

# Cursive letters as control points (x, y) in x-heights, y upwards from the baseline.
_LETTERS: dict[str, str] = {
    "a": ".7,.85 .35,1 .05,.5 .3,0 .65,.4 .75,.95 .72,.2 .95,.05",
    "b": ".1,.3 .45,1.6 .35,2.1 .15,1.6 .12,.3 .4,0 .7,.5 .5,.9 .85,.75",
    "c": ".7,.8 .4,1 .1,.5 .35,0 .8,.2",
    "d": ".7,.8 .35,1 .05,.5 .3,0 .65,.5 .8,2.1 .75,.3 1,.05",
    "e": ".05,.4 .5,.6 .6,.9 .35,1 .1,.5 .35,0 .8,.25",
    "f": ".1,.2 .5,1.6 .4,2.1 .25,1.5 .25,-.8 .35,-1 .45,-.5 .3,0 .8,.2",
    "g": ".7,.85 .35,1 .05,.5 .3,.05 .68,.5 .72,.9 .68,-.6 .4,-1 .2,-.7 .9,.1",
    "h": ".1,.3 .45,1.7 .35,2.1 .18,1.6 .15,0 .2,.6 .5,1 .68,.7 .65,.1 .95,.1",
    "i": ".05,.2 .3,1 .28,.2 .6,.1",
    "k": ".1,.3 .45,1.7 .35,2.1 .18,1.6 .15,0 .2,.5 .6,1 .55,.6 .25,.5 .7,0 .95,.15",
    "l": ".05,.2 .45,1.6 .38,2.1 .2,1.6 .2,.2 .6,.1",
    "m": ".05,.7 .2,1 .22,0 .25,.6 .5,1 .6,.7 .58,0 .62,.6 .85,1 1,.7 .98,.1 1.25,.1",
    "n": ".05,.7 .2,1 .22,0 .25,.6 .55,1 .7,.7 .68,.1 .95,.1",
    "o": ".5,1 .15,.8 .1,.3 .4,0 .7,.4 .6,.9 .45,.95 .95,.8",
    "p": ".05,.6 .25,1 .22,-1 .25,.6 .55,1 .75,.6 .55,0 .3,.1 .95,.15",
    "q": ".7,.85 .35,1 .05,.5 .3,.05 .68,.5 .72,.9 .7,-1 .95,-.5 1,.1",
    "r": ".05,.3 .2,1 .3,.85 .55,.9 .5,.2 .8,.1",
    "s": ".05,.2 .4,1 .5,.6 .45,.1 .15,.1 .7,.15",
    "t": ".05,.2 .35,1.6 .3,.3 .45,0 .75,.15",
    "u": ".05,.7 .15,1 .15,.3 .4,0 .65,.4 .7,1 .68,.2 .95,.1",
    "v": ".05,.8 .2,1 .4,0 .7,.9 .95,.8",
    "w": ".05,.8 .15,1 .25,0 .5,.8 .65,0 .9,.9 1.15,.8",
    "x": ".05,.9 .3,.9 .6,.1 .9,.1 .4,.4 .1,.1 .7,.95 .95,.5",
    "y": ".05,.8 .2,1 .25,.4 .5,.2 .7,1 .65,-.6 .4,-1 .2,-.6 .95,.1",
    "z": ".1,.9 .6,.9 .15,.1 .5,0 .4,-.8 .2,-.8 .8,.1",
}
_SHAPES = {
    letter: np.asarray([point.split(",") for point in points.split()], float)
    for letter, points in _LETTERS.items()
}
_PENS: dict[Color, float] = {
    (28, 42, 130): 4,
    (20, 20, 28): 4,
    (40, 70, 170): 2,
    (90, 90, 96): 1.5,
    (170, 28, 36): 1.2,
    (20, 110, 70): 0.5,
    (90, 40, 120): 0.3,
}


def _spline(points: Path, steps: int) -> Path:
    """Catmull-Rom curve through the points, ``steps`` samples between two of them."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])


@dataclass(frozen=True)
class Hand:
    """One person's writing with one pen.

    Attributes:
        size: x-height in dots.
        slant: sideways lean per unit of height.
        width: letter width against its height.
        pen: stroke thickness in dots.
        ink: the pen's ink, of class handwriting.
        wobble: irregularity, as a share of the x-height.
        face: a handwriting-like typeface, or None for the procedural cursive.
    """

    rng: Rng
    size: float
    slant: float
    width: float
    pen: float
    ink: Ink
    wobble: float
    face: FontFace | None

    @classmethod
    def draw(cls, rng: Rng, fonts: FontLibrary, size: float, unit: float) -> Hand:
        """A random writer of the given x-height in dots."""
        color = rng.tint(rng.weighted(_PENS), 12)
        return cls(
            rng,
            size,
            slant=float(rng.normal(0.25, 0.25)),
            width=rng.between(0.75, 1.35),
            pen=float(np.clip(size * rng.between(0.07, 0.18), 0.8 * unit, 3.2 * unit)),
            ink=Ink(HANDWRITING, color, rng.between(0.75, 1.0)),
            wobble=rng.between(0.02, 0.12),
            face=fonts.choose(rng, "latin", handwritten=True) if rng.chance(0.55) else None,
        )

    def word(self, sheet: Sheet, text: str, x: float, y: float) -> float:
        """Write a word from (x, y) on the baseline; return its width in dots."""
        if self.face is not None:
            return self._type(sheet, text, x, y, self.face)
        return self._write(sheet, text, x, y)

    def _type(self, sheet: Sheet, text: str, x: float, y: float, face: FontFace) -> float:
        """Set a word in a handwriting-like face, sheared and a little turned."""
        font = face.load(2.1 * self.size)
        coverage, left, top = text_alpha(font, text)
        height, width = coverage.shape
        shear = 0.3 * (self.slant - 0.25)
        turn = float(self.rng.normal(0, 0.15 * self.wobble))
        pad = int(abs(shear) * height + abs(turn) * width) + 2
        matrix = np.asarray([[1, -shear, pad + shear * -top], [turn, 1, pad - turn * width / 2]])
        size = (width + 2 * pad, height + 2 * pad)
        coverage = np.asarray(cv2.warpAffine(coverage, matrix, size), np.uint8)
        if self.pen > 1.5 * sheet.unit and self.rng.chance(0.5):
            coverage = np.asarray(cv2.dilate(coverage, np.ones((2, 2), np.uint8)), np.uint8)
        sheet.put(coverage, x + left - pad, y + top - pad, self.ink)
        return float(font.getlength(text))

    def _write(self, sheet: Sheet, text: str, x: float, y: float) -> float:
        """Write a word in joined strokes whose thickness follows direction and pressure."""
        rng, strokes, dots, pen = self.rng, [], [], 0.0
        points: list[Path] = []
        for letter in text.lower():
            shape = _SHAPES.get(letter)
            if shape is None:
                # A letter the cursive lacks becomes a plain downstroke, the pen lifted around it.
                strokes += points and [np.concatenate(points)]
                tall = rng.between(0.8, 1.8)
                strokes.append(np.asarray([[pen, tall], [pen + 0.15, 0.5], [pen + 0.1, 0.0]]))
                points, pen = [], pen + 0.5
                continue
            jitter = rng.normal(0, self.wobble, shape.shape)
            points.append((shape + jitter) * (self.width, 1.0) + (pen, 0.0))
            if letter in "ij":
                dots.append((pen + 0.4, rng.between(1.3, 1.6)))
            if letter == "t":
                strokes.append(np.asarray([[pen, 1.25], [pen + 0.3, 1.3], [pen + 0.65, 1.28]]))
            pen += float(shape[-1, 0]) * self.width
            if rng.chance(0.15):
                strokes.append(np.concatenate(points))
                points, pen = [], pen + 0.12
        strokes += points and [np.concatenate(points)]
        strokes += [np.asarray([dot, (dot[0] + 0.06, dot[1] - 0.06)]) for dot in dots]
        self.trace(sheet, [stroke * self.size for stroke in strokes], x, y)
        return pen * self.size

    def trace(self, sheet: Sheet, strokes: list[Path], x: float, y: float) -> None:
        """Draw control points in dots, y upwards, as slanted splines from (x, y)."""
        segments: dict[int, list[Path]] = {}
        for stroke in strokes:
            curve = _spline(stroke, 6)
            curve = np.column_stack([x + curve[:, 0] + self.slant * curve[:, 1], y - curve[:, 1]])
            steps = np.diff(curve, axis=0)
            down = steps[:, 1] / (np.hypot(*steps.T) + 1e-6)
            swell = 0.12 * np.sin(np.linspace(0, self.rng.between(2, 12), len(steps)))
            thickness = np.maximum(np.rint(self.pen * (0.85 + 0.3 * down + swell)), 1).astype(int)
            turns = [0, *(np.flatnonzero(np.diff(thickness)) + 1), len(thickness)]
            for start, stop in pairwise(turns):
                segments.setdefault(thickness[start], []).append(curve[start : stop + 1])
        for value, pairs in segments.items():
            sheet.strokes(pairs, float(value), self.ink)

    def line(self, sheet: Sheet, words: list[str], box: Box) -> int:
        """Write words along the bottom of a box; return how many fitted."""
        rng = self.rng
        x, drift = box.left, float(rng.normal(0, 0.012))
        for count, word in enumerate(words):
            if x + 0.8 * self.size * self.width * len(word) > box.right and count:
                return count
            wander = float(rng.normal(0, self.wobble * self.size))
            x += self.word(sheet, word, x, box.bottom + drift * (x - box.left) + wander)
            x += self.size * rng.between(0.6, 1.3)
        return len(words)

    def signature(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        """A quick flourish about ``width`` dots long."""
        rng, count = self.rng, self.rng.whole(6, 14)
        steps = np.sort(rng.uniform(0, width, count)) + rng.normal(0, width / 12, count)
        heights = rng.uniform(-0.8, 2.2, count) * self.size
        self.trace(sheet, [np.column_stack([steps, heights])], x, y)

    def circle(self, sheet: Sheet, box: Box) -> None:
        """Ring a box by hand, a little more than once around."""
        rng = self.rng
        angles = np.linspace(0, rng.between(6.2, 8), 14) + rng.between(0, 6)
        wobble = 1 + rng.normal(0, 0.06, 14)
        ring = np.column_stack([np.cos(angles) * box.width, np.sin(angles) * box.height])
        centre = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
        self.trace(sheet, [ring * 0.6 * wobble[:, None]], *centre)
