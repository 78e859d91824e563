"""A close view of one leaf: old or new paper, written or printed, as scanners and phones see it.

Much cheaper than a whole page: only the ink is drawn, at twice the final resolution, warped and
reduced. How much of a pixel it covers decides colours and labels alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ppool.training.dataset import Sample
from research.fields import Field, Image, as_image, clouds, noise
from research.pages.ageing import aged_paper, flat_paper, seen, worn
from research.pages.classes import DESK, HANDWRITING, LINE, PAPER, PICTURE, STAMP, TEXT
from research.pages.fonts import FontLibrary
from research.pages.lettering import LETTERINGS, rules
from research.pages.pictures import chart, picture
from research.pages.stamps import STAMP_INKS, stamp_coverage
from research.pages.textures import desk, is_plain
from research.rng import Color, Rng

__all__ = ["draw_leaf"]

_SIDE = 512
# Share of the leaves that are as flat as a screen or a sheet of copy paper.
_CLEAN = 0.2
# Share of the others that the ink of the other side shines through.
_THROUGH = 0.8
# Of others still that are written on in one part only; where the other side's ink is strong, most:
# what is there alone must not pass for this side's.
_PART, _PART_STRONG = 0.22, 0.5
# What lies beyond a leaf's edge is at least so much lighter or darker, of 1.
_APART = 0.15
# Dots along a pixel's side.
_UNIT = 2
# How dark a pixel is against its stroke where the label ends: where people who mark ink by hand
# end it. Of strokes that nowhere reach their full darkness it is the share _CORE.
_EDGE, _CORE = 0.38, 0.46

Warp = tuple[Field, Field]

_PRINTS: dict[Color, float] = {
    (20, 18, 18): 6, (45, 40, 36): 3, (75, 62, 50): 1, (130, 30, 30): 0.6, (30, 50, 110): 0.5,
}  # fmt: skip
_PENS: dict[Color, float] = {
    (30, 26, 26): 3, (60, 42, 30): 3, (98, 70, 46): 2.5, (130, 98, 66): 1.5, (28, 40, 110): 2,
    (50, 80, 160): 1, (110, 110, 112): 1.5, (150, 60, 50): 0.9, (40, 90, 60): 0.3,
    (90, 50, 120): 0.3,
}  # fmt: skip
_RULES: dict[Color, float] = {
    (120, 150, 205): 2, (150, 150, 160): 2, (205, 130, 130): 1, (60, 55, 50): 3, (110, 90, 70): 1,
}  # fmt: skip

_COLORS: dict[int, dict[Color, float]] = {
    TEXT: _PRINTS,
    HANDWRITING: _PENS,
    LINE: _RULES,
    STAMP: STAMP_INKS,
}


@dataclass(frozen=True)
class _Leaf:
    """What the layers of one leaf have in common.

    Attributes:
        rng: the choices.
        fonts: the faces to choose from.
        em: size of the letters in dots.
        warp: where every dot comes from.
    """

    rng: Rng
    fonts: FontLibrary
    em: float
    warp: Warp

    def written(self, kind: str, em: float) -> Field:
        """How much of each pixel lettering covers, float32 [side, side], its strokes worn."""
        cover = LETTERINGS[kind](self.rng, self.fonts, _SIDE * _UNIT, em)
        return self.photographed(worn(self.rng, cover, em))

    def photographed(self, cover: Field) -> Field:
        """Coverage in dots as the camera sees it, in pixels."""
        moved = cv2.remap(cover, *self.warp, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        small = cv2.resize(moved, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)


def draw_leaf(rng: Rng, fonts: FontLibrary) -> Sample:
    """Draw a square view of a leaf, 512 pixels wide; now and then of a photograph or a desk."""
    other = rng.weighted({None: 84, PICTURE: 13, DESK: 3})
    if other is not None:
        view = desk(rng, _SIDE, _SIDE, 1.0) if other == DESK else picture(rng, _SIDE, _SIDE)
        label = PAPER if is_plain(view) else other
        scene = np.asarray(view / 255, np.float32)
        # Photocopied, a table would be paper to any eye.
        file = seen(rng, scene, 0.0, grainy=other != DESK)
        return Sample(file, np.full((_SIDE, _SIDE), label, np.uint8))
    clean = rng.chance(_CLEAN)
    kind = rng.weighted({"print": 40, "hand": 40, "both": 18, "blank": 35 if clean else 13})
    em = rng.log_between(10, 100) if kind == "print" else rng.log_between(15, 170)
    if kind == "print" and rng.chance(0.1):
        em = rng.log_between(100, 420)
    leaf = _Leaf(rng, fonts, em * _UNIT, _warp(rng, em * _UNIT))
    blur = rng.between(0, float(np.clip(em / 22, 0.5, 1.8))) if rng.chance(0.75) else 0.0
    image = flat_paper(rng, _SIDE) if clean else aged_paper(rng, _SIDE)
    faint = rng.chance(0.3)
    strong = not faint and not clean and rng.chance(0.5)
    if strong or rng.chance(0.0 if clean else _THROUGH):
        back = kind if kind in LETTERINGS and rng.chance(0.8) else rng.pick(("print", "hand"))
        cover = leaf.written(back, leaf.em * rng.log_between(0.6, 1.6))
        most = 0.8 if kind == "blank" else 0.15 if faint else 0.4
        image = _show_through(rng, image, cover, (0.3, 0.75) if strong else (0.03, most))
    mask = np.full((_SIDE, _SIDE), PAPER, np.uint8)
    for label, cover in _inks(leaf, kind, _PART_STRONG if strong else _PART):
        image = _inked(rng, image, (label, cover), em, faint=faint, dark=strong)
        mask[_visible(cover, blur)] = label
    if rng.chance(0.14):
        _illustrate(rng, image, mask)
    if rng.chance(0.27):
        image, mask = _bordered(rng, image, mask)
    if clean and rng.chance(0.5 if kind != "blank" else 0.2):
        return Sample(as_image(255 * image), mask)
    shadow = 0.6 if kind == "blank" else 0.2
    return Sample(seen(rng, image, blur, grainy=not faint, shadow=shadow), mask)


def _inks(leaf: _Leaf, kind: str, part: float) -> list[tuple[int, Field]]:
    """The classes of ink on the leaf, from the lowest up, and how much of a pixel each covers.

    ``part`` is the chance that one part only is written on.
    """
    rng, em, inks = leaf.rng, leaf.em, []
    if rng.chance(0.4 if kind == "blank" else 0.2):
        inks.append((LINE, leaf.photographed(rules(rng, _SIDE * _UNIT, em))))
    if rng.chance(0.25):
        inks.append((STAMP, leaf.photographed(_stamped(leaf))))
    label = HANDWRITING if kind == "hand" else TEXT
    if kind == "print" and em < 60 and rng.chance(0.1):
        end = rng.whole(_SIDE // 8, _SIDE // 2)
        title, body = leaf.written("print", em * rng.between(2, 6)), leaf.written("print", em)
        title[end:], body[:end] = 0, 0
        inks += [(TEXT, title), (TEXT, body)]
    elif kind != "blank":
        cover = leaf.written("hand" if kind == "hand" else "print", em)
        inks.append((label, _somewhere(rng, cover) if rng.chance(part) else cover))
    if kind == "both":
        cover = leaf.written("hand", em * rng.between(0.6, 2.0))
        inks.append((HANDWRITING, _somewhere(rng, cover)))
    return inks


def _stamped(leaf: _Leaf) -> Field:
    """One to three rubber stamps, parts of which may lie beyond the view."""
    rng, side = leaf.rng, _SIDE * _UNIT
    plane = np.zeros((side, side), np.float32)
    for _ in range(rng.whole(1, 3)):
        size = round(rng.log_between(60, 400) * _UNIT)
        cover = stamp_coverage(rng, leaf.fonts, size, _UNIT)
        top, left = (rng.whole(-size // 3, side - 2 * size // 3) for _ in range(2))
        area = plane[max(top, 0) : top + size, max(left, 0) : left + size]
        shown = cover[max(-top, 0) :, max(-left, 0) :][: area.shape[0], : area.shape[1]]
        np.maximum(area, shown / np.float32(255), out=area)
    return plane


def _somewhere(rng: Rng, cover: Field) -> Field:
    """Leave a part of the writing only."""
    top, left = rng.whole(0, _SIDE // 2), rng.whole(-_SIDE // 3, _SIDE // 2)
    rows = slice(top, top + rng.whole(_SIDE // 8, _SIDE // 2))
    columns = slice(max(left, 0), left + rng.whole(_SIDE // 3, _SIDE))
    kept = np.zeros_like(cover)
    kept[rows, columns] = cover[rows, columns]
    return kept


def _visible(cover: Field, blur: float) -> NDArray[np.bool_]:
    """Where ink is: seen through the lens, above a share of the darkest nearby."""
    if blur > 0.25:
        cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), blur), np.float32)
    peak = np.asarray(cv2.dilate(cover, np.ones((5, 5), np.uint8)), np.float32)
    return np.asarray(cover >= np.clip(_CORE * peak, 0.15, _EDGE))


def _inked(
    rng: Rng, image: Field, ink: tuple[int, Field], em: float, *, faint: bool, dark: bool
) -> Field:
    """Print with an ink that took more or less evenly; ``dark`` is darker than the other side's."""
    label, cover = ink
    inks = _COLORS[label]
    color = np.asarray(rng.tint(rng.weighted(inks), 12), np.float32) / 255
    mean = (
        rng.between(0.22, 0.6)
        if faint or (label == LINE and rng.chance(0.5))
        else rng.between(0.85 if dark else 0.7, 1.0)
    )
    if dark:
        color *= rng.between(0.3, 0.8)
    uneven = rng.between(0.0, 0.22 if label == HANDWRITING else 0.13)
    density = mean + uneven * clouds(rng, _SIDE, rng.log_between(0.4, 6) * em, 2)
    if rng.chance(0.35):
        # Ink that missed the paper's hollows, or graphite on its bumps.
        grain = noise(rng, _SIDE, _SIDE, rng.between(1, 3), 1)
        density += rng.between(0.05, 0.3) * grain * (1.3 - mean)
    share = (cover * np.clip(density, 0.18, 1))[..., None]
    return np.asarray(image + share * (np.minimum(color, image) - image), np.float32)


def _show_through(rng: Rng, image: Field, back: Field, strengths: tuple[float, float]) -> Field:
    """Darken by the writing of the other side: soft, mirrored, and not ink of this side."""
    mirrored = back[:, ::-1] if rng.chance(0.8) else np.rot90(back)[:, ::-1]
    soft = cv2.GaussianBlur(np.ascontiguousarray(mirrored), (0, 0), rng.log_between(0.3, 3.5))
    uneven = np.clip(0.6 + 0.5 * clouds(rng, _SIDE, _SIDE / rng.between(1, 6), 2), 0, 1.2)
    share = rng.between(*strengths) * soft * uneven
    brown = np.asarray((0.75, 1.0, 1.15) if rng.chance(0.6) else (1, 1, 1), np.float32)
    return np.asarray(image * np.clip(1 - share[..., None] * brown, 0.05, 1), np.float32)


def _illustrate(rng: Rng, image: Field, mask: Image) -> None:
    """Lay a photograph or a chart on the leaf, over the ink."""
    height, width = (rng.whole(60, 420) for _ in range(2))
    top, left = (max(rng.whole(-100, _SIDE - 60), 40 - extent) for extent in (height, width))
    draw = chart if rng.chance(0.5) else picture
    scene = draw(rng, height, width).astype(np.float32) / 255
    rows = slice(max(top, 0), top + height)
    columns = slice(max(left, 0), left + width)
    shown = scene[rows.start - top :, columns.start - left :]
    # As much light falls on it as on the paper around.
    light = float(np.median(image)) ** 0.5
    area = image[rows, columns]
    area[:] = light * shown[: area.shape[0], : area.shape[1]]
    mask[rows, columns] = PICTURE


def _warp(rng: Rng, em: float) -> Warp:
    """Turned, curled, and uneven as hands and old presses are."""
    side, step = _SIDE * _UNIT, 4
    at = (np.arange(side // step, dtype=np.float32) + 0.5) * step - 0.5
    x, y = np.meshgrid(at - side / 2, at - side / 2)
    turn = np.deg2rad(float(rng.normal(0, 1.5 if rng.chance(0.8) else 8)))
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    depth = 1 + rng.between(-0.1, 0.1) * x / side + rng.between(-0.1, 0.1) * y / side
    x, y = x * depth + side / 2, y * depth + side / 2
    for size, reach in ((side / 2, 0.006 * side), (2.5 * em, 0.02 * em)):
        amount = rng.between(0, 1) * reach
        x = x + amount * clouds(rng, side // step, size / step)
        y = y + amount * clouds(rng, side // step, size / step)
    across, down = (
        np.asarray(cv2.resize(field.astype(np.float32), (side, side)), np.float32)
        for field in (x, y)
    )
    return across, down


def _bordered(rng: Rng, image: Field, mask: Image) -> tuple[Field, Image]:
    """The lid of a scanner, or the table, beyond one or two edges of the leaf."""
    mask = mask.copy()
    table = rng.chance(0.6)
    level = rng.between(0, 0.25) if rng.chance(0.6) else rng.between(0.25, 1)
    paper = float(np.median(image))
    if abs(level - paper) < _APART:
        # What nobody could tell from paper must not be called anything else.
        level = paper - _APART if paper > 2 * _APART else paper + _APART
    color = np.asarray(rng.tint((int(255 * level),) * 3, 8), np.float32) / 255
    surface = np.divide(desk(rng, _SIDE, _SIDE, 1.0), 255, dtype=np.float32) if table else color
    steps = np.arange(_SIDE)
    for _ in range(rng.whole(1, 3)):
        edge = rng.whole(4, 240) + rng.between(-0.06, 0.06) * steps
        edge = edge + rng.between(0, 3) * noise(rng, 1, _SIDE, rng.between(10, 200), 3)[0]
        # Soft within a pixel, so that the label ends where the colour does.
        share = np.clip(edge[:, None] - steps[None], 0, 1).astype(np.float32)
        turn = rng.whole(0, 3)
        share = np.rot90(share, turn)
        grain = 1 + rng.between(0, 0.15) * clouds(rng, _SIDE, rng.between(3, 90), 2)
        # The leaf keeps light from what it lies on.
        shade = 1 - rng.between(0, 0.6) * np.exp(
            -np.abs(edge[:, None] - steps) / rng.between(3, 30)
        )
        lit = grain * np.rot90(shade, turn) if rng.chance(0.5) else grain
        if rng.chance(0.5):
            # Where it curls up towards its edge, the leaf itself is in shade, and still paper.
            far = np.clip(steps - edge[:, None], 0, None) / rng.log_between(6, 160)
            fall = 1 - rng.between(0.1, 0.65) * np.exp(-far)
            image = image * np.rot90(fall, turn)[..., None].astype(np.float32)
        image = image + share[..., None] * (surface * lit[..., None] - image)
        mask[share >= 0.5] = DESK
    return np.asarray(image, np.float32), mask
