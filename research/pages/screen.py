"""What browsers, word processors and slides show: type to the pixel, on light and on dark.

Nothing is worn or warped here. Small type is mostly greys between letter and ground, so this is
where the network learns that a pixel is ink if at least half of it is.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ppool.training.dataset import Sample
from research.fields import Field, Image, as_image
from research.pages.ageing import seen
from research.pages.classes import HANDWRITING, LINE, PAPER, PICTURE, TEXT
from research.pages.fonts import FontLibrary
from research.pages.lettering import LETTERINGS, rules
from research.pages.pictures import chart, picture
from research.rng import Rng

__all__ = ["draw_screen"]

_SIDE = 512
# Ink and ground differ by at least this, of 255.
_CONTRAST = 90
# Share of the screens and projected slides that somebody photographed.
_PHOTOGRAPHED = 0.3


def draw_screen(rng: Rng, fonts: FontLibrary) -> Sample:
    """Draw a square view of a screen or of a page made for one, 512 pixels wide."""
    slide = rng.chance(0.35)
    dark = rng.chance(0.6 if slide else 0.3)
    ground = _ground(rng, dark)
    image, mask = ground.copy(), np.full((_SIDE, _SIDE), PAPER, np.uint8)
    # Drawn finer and reduced, as printers' files are, or as the screen's own renderer has it.
    fine = rng.pick((1, 1, 3))
    em = rng.log_between(20, 150) if slide else rng.log_between(7, 36)
    for label, cover in _marks(rng, fonts, (em, fine), slide):
        ink = _ink(rng, ground, dark)
        image += cover[..., None] * (ink - image)
        mask[_half_covered(cover)] = label
    for _ in range(rng.weighted({0: 6, 1: 3, 2: 1} if slide else {0: 8, 1: 2, 2: 1})):
        _illustrate(rng, image, mask)
    if rng.chance(_PHOTOGRAPHED):
        return Sample(seen(rng, image / np.float32(255), rng.between(0, 0.8), shadow=0.05), mask)
    return Sample(_file(rng, image), mask)


def _ground(rng: Rng, dark: bool) -> Field:
    """One colour, or a slow change from one to another, float32 [side, side, 3] of 0 to 255."""
    first = rng.color(0, 70) if dark else rng.color(205, 255)
    if not dark and rng.chance(0.6):
        first = (255, 255, 255)
    colors = [np.asarray(first, np.float32)]
    if rng.chance(0.2):
        colors.append(np.asarray(rng.tint(first, 25), np.float32))
    along = np.linspace(0, 1, _SIDE, dtype=np.float32)[:, None, None]
    ground = colors[0] + along * (colors[-1] - colors[0])
    full = np.broadcast_to(ground, (_SIDE, _SIDE, 3)).copy()
    return np.ascontiguousarray(full.swapaxes(0, 1)) if rng.chance(0.5) else full


def _ink(rng: Rng, ground: Field, dark: bool) -> Field:
    """A colour that can be read on the ground."""
    level = float(ground.mean())
    while True:
        if rng.chance(0.6):
            color = (rng.whole(170, 255),) * 3 if dark else (rng.whole(0, 90),) * 3
        else:
            color = rng.color(110, 255) if dark else rng.color(0, 170)
        ink = np.asarray(color, np.float32)
        if abs(float(ink.mean()) - level) > _CONTRAST:
            return ink


def _marks(
    rng: Rng, fonts: FontLibrary, size: tuple[float, int], slide: bool
) -> list[tuple[int, Field]]:
    """The classes of marks from the lowest up, and how much of each pixel each covers."""
    em, fine = size
    side, marks = _SIDE * fine, []
    if rng.chance(0.25):
        marks.append((LINE, _reduced(rules(rng, side, max(em, 12) * fine))))
    kind = rng.weighted({"print": 80, "hand": 12, "blank": 8})
    if kind == "blank":
        return marks
    cover = _reduced(LETTERINGS[kind](rng, fonts, side, em * fine))
    if slide or rng.chance(0.5):
        cover = _within(rng, cover)
    if slide and rng.chance(0.6):
        end = rng.whole(_SIDE // 8, _SIDE // 3)
        large = min(em * rng.between(1.3, 3.5), 0.9 * end)
        title = _reduced(LETTERINGS["print"](rng, fonts, side, large * fine))
        cover[:end], title[end:] = 0, 0
        marks.append((TEXT, title))
    marks.append((TEXT if kind == "print" else HANDWRITING, cover))
    return marks


def _reduced(cover: Field) -> Field:
    if len(cover) == _SIDE:
        return cover
    return np.asarray(cv2.resize(cover, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def _within(rng: Rng, cover: Field) -> Field:
    """Leave what lies in one box, as a column or the list of a slide."""
    kept = np.zeros_like(cover)
    top, left = rng.whole(0, _SIDE // 2), rng.whole(0, _SIDE // 2)
    rows = slice(top, top + rng.whole(_SIDE // 6, _SIDE))
    columns = slice(left, left + rng.whole(_SIDE // 3, _SIDE))
    kept[rows, columns] = cover[rows, columns]
    return kept


def _half_covered(cover: Field) -> NDArray[np.bool_]:
    """Half of the pixel, or the core of a stroke that nowhere covers as much."""
    peak = np.asarray(cv2.dilate(cover, np.ones((5, 5), np.uint8)), np.float32)
    return np.asarray(cover >= np.clip(0.9 * peak, 0.2, 0.5))


def _illustrate(rng: Rng, image: Field, mask: Image) -> None:
    """Lay a photograph or a chart over a part of it."""
    height, width = rng.whole(80, 360), rng.whole(80, 420)
    top, left = rng.whole(0, _SIDE - 60), rng.whole(0, _SIDE - 60)
    draw = chart if rng.chance(0.5) else picture
    shown = draw(rng, height, width)[: _SIDE - top, : _SIDE - left]
    image[top : top + height, left : left + width] = shown
    mask[top : top + height, left : left + width] = PICTURE


def _file(rng: Rng, image: Field) -> Image:
    """As it is, compressed, or as a camera without great faults sees it."""
    if rng.chance(0.3):
        image = image * rng.between(0.75, 1.0) + rng.between(0, 25)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.between(0.2, 0.8)), np.float32)
        grain = rng.standard_normal((_SIDE, _SIDE, 1), np.float32)
        image = image + rng.log_between(0.5, 6) * grain
    file = as_image(image)
    if rng.chance(0.4):
        quality = int(rng.log_between(35, 97))
        _, data = cv2.imencode(".jpg", file, [cv2.IMWRITE_JPEG_QUALITY, quality])
        file = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return file
