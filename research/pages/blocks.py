"""Blocks of rules, pictures and handwriting, and the list of all blocks.

Each function sets one block into a box and returns how tall it came out, in dots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from research.pages import pictures
from research.pages.classes import TEXT
from research.pages.handwriting import Hand
from research.pages.press import Press, fitting, set_words
from research.pages.prose import banner, code, formula, heading, listing, paragraph
from research.pages.sheet import Box, Ink
from research.pages.words import Writer

__all__ = ["BLOCKS"]


def table(press: Press, box: Box) -> float:
    """Rows and columns of words and figures: boxed, ruled, shaded or with dotted leaders."""
    rng = press.rng
    columns, row = rng.whole(2, 6), press.line * rng.between(1.0, 1.9)
    rows = min(rng.whole(2, 12), int(box.height / row))
    if rows < 2:
        return box.height
    edges = np.concatenate([[0], np.sort(rng.uniform(0.3, 1, columns).cumsum())])
    xs = [float(x) for x in box.left + edges / edges[-1] * box.width]
    ys = [box.top + index * row for index in range(rows + 1)]
    if rng.chance(0.3):
        press.sheet.fill(Box(box.left, ys[0], box.right, ys[1]), rng.color(180, 235), 0.9)
    if rng.chance(0.15):
        for top, bottom in zip(ys[1:-1:2], ys[2::2], strict=False):
            press.sheet.fill(Box(box.left, top, box.right, bottom), (225, 228, 232), 0.7)
    _set_cells(press, xs, ys)
    pen = press.unit * rng.between(0.5, 2.0)
    style = rng.weighted({"grid": 5, "rows": 3, "book": 2, "plain": 1, "dotted": 1})
    ruled = {"grid": ys, "rows": ys, "book": [*ys[:2], ys[-1]]}.get(style, [])
    for y in ruled:
        press.sheet.rule((box.left, y), (box.right, y), pen, press.rules)
    if style == "grid":
        for x in xs:
            press.sheet.rule((x, ys[0]), (x, ys[-1]), pen, press.rules)
    if style == "dotted":
        for y in ys[:-1]:
            _dots(press, (xs[1], xs[-1]), y + 0.85 * row, pen)
    return rows * row + press.line


def _set_cells(press: Press, xs: list[float], ys: list[float]) -> None:
    """Names in the first row and column of a table, figures elsewhere; some cells stay empty."""
    font = press.font(press.rng.between(0.8, 1.0))
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            if press.rng.chance(0.08):
                continue
            head = left == xs[0] or top == ys[0]
            words = (press.writer.name() if head else press.writer.number()).split()
            count, used = fitting(words, font, right - left - press.size)
            if used < right - left - 0.4 * press.size:
                y = top + 0.68 * (bottom - top)
                press.show(" ".join(words[:count]), left + 0.4 * press.size, y, font, press.ink)


def _dots(press: Press, span: tuple[float, float], y: float, pen: float) -> None:
    """A dotted or dashed rule."""
    step = press.unit * press.rng.between(2.5, 6)
    dash = step * press.rng.between(0.2, 0.6)
    starts = np.arange(span[0], span[1], step)
    if len(starts):
        paths = [np.asarray(((x, y), (x + dash, y)), np.float32) for x in starts]
        press.sheet.strokes(paths, pen, press.rules)


def form(press: Press, box: Box) -> float:
    """Labels with lines, boxes or combs to fill in, some of them filled in by hand."""
    rng, font, y = press.rng, press.font(0.9), box.top
    hand = Hand.draw(rng, press.fonts, 0.55 * press.size, press.unit)
    kind, filled = rng.pick(("line", "box", "comb", "tick")), rng.chance(0.7)
    pen = press.unit * rng.between(0.5, 1.6)
    for _ in range(rng.whole(2, 8)):
        row = press.line * 1.9
        if y + row > box.bottom:
            break
        y += row
        words = press.writer.title(3).split()
        count, _ = fitting(words, font, 0.4 * box.width)
        label = " ".join(words[:count]) + ":"
        press.show(label, box.left, y, font, press.ink)
        left = min(box.left + font.getlength(label) + press.size, box.right - 4 * press.size)
        low, high = y + 0.3 * press.size, y - 1.1 * press.size
        right = box.right
        if kind == "tick":
            right = left + 1.3 * press.size
        if kind == "line":
            if rng.chance(0.3):
                _dots(press, (left, right), low, pen)
            else:
                press.sheet.rule((left, low), (right, low), pen, press.rules)
        else:
            _frame(press, Box(left, high, right, low), pen)
        if kind == "comb":
            for x in np.arange(left, right, 1.5 * press.size):
                press.sheet.rule((float(x), high), (float(x), low), pen, press.rules)
        if filled and kind == "tick" and rng.chance(0.6):
            cross = np.asarray([[0, 1.2], [0.5, 0.2], [1.4, 1.7]]) * press.size
            hand.trace(press.sheet, [cross], left, y)
        elif filled and kind != "tick" and rng.chance(0.8):
            words = [press.writer.number() if rng.chance(0.3) else Writer(rng, "latin").name()]
            hand.line(press.sheet, words[0].split(), Box(left + hand.size, high, right, y))
    return y - box.top + press.line


def _frame(press: Press, box: Box, pen: float) -> None:
    """A rectangle drawn in rules."""
    corners = (
        (box.left, box.top),
        (box.right, box.top),
        (box.right, box.bottom),
        (box.left, box.bottom),
    )
    path = np.asarray((*corners, corners[0]), np.float32)
    press.sheet.strokes([path], pen, press.rules)


def boxed(press: Press, box: Box) -> float:
    """A paragraph in a frame."""
    inner = box.inset(0.8 * press.size)
    height = set_words(press, inner, press.rng.whole(2, 6), press.font()) + 2 * press.size
    frame = Box(box.left, box.top, box.right, box.top + height)
    _frame(press, frame, press.unit * press.rng.between(0.5, 2.5))
    return height + press.line


def figure(press: Press, box: Box) -> float:
    """A photograph or chart, perhaps framed and captioned."""
    rng = press.rng
    width = box.width * rng.pick((1.0, 1.0, 0.8, 0.5))
    height = min(width * rng.between(0.45, 1.2), box.height - press.line)
    if height < 6 * press.unit:
        return box.height
    left = box.left + rng.pick((0.0, 0.5, 1.0)) * (box.width - width)
    draw = pictures.chart if rng.chance(0.25) else pictures.picture
    press.sheet.paste(draw(rng, round(height), round(width)), left, box.top)
    frame = Box(left, box.top, left + width, box.top + height)
    if rng.chance(0.12):
        y, light = box.top + rng.between(0.3, 0.9) * height, Ink(TEXT, rng.color(200, 255))
        words = press.writer.title(3).split()
        font = press.font(rng.between(1, 2), press.heading)
        count, _ = fitting(words, font, 0.8 * width)
        press.show(" ".join(words[:count]), left + 0.08 * width, y, font, light)
    if rng.chance(0.2):
        _frame(press, frame.inset(-2 * press.unit), press.unit)
    if rng.chance(0.5):
        caption = Box(left, frame.bottom, left + width, box.bottom)
        height += set_words(
            replace(press, size=0.85 * press.size), caption, rng.whole(1, 2), press.font(0.85)
        )
    return height + press.line


def emblem(press: Press, box: Box) -> float:
    """A small logo beside a heading."""
    side = press.size * press.rng.between(2, 5)
    press.sheet.paste(pictures.logo(press.rng, max(8, round(side))), box.left, box.top)
    heading(press, Box(box.left + 1.2 * side, box.top, box.right, box.bottom))
    return side + press.line


def divider(press: Press, box: Box) -> float:
    """A rule across the column: single, double or dotted."""
    rng, y = press.rng, box.top + 0.5 * press.line
    pen = press.unit * rng.between(0.5, 2.5)
    style = rng.pick(("single", "single", "double", "dotted"))
    if style == "dotted":
        _dots(press, (box.left, box.right), y, pen)
    else:
        press.sheet.rule((box.left, y), (box.right, y), pen, press.rules)
    if style == "double":
        y += 2.5 * pen + press.unit
        press.sheet.rule((box.left, y), (box.right, y), pen, press.rules)
    return press.line


def handwritten(press: Press, box: Box) -> float:
    """A few lines written by hand."""
    rng, y = press.rng, box.top
    # Nobody writes as small as small print.
    size = max(press.size, 12 * press.unit) * rng.between(0.45, 0.8)
    hand = Hand.draw(rng, press.fonts, size, press.unit)
    words = Writer(rng, "latin").words(60)
    for _ in range(rng.whole(1, 6)):
        if y + 3.2 * hand.size > box.bottom or not words:
            break
        y += 3.2 * hand.size
        words = words[
            hand.line(press.sheet, words, Box(box.left, y - 2 * hand.size, box.right, y)) :
        ]
    return y - box.top + 1.5 * hand.size


def signature(press: Press, box: Box) -> float:
    """A line to sign on, signed or not."""
    rng = press.rng
    width = min(box.width, press.size * rng.between(10, 16))
    left = box.left + rng.pick((0.0, 1.0)) * (box.width - width)
    y = box.top + 4 * press.size
    press.sheet.rule((left, y), (left + width, y), press.unit * rng.between(0.5, 1.5), press.rules)
    press.show(press.writer.name(), left, y + 1.1 * press.size, press.font(0.75), press.ink)
    if rng.chance(0.8):
        hand = Hand.draw(rng, press.fonts, press.size, press.unit)
        hand.signature(press.sheet, left + 0.1 * width, y, 0.7 * width)
    return 6 * press.size


def gap(press: Press, box: Box) -> float:
    """White space."""
    return min(box.height, press.line * press.rng.between(0.5, 4))


BLOCKS: dict[str, Callable[[Press, Box], float]] = {
    block.__name__: block
    for block in (
        paragraph, heading, banner, listing, code, formula, table, form, boxed, figure, emblem,
        divider, handwritten, signature, gap,
    )
}  # fmt: skip
