"""Coverage of whole leaves by print, by handwriting and by rules, drawn fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from research.fields import Field, Image, clouds
from research.pages.classes import HANDWRITING
from research.pages.fonts import FontFace, FontLibrary
from research.pages.handwriting import Hand
from research.pages.press import fitting
from research.pages.sheet import PLANES, Box, Sheet, text_alpha
from research.pages.words import Writer
from research.rng import Rng

__all__ = ["LETTERINGS", "Lettering", "rules"]

Lettering = Callable[[Rng, FontLibrary, int, float], Field]

_SCRIPTS = {"latin": 12.0, "greek": 2.0, "cyrillic": 2.0, "hebrew": 0.4, "arabic": 0.4,
            "devanagari": 0.4, "cjk": 0.6}  # fmt: skip


def printed(rng: Rng, fonts: FontLibrary, side: int, em: float) -> Field:
    """Set a square of ``side`` dots full of type of ``em`` dots, float32 in 0..1."""
    known = {name: weight for name, weight in _SCRIPTS.items() if fonts.having(name)}
    script = rng.weighted(known)
    face = fonts.choose(rng, script) or fonts.having("latin")[0]
    font = face.load(em, script in {"arabic", "devanagari"})
    writer = Writer(rng, script)
    plane = PillowImage.new("L", (side, side))
    draw = ImageDraw.Draw(plane)
    leading = em * rng.between(1.0, 1.7)
    left, right = (rng.between(-0.3, 0.15) * side for _ in range(2))
    width = max(side - left - right, 3 * em)
    shouted, spaced = rng.chance(0.08), rng.between(1.5, 4) if rng.chance(0.06) else 1.0
    y = rng.between(-0.5, 1.5) * leading
    while y < side + em:
        if rng.chance(0.06):
            y += leading * rng.between(0.5, 3)
        if rng.chance(0.07):
            y += _headline(rng, fonts, draw, (left, y, width, em))
            continue
        words = writer.words(max(3, int(width / em)))
        count, used = fitting(words, font, width)
        row = words[:count] if rng.chance(0.93) else words[: max(1, count // 2)]
        gap = font.getlength(" ")
        if len(row) == count > 1 and used + gap * count < 1.2 * width:
            gap = (width - used) / (count - 1)
        x = left + (em * 1.5 if rng.chance(0.12) else 0)
        for word in row:
            shown = word.upper() if shouted else word
            draw.text((x, y), shown, 255, font, anchor="ls")
            x += (font.getlength(shown) + gap) * spaced
        y += leading
    return np.asarray(plane, np.float32) / np.float32(255)


def _headline(
    rng: Rng, fonts: FontLibrary, draw: ImageDraw.ImageDraw, place: tuple[float, ...]
) -> float:
    left, y, width, em = place
    size = min(em * rng.log_between(1.2, 6), 0.6 * float(draw.im.size[1]))
    face = fonts.choose(rng, "latin") or fonts.having("latin")[0]
    font, text = face.load(size), Writer(rng, "latin").title(4)
    x = left + rng.pick((0.0, 0.5)) * max(0.0, width - font.getlength(text))
    draw.text((x, y + size), text, 255, font, anchor="ls")
    return 1.4 * size + 0.4 * em


def handwritten(rng: Rng, fonts: FontLibrary, side: int, em: float) -> Field:
    """Write a square of ``side`` dots full by one hand, x-height about 0.4 ``em``."""
    face = fonts.choose(rng, "latin", handwritten=True)
    if face is None or rng.chance(0.25):
        return _cursive(rng, fonts, side, em)
    return _penned(rng, face, side, em)


def _penned(rng: Rng, face: FontFace, side: int, em: float) -> Field:
    """A handwriting-like face, every word leaning, wandering and stretched in its own way."""
    font, writer = face.load(1.15 * em), Writer(rng, "latin")
    plane = np.zeros((side, side), np.uint8)
    leading = em * rng.between(0.9, 2.2)
    shear, width = float(rng.normal(0, 0.25)), rng.between(0.75, 1.3)
    unrest, gap = rng.between(0.2, 1.0), rng.between(0.25, 0.9) * em
    drift, y = float(rng.normal(0, 0.02)), rng.between(-0.5, 1.5) * leading
    while y < side + em:
        x = rng.between(-0.2, 0.1) * side
        stop = side * (rng.between(0.3, 1.0) if rng.chance(0.15) else 1.1)
        for word in writer.words(60):
            if x > stop:
                break
            cover, left, top = text_alpha(font, word)
            height, long = cover.shape
            lean = shear + 0.06 * unrest * float(rng.normal())
            grown = width * (1 + 0.08 * unrest * float(rng.normal()))
            turn = 0.03 * unrest * float(rng.normal())
            pad = int(abs(lean) * height) + 2
            matrix = np.asarray([[grown, -lean, pad + max(lean, 0) * height],
                                 [turn, 1, abs(turn) * long + 1]])  # fmt: skip
            size = (int(grown * long) + 2 * pad, height + int(2 * abs(turn) * long) + 2)
            patch = np.asarray(cv2.warpAffine(cover, matrix, size), np.uint8)
            low = y + drift * x + 0.06 * em * unrest * float(rng.normal())
            _stamp(plane, patch, round(x + left - pad), round(low + top))
            x += grown * font.getlength(word) + gap * rng.between(0.7, 1.5)
        y += leading * (1 + 0.06 * unrest * float(rng.normal()))
        if rng.chance(0.08):
            y += leading
    bent = 0.05 * em * unrest
    moved = [bent * clouds(rng, side, rng.between(0.8, 2.5) * em) for _ in range(2)]
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    bowed = cv2.remap(plane, columns + moved[0], rows + moved[1], cv2.INTER_LINEAR)
    return np.divide(bowed, 255, dtype=np.float32)


def _stamp(plane: Image, patch: Image, left: int, top: int) -> None:
    """Lay a patch into the plane, the darker of both."""
    x0, y0 = max(left, 0), max(top, 0)
    x1 = min(left + patch.shape[1], plane.shape[1])
    y1 = min(top + patch.shape[0], plane.shape[0])
    if x0 < x1 and y0 < y1:
        area = plane[y0:y1, x0:x1]
        np.maximum(area, patch[y0 - top : y1 - top, x0 - left : x1 - left], out=area)


def _cursive(rng: Rng, fonts: FontLibrary, side: int, em: float) -> Field:
    """Joined strokes of a pen, thicker where it presses."""
    sheet = Sheet(np.full((side, side, 3), 255, np.uint8), 1.0)
    drawn = Hand.draw(rng, fonts, 0.42 * em, 2.0)
    pen = max(1.6, em * rng.log_between(0.015, 0.11))
    hand = Hand(rng, drawn.size, drawn.slant, drawn.width, pen, drawn.ink, drawn.wobble, None)
    leading, writer = em * rng.between(1.0, 2.2), Writer(rng, "latin")
    y = rng.between(0.3, 1.2) * leading
    while y < side + 0.3 * em:
        box = Box(rng.between(-0.1, 0.1) * side, y - em, side, y)
        hand.line(sheet, writer.words(max(2, int(side / em))), box)
        y += leading
    return np.divide(sheet.planes[..., PLANES.index(HANDWRITING)], 255, dtype=np.float32)


def rules(rng: Rng, side: int, em: float) -> Field:
    """Ruled or squared paper, a frame, or a few lines, float32 in 0..1."""
    plane = np.zeros((side, side), np.uint8)
    pitch, pen = em * rng.between(0.9, 2.4), max(2, round(2 * rng.log_between(0.7, 4)))
    kind = rng.weighted({"ruled": 4, "squared": 2, "few": 3, "column": 2})
    start = rng.between(0, 1) * pitch
    places: Mapping[int, np.ndarray] = {
        0: np.arange(start, side, pitch) if kind in {"ruled", "squared"} else np.empty(0),
        1: np.arange(start, side, pitch) if kind == "squared" else np.empty(0),
    }
    if kind == "few":
        places = {axis: rng.uniform(0, side, rng.whole(0, 3)) for axis in (0, 1)}
    if kind == "column" or (kind == "ruled" and rng.chance(0.4)):
        places = {**places, 1: rng.uniform(0, side, rng.whole(1, 3))}
    for axis, offsets in places.items():
        for offset in offsets:
            ends = [0, side] if kind != "few" else sorted(rng.uniform(-0.3, 1.3, 2) * side)
            path = np.asarray([(16 * end, 16 * offset) for end in ends]).astype(np.int32)
            path = path[:, ::-1].copy() if axis else path
            cv2.polylines(plane, [path], False, 255, pen, cv2.LINE_AA, 4)
    return np.divide(plane, 255, dtype=np.float32)


LETTERINGS: Mapping[str, Lettering] = {"print": printed, "hand": handwritten}
