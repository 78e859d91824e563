"""Whole sheets: what kinds of document there are and how each is composed of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from research.fields import noise, resized
from research.pages import pictures
from research.pages.blocks import BLOCKS
from research.pages.classes import LINE, TEXT
from research.pages.fonts import FontLibrary
from research.pages.handwriting import Hand
from research.pages.press import Press
from research.pages.sheet import Box, Ink, Sheet
from research.pages.stamps import press_stamp
from research.pages.textures import paper
from research.pages.words import SCRIPT_WEIGHTS, Writer
from research.rng import Rng

__all__ = ["compose", "compose_spread", "photograph"]


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of document: how often each block comes, and what lies over the print.

    Attributes:
        blocks: weight of each block by its name; none leaves the sheet blank.
        columns: weight of each number of columns.
        stamps: probability of a stamp.
        notes: probability of notes in the margin and marks on the text.
        ruled: probability of notebook rules.
    """

    blocks: Mapping[str, float]
    columns: Mapping[int, float]
    stamps: float = 0.2
    notes: float = 0.1
    ruled: float = 0.0


_ONE = {1: 1.0}
_PROSE = {"paragraph": 20.0, "heading": 1.5, "formula": 0.6, "listing": 0.4}
_MANUAL = {
    "paragraph": 6.0, "heading": 3.0, "code": 3.0, "listing": 2.0, "divider": 1.5, "formula": 0.5,
}  # fmt: skip
_ARTICLE = {
    "paragraph": 12.0, "heading": 2.0, "formula": 2.0, "table": 1.0, "figure": 1.2, "listing": 1.0,
}  # fmt: skip
_MAGAZINE = {
    "paragraph": 7.0, "heading": 2.0, "figure": 3.0, "banner": 1.0, "boxed": 1.0, "divider": 1.0,
}  # fmt: skip
_NEWS = {"paragraph": 12.0, "heading": 2.5, "figure": 1.0, "divider": 2.0}
_LETTER = {
    "paragraph": 6.0, "heading": 1.0, "signature": 1.2, "emblem": 0.5, "gap": 1.0, "divider": 0.4,
}  # fmt: skip
_FORM = {
    "form": 6.0, "table": 2.0, "heading": 2.0, "signature": 1.0, "boxed": 1.0, "paragraph": 1.0,
    "divider": 1.0,
}  # fmt: skip
_INVOICE = {
    "table": 6.0, "heading": 2.0, "emblem": 1.0, "divider": 1.0, "paragraph": 1.0, "signature": 0.7,
}  # fmt: skip
_NOTES = {"handwritten": 8.0, "gap": 0.7}
_ALBUM = {"figure": 6.0, "heading": 1.0, "handwritten": 0.6, "gap": 0.5}

KINDS = {
    Kind(_PROSE, {1: 5, 2: 1}): 5.0,
    Kind(_MANUAL, _ONE): 5.0,
    Kind(_ARTICLE, {1: 1, 2: 3}): 3.0,
    Kind(_MAGAZINE, {1: 1, 2: 2, 3: 2}): 2.5,
    Kind(_NEWS, {3: 2, 4: 1}): 1.5,
    Kind(_LETTER, _ONE, stamps=0.6, notes=0.3): 3.0,
    Kind(_FORM, {1: 4, 2: 1}, stamps=0.7, notes=0.25): 4.0,
    Kind(_INVOICE, _ONE, stamps=0.7, notes=0.25): 3.0,
    Kind(_NOTES, _ONE, stamps=0.2, notes=0.3, ruled=0.7): 6.5,
    Kind(_ALBUM, {1: 2, 2: 1}, notes=0.05): 2.0,
    Kind(dict.fromkeys(BLOCKS, 1.0), {1: 2, 2: 1}, stamps=0.6, notes=0.3): 3.0,
    Kind({}, _ONE, stamps=0.4, notes=0.15, ruled=0.4): 0.7,
}


def compose(rng: Rng, fonts: FontLibrary, size: tuple[int, int], unit: float, body: float) -> Sheet:
    """Print a random sheet.

    Args:
        rng: the choices.
        fonts: the faces to set it in.
        size: height and width in dots.
        unit: dots per pixel of the final image.
        body: size of the body type in dots per em.
    """
    kind = rng.weighted(KINDS)
    sheet = Sheet(paper(rng, *size, unit), unit)
    press = _set_up(rng, fonts, sheet, body)
    if rng.chance(0.12):
        _bleed_through(press)
    if rng.chance(kind.ruled):
        _rule_page(press)
    if kind.blocks:
        _fill(press, kind)
    if rng.chance(0.2):
        _fade(rng, sheet)
    if rng.chance(kind.stamps):
        for _ in range(rng.whole(1, 3)):
            centre = (rng.between(0.1, 0.9) * size[1], rng.between(0.1, 0.9) * size[0])
            press_stamp(rng, fonts, sheet, centre, rng.between(50, 190) * unit)
    if rng.chance(kind.notes):
        _annotate(press)
    if rng.chance(0.06):
        _cut(rng, sheet)
    return sheet


def compose_spread(
    rng: Rng,
    fonts: FontLibrary,
    size: tuple[int, int],
    scale: tuple[float, float],
    spine: float,
) -> Sheet:
    """Two facing pages as one sheet.

    Args:
        rng: the choices.
        fonts: the faces to set it in.
        size: height and width of both together, in dots.
        scale: dots per final pixel, and final pixels per em of body type.
        spine: the left page's share of the width.
    """
    (height, width), (unit, body) = size, scale
    middle = int(width * spine)
    left = compose(rng, fonts, (height, middle), unit, body * unit)
    right = compose(rng, fonts, (height, width - middle), unit, body * unit)
    spread = Sheet(np.concatenate([left.rgb, right.rgb], 1), unit)
    spread.planes = np.concatenate([left.planes, right.planes], 1)
    spread.alpha = np.concatenate([left.alpha, right.alpha], 1)
    return spread


def _set_up(rng: Rng, fonts: FontLibrary, sheet: Sheet, body: float) -> Press:
    """Choose script, faces and inks."""
    script = rng.weighted(
        {script: weight for script, weight in SCRIPT_WEIGHTS.items() if fonts.having(script)}
    )
    face = fonts.choose(rng, script) or fonts.having("latin")[0]
    bold = [other for other in fonts.having(script) if other.bold] or [face]
    related = [other for other in bold if other.family == face.family]
    heading = rng.pick(related or bold) if rng.chance(0.8) else face
    strength = rng.between(0.65, 1.0)
    rules = rng.color(0, 90) if rng.chance(0.6) else rng.color(60, 170)
    return Press(
        rng,
        fonts,
        sheet,
        Writer(rng, script),
        face,
        heading,
        body,
        rng.between(1.1, 1.75),
        Ink(TEXT, rng.color(0, 45 if rng.chance(0.88) else 140), strength),
        Ink(LINE, rules, rng.between(0.5, 1.0)),
        rng.chance(0.55),
    )


def _fill(press: Press, kind: Kind) -> None:
    """Fill the columns from top to bottom."""
    rng, page = press.rng, press.sheet.box
    margins = [rng.between(0.02, 0.11) * page.width for _ in range(3)]
    inner = Box(margins[0], margins[1], page.right - margins[0], page.bottom - margins[2])
    if inner.width < 8 * press.size:
        inner = Box(0, margins[1], page.right, inner.bottom)
    # A column narrower than a few words reads as nothing.
    columns = min(rng.weighted(kind.columns), max(1, int(inner.width / (10 * press.size))))
    top = inner.top
    if columns > 1 and rng.chance(0.6):
        top += BLOCKS["heading"](press, replace(inner, bottom=inner.top + 4 * press.size))
    between = 1.6 * press.size
    width = (inner.width - (columns - 1) * between) / columns
    for column in range(columns):
        left = inner.left + column * (width + between)
        _fill_column(press, kind, Box(left, top, left + width, inner.bottom))
        if column and rng.chance(0.3):
            x = left - between / 2
            press.sheet.rule(
                (x, top), (x, inner.bottom), press.unit * rng.between(0.5, 1), press.rules
            )
    if rng.chance(0.5):
        text, font = str(rng.whole(1, 600)), press.font(0.85)
        x = rng.pick(
            (inner.left, (inner.left + inner.right) / 2, inner.right - font.getlength(text))
        )
        press.show(text, x, page.bottom - 0.4 * margins[2], font, press.ink)
    if rng.chance(0.2):
        press.show(press.writer.title(), inner.left, 0.7 * margins[1], press.font(0.8), press.ink)
        y = 0.8 * margins[1]
        press.sheet.rule((inner.left, y), (inner.right, y), press.unit, press.rules)


def _fill_column(press: Press, kind: Kind, column: Box) -> None:
    while column.height > 2 * press.line:
        block = BLOCKS[press.rng.weighted(kind.blocks)]
        used = block(press, column)
        column = replace(column, top=column.top + max(used, 0.5 * press.line))


def _rule_page(press: Press) -> None:
    """Notebook paper: ruled or squared, with or without a margin line."""
    rng, sheet = press.rng, press.sheet
    page, pitch = sheet.box, press.size * press.rng.between(1.2, 2.4)
    color = rng.pick(((120, 150, 205), (150, 150, 160), (205, 130, 130), (120, 180, 160)))
    ink = Ink(LINE, rng.tint(color, 15), rng.between(0.4, 0.95))
    pen = sheet.unit * rng.between(0.5, 1.3)
    kind = rng.weighted({"ruled": 5, "squared": 3, "dotted": 1})
    rows = np.arange(rng.between(0, 3) * pitch, page.bottom, pitch)
    columns = np.arange(rng.between(0, 1) * pitch, page.right, pitch)
    if kind == "dotted":
        dots = [np.asarray(((x, y), (x, y)), np.float32) for x in columns for y in rows]
        if len(dots) < 20_000:
            sheet.strokes(dots, 1.5 * pen, ink)
        return
    for y in rows:
        sheet.rule((0, float(y)), (page.right, float(y)), pen, ink)
    if kind == "squared":
        for x in columns:
            sheet.rule((float(x), 0), (float(x), page.bottom), pen, ink)
    elif rng.chance(0.6):
        x = rng.between(0.06, 0.2) * page.width
        red = replace(ink, color=rng.tint((220, 90, 90), 15))
        sheet.rule((x, 0), (x, page.bottom), pen, red)


def _bleed_through(press: Press) -> None:
    """The print of the other side, mirrored and pale: it is not ink of this side."""
    rng, sheet = press.rng, press.sheet
    back = Sheet(np.full_like(sheet.rgb, 255), sheet.unit)
    _fill(replace(press, sheet=back), Kind(_PROSE, _ONE))
    shadow = np.asarray(cv2.GaussianBlur(255 - back.rgb[:, ::-1, 1], (0, 0), sheet.unit), np.uint8)
    sheet.tint(shadow, 0, 0, (90, 86, 80), rng.between(0.05, 0.22))


def _fade(rng: Rng, sheet: Sheet) -> None:
    """Let the print pale in places; where it is no longer seen it is no longer labelled."""
    height, width = sheet.alpha.shape
    small = (max(2, height // 8), max(2, width // 8))
    field = noise(rng, *small, rng.between(10, 80) * sheet.unit, 3)
    strength = np.clip(0.85 + rng.between(0.1, 0.4) * field, 0.0, 1.0).astype(np.float32)
    strength = resized(strength, width, height)
    bare = np.asarray(cv2.medianBlur(cv2.resize(sheet.rgb, small[::-1]), 5), np.uint8)
    bare = np.asarray(cv2.resize(bare, (width, height)), np.float32)
    ink = sheet.planes[..., 1:].max(2) > 0
    share = np.where(ink & (sheet.planes[..., 0] == 0), np.clip(strength, 0, 1), 1)[..., None]
    sheet.rgb[:] = (bare + share * (sheet.rgb - bare)).clip(0, 255).astype(np.uint8)
    sheet.planes[..., 1:][strength < 0.3] = 0


def _annotate(press: Press) -> None:
    """Handwriting over print: margin notes, rings, underlines, ticks and crossings-out."""
    rng, sheet, page = press.rng, press.sheet, press.sheet.box
    hand = Hand.draw(rng, press.fonts, press.size * rng.between(0.5, 1.1), press.unit)
    latin = Writer(rng, "latin")
    for _ in range(rng.whole(1, 5)):
        x, y = rng.between(0, 0.8) * page.width, rng.between(0.05, 0.95) * page.height
        reach = press.size * rng.between(3, 14)
        kind = rng.weighted({"note": 4, "ring": 2, "under": 2, "strike": 1, "tick": 1, "name": 1})
        if kind == "note":
            for line in range(rng.whole(1, 3)):
                low = y + line * 3 * hand.size
                hand.line(sheet, latin.words(6)[:6], Box(x, low - hand.size, x + 2 * reach, low))
        elif kind == "ring":
            hand.circle(sheet, Box(x, y, x + reach, y + 1.6 * press.size))
        elif kind == "tick":
            hand.trace(sheet, [np.asarray([[0, 0.6], [0.5, 0], [1.6, 2.0]]) * press.size], x, y)
        elif kind == "name":
            hand.signature(sheet, x, y, reach)
        else:
            waves = rng.normal(0, 0.1 * press.size, 6)
            hand.trace(sheet, [np.column_stack([np.linspace(0, reach, 6), waves])], x, y)


def _cut(rng: Rng, sheet: Sheet) -> None:
    """A dog-eared or torn corner."""
    height, width = sheet.alpha.shape
    reach = rng.between(0.03, 0.15) * width
    ragged = rng.uniform(0.85, 1.15, 9)[:, None]
    share = np.linspace(0, 1, 9)[:, None]
    edge = (np.asarray([[reach, 0.0]]) * (1 - share) + np.asarray([[0.0, reach]]) * share) * ragged
    corners = np.concatenate([[[-9.0, -9.0]], edge])
    if rng.chance(0.5):
        corners[:, 0] = width - corners[:, 0]
    if rng.chance(0.5):
        corners[:, 1] = height - corners[:, 1]
    cv2.fillPoly(sheet.alpha, [corners.astype(np.int32)], 0)


def photograph(rng: Rng, size: tuple[int, int], unit: float) -> Sheet:
    """A photographic print: a picture with or without a white border."""
    sheet = Sheet(np.full((*size, 3), rng.whole(225, 252), np.uint8), unit)
    border = rng.pick((0.0, 0.0, 0.03, 0.06)) * min(size)
    height, width = round(size[0] - 2 * border), round(size[1] - 2 * border)
    sheet.paste(pictures.picture(rng, height, width), border, border)
    return sheet
