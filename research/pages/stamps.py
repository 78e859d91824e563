"""Rubber stamps: round, rectangular and dated, unevenly inked and turned."""

from __future__ import annotations

import cv2
import numpy as np

from research.fields import Image, as_image, noise
from research.pages.classes import STAMP
from research.pages.fonts import FontFace, FontLibrary
from research.pages.sheet import Ink, Sheet, text_alpha
from research.pages.words import Writer
from research.rng import Color, Rng

__all__ = ["STAMP_INKS", "press_stamp", "stamp_coverage"]

STAMP_INKS: dict[Color, float] = {
    (190, 30, 40): 4,
    (40, 60, 160): 4,
    (90, 50, 140): 2,
    (20, 120, 80): 1,
    (40, 40, 50): 0.7,
}


def press_stamp(
    rng: Rng, fonts: FontLibrary, sheet: Sheet, centre: tuple[float, float], size: float
) -> None:
    """Press a stamp about ``size`` dots wide around ``centre`` (x, y)."""
    side = max(24, int(size))
    coverage = stamp_coverage(rng, fonts, side, sheet.unit)
    ink = Ink(STAMP, rng.tint(rng.weighted(STAMP_INKS), 15), rng.between(0.5, 0.95))
    sheet.put(coverage, centre[0] - side / 2, centre[1] - side / 2, ink)


def stamp_coverage(rng: Rng, fonts: FontLibrary, side: int, unit: float) -> Image:
    """What a stamp leaves on a square of ``side`` dots, ``unit`` dots a pixel, uint8."""
    face = fonts.choose(rng, "latin")
    if face is None:
        raise ValueError("fonts: expected a face with Latin letters; use FontLibrary.find()")
    pattern = rng.weighted({_round: 5, _box: 5, _date: 2})(rng, face, side)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.normal(0, 14)), 1)
    pattern = np.asarray(cv2.warpAffine(pattern, matrix, (side, side)), np.uint8)
    # A rubber stamp leaves less ink where it presses less, and none in the paper's pits.
    pressure = 1.1 + rng.between(0, 0.45) * noise(rng, side, side, side / 2, 2)
    pits = rng.between(0, 0.35) * noise(rng, side, side, 4 * unit, 2)
    share = np.clip(pressure + pits, 0, 1)
    return as_image(pattern * np.where(share > 0.25, share, 0))


def _pen(rng: Rng, side: int) -> int:
    return max(1, round(side * rng.between(0.008, 0.025)))


def _set_line(
    pattern: Image, face: FontFace, text: str, middle: float, box: tuple[float, float]
) -> None:
    """Set text centred on row ``middle``, as large as ``box`` (width, height) lets it be."""
    side = pattern.shape[1]
    font = face.load(box[1])
    font = face.load(box[1] * min(1.0, box[0] / max(1.0, font.getlength(text))))
    coverage, _, _ = text_alpha(font, text)
    coverage = coverage[:side, :side]
    top = max(0, int(middle - coverage.shape[0] / 2))
    left = max(0, (side - coverage.shape[1]) // 2)
    area = pattern[top : top + coverage.shape[0], left : left + coverage.shape[1]]
    np.maximum(area, coverage[: area.shape[0]], out=area)


def _round(rng: Rng, face: FontFace, side: int) -> Image:
    pattern = np.zeros((side, side), np.uint8)
    half, pen, radius = side // 2, _pen(rng, side), int(side * 0.46)
    cv2.circle(pattern, (half, half), radius, 255, pen, cv2.LINE_AA)
    if rng.chance(0.6):
        cv2.circle(pattern, (half, half), radius - 2 * pen - 1, 255, max(1, pen // 2), cv2.LINE_AA)
    writer = Writer(rng, "latin")
    text = " ".join(writer.word() for _ in range(9)).upper()
    letter = side * rng.between(0.07, 0.12)
    font, track = face.load(letter), radius - 1.1 * letter - 2 * pen
    angle, end = rng.between(-3.3, -2.8), rng.between(0.2, 3.1)
    for character in text:
        if angle > end:
            break
        _set_turned(pattern, text_alpha(font, character)[0], angle, track)
        angle += (font.getlength(character) + 0.1 * letter) / track
    if rng.chance(0.6):
        cv2.circle(
            pattern, (half, half), int(track - 0.9 * letter), 255, max(1, pen // 2), cv2.LINE_AA
        )
    if rng.chance(0.4):
        _star(pattern, half, int(side * rng.between(0.08, 0.16)))
    else:
        for line in range(rng.whole(1, 2)):
            middle = half + (line - 0.3) * side * 0.13
            _set_line(pattern, face, writer.title(2).upper(), middle, (0.45 * side, 0.12 * side))
    return pattern


def _set_turned(pattern: Image, glyph: Image, angle: float, track: float) -> None:
    """Put a glyph on the circle of radius ``track``, its foot towards the middle."""
    side, (height, width) = pattern.shape[0], glyph.shape
    turn = angle + np.pi / 2
    cosine, sine = float(np.cos(turn)), float(np.sin(turn))
    x = side / 2 + track * np.cos(angle) - cosine * width / 2 + sine * height / 2
    y = side / 2 + track * np.sin(angle) - sine * width / 2 - cosine * height / 2
    matrix = np.asarray([[cosine, -sine, x], [sine, cosine, y]])
    np.maximum(pattern, np.asarray(cv2.warpAffine(glyph, matrix, (side, side))), out=pattern)


def _star(pattern: Image, half: int, radius: int) -> None:
    turns = np.arange(10) * np.pi / 5 - np.pi / 2
    reach = np.where(np.arange(10) % 2, 0.4, 1.0) * radius
    corners = half + np.column_stack([np.cos(turns), np.sin(turns)]) * reach[:, None]
    cv2.fillPoly(pattern, [corners.astype(np.int32)], 255, cv2.LINE_AA)


def _box(rng: Rng, face: FontFace, side: int) -> Image:
    pattern = np.zeros((side, side), np.uint8)
    pen, half = _pen(rng, side), side // 2
    wide, tall = int(side * 0.47), int(side * rng.between(0.1, 0.28))
    if rng.chance(0.85):
        cv2.rectangle(pattern, (half - wide, half - tall), (half + wide, half + tall), 255, pen)
        if rng.chance(0.4):
            gap = 2 * pen + 1
            corner, opposite = (
                (half - wide + gap, half - tall + gap),
                (half + wide - gap, half + tall - gap),
            )
            cv2.rectangle(pattern, corner, opposite, 255, max(1, pen // 2))
    lines, writer = rng.whole(1, 3), Writer(rng, "latin")
    height = 1.6 * tall / lines
    for line in range(lines):
        middle = half + (line - (lines - 1) / 2) * height
        text = writer.number() if rng.chance(0.2) else writer.title(3).upper()
        _set_line(pattern, face, text, middle, (1.7 * wide, 0.8 * height))
    return pattern


def _date(rng: Rng, face: FontFace, side: int) -> Image:
    pattern = np.zeros((side, side), np.uint8)
    month = Writer(rng, "latin").word()[:3].upper()
    text = f"{rng.whole(1, 28):02d} {month} {rng.whole(1950, 2030)}"
    _set_line(pattern, face, text, side / 2, (0.9 * side, 0.3 * side))
    if rng.chance(0.4):
        pen = _pen(rng, side)
        for row in (0.36, 0.64):
            y = int(side * row)
            cv2.line(pattern, (side // 20, y), (side - side // 20, y), 255, pen)
    return pattern
