"""What stands, hangs and lies in a scene, one function a class, each drawn with a painter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from research.fineshapes.canvas import Box, Point
from research.fineshapes.classes import (
    BLOCK,
    BODY,
    CABLE,
    LATTICE,
    POLE,
    TABLE,
    TWIG,
    WHEEL,
)
from research.fineshapes.painter import Painter

__all__ = ["THINGS"]


def block(painter: Painter, box: Box) -> None:
    """A building or a cupboard: a front, often a side, and windows or doors of the same class."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    depth = rng.between(0, 0.25) * (right - left)
    if rng.chance(0.6):
        lean = rng.between(0, 0.15) * (bottom - top)
        x, far = (left, left + depth) if rng.chance(0.5) else (right, right - depth)
        corners = [(x, top + lean), (far, top), (far, bottom), (x, bottom - lean / 2)]
        canvas.polygon(corners, painter.textured(BLOCK, box))
        left, right = (left + depth, right) if x == left else (left, right - depth)
    front = painter.textured(BLOCK, box)
    canvas.rectangle((left, top, right, bottom), front)
    if rng.chance(0.8):
        _openings(painter, (left, top, right, bottom))


def _openings(painter: Painter, box: Box) -> None:
    """Windows, doors or drawers in rows."""
    rng = painter.rng
    left, top, right, bottom = box
    across = max(1, round((right - left) / rng.between(6, 16)))
    down = max(1, round((bottom - top) / rng.between(6, 16)))
    cell = (right - left) / across, (bottom - top) / down
    wide, tall = rng.between(0.3, 0.85) * cell[0], rng.between(0.4, 0.85) * cell[1]
    paint = painter.paint(BLOCK, box)
    for row in range(down):
        for column in range(across):
            x = left + (column + 0.5) * cell[0]
            y = top + (row + 0.5) * cell[1]
            opening = (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)
            painter.canvas.rectangle(opening, paint)


def body(painter: Painter, box: Box) -> None:
    """A car with its wheels, or a sofa: big, round and low."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    wide, tall = right - left, bottom - top
    paint = painter.textured(BODY, box) if rng.chance(0.4) else painter.paint(BODY, box)
    if rng.chance(0.5):
        waist = top + rng.between(0.35, 0.55) * tall
        roof = [left + share * wide for share in sorted(rng.uniform(0.1, 0.9, 2))]
        shape = [(left, waist), (roof[0], top), (roof[1], top), (right, waist)]
        canvas.polygon([*shape, (right, bottom - 0.1 * tall), (left, bottom - 0.1 * tall)], paint)
        glass = painter.paint(BODY, box)
        middle, share = (left + right) / 2, 0.7
        panes = [(middle + share * (x - middle), waist + share * (y - waist)) for x, y in shape]
        canvas.polygon(panes, glass)
        for share in (0.22, 0.78):
            radius = 0.24 * tall
            x = left + share * wide
            wheel(painter, (x - radius, bottom - 2 * radius, x + radius, bottom))
        return
    seat = top + rng.between(0.35, 0.6) * tall
    canvas.polygon(_rounded((left, top, right, bottom), 0.2 * tall), paint)
    cushions = rng.whole(1, 3)
    for index in range(cushions):
        start = left + (0.08 + 0.84 * index / cushions) * wide
        end = left + (0.08 + 0.84 * (index + 1) / cushions) * wide - 1
        canvas.polygon(_rounded((start, seat, end, bottom - 0.15 * tall), 2), painter.paint(BODY))


def pole(painter: Painter, box: Box) -> None:
    """A post, a lamp with an arm, or a barber's pole."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    x = rng.between(left, right)
    head = (x + rng.between(-0.04, 0.04) * (bottom - top), top)
    width = rng.log_between(1, 4)
    paint = painter.paint(POLE, (x - 2, top, x + 2, bottom))
    canvas.stroke([(x, bottom), head], width, paint)
    if rng.chance(0.2):
        band = painter.paint(POLE, (x - 2, top, x + 2, bottom))
        for share in np.arange(0.1, 1, 0.2):
            ends = [_between((x, bottom), head, share), _between((x, bottom), head, share + 0.1)]
            canvas.stroke(ends, width, band)
    if rng.chance(0.45):
        reach = rng.pick((-1, 1)) * rng.between(0.08, 0.25) * (bottom - top)
        elbow = (head[0], head[1] + rng.between(0, 0.06) * (bottom - top))
        canvas.stroke([elbow, (head[0] + reach, head[1])], max(1, 0.7 * width), paint)
        canvas.ellipse((head[0] + reach, head[1]), (rng.between(1, 3), 1.2), paint)


def cable(painter: Painter, box: Box) -> None:
    """One to four lines hanging between two points, or a flex along the floor."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    width, sag = rng.log_between(1, 2.2), rng.between(0.1, 0.9)
    shares = np.linspace(0, 1, 17)
    ends = rng.uniform(top, top + 0.6 * (bottom - top), 2)
    paint = painter.paint(CABLE, box)
    wiggle = rng.between(0, 0.15) * (bottom - top) if rng.chance(0.25) else 0.0
    for index in range(rng.weighted({1: 4, 2: 3, 3: 2, 4: 1})):
        fall = 4 * shares * (1 - shares) * sag * (bottom - ends.max())
        rows = ends[0] + shares * (ends[1] - ends[0]) + fall + 3.5 * width * index
        rows += wiggle * np.sin(shares * rng.between(8, 25))
        columns = left + shares * (right - left)
        canvas.stroke(list(zip(columns.tolist(), rows.tolist(), strict=True)), width, paint)


def wheel(painter: Painter, box: Box) -> None:
    """A rim with spokes; what is behind it shows between them."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    radius = min(right - left, bottom - top) / 2
    center = ((left + right) / 2, bottom - radius)
    squeeze = 1.0 if rng.chance(0.5) else rng.between(0.45, 1)
    paint = painter.paint(WHEEL, box)
    rim = float(np.clip(rng.log_between(0.06, 0.22) * radius, 1, 4))
    outer = radius - rim / 2
    canvas.ellipse(center, (outer * squeeze, outer), paint, width=rim)
    spokes = rng.whole(3, max(4, min(14, round(radius * 0.8))))
    thin = max(1.0, min(2.0, 0.05 * radius))
    turns = rng.between(0, 2 * np.pi) + np.arange(spokes) * 2 * np.pi / spokes
    lines = [
        [center, (center[0] + outer * squeeze * np.cos(a), center[1] + outer * np.sin(a))]
        for a in turns.tolist()
    ]
    canvas.strokes(lines, thin, paint)
    hub = max(1.0, rng.between(0.08, 0.2) * radius)
    canvas.ellipse(center, (hub * squeeze, hub), paint)


def lattice(painter: Painter, box: Box) -> None:
    """Bars across a parallelogram: upright, square or diamond, with or without a frame."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    lean = rng.between(-0.25, 0.25) * (bottom - top)
    width, gap = rng.log_between(1, 2), rng.between(3.5, 9)

    def at(u: float, v: float) -> Point:
        return left + u * (right - left), top + v * (bottom - top) + (u - 0.5) * lean

    paint = painter.paint(LATTICE, box)
    across = max(3, round((right - left) / (gap + width)))
    down = max(2, round((bottom - top) / (gap + width)))
    kind = rng.pick(("upright", "square", "diamond"))
    lines: list[list[Point]] = []
    if kind == "diamond":
        ratio = across / down
        for offset in np.arange(-1, ratio + 1, 1 / down).tolist():
            ends = max(0.0, offset), min(ratio, offset + 1)
            if ends[0] < ends[1]:
                lines.append([at(x / ratio, x - offset) for x in ends])
                lines.append([at(1 - x / ratio, x - offset) for x in ends])
    else:
        lines += [[at(i / across, 0), at(i / across, 1)] for i in range(across + 1)]
        rails = range(down + 1) if kind == "square" else (0.1 * down, 0.85 * down)
        lines += [[at(0, j / down), at(1, j / down)] for j in rails]
    canvas.strokes(lines, width, paint)
    if rng.chance(0.5):
        frame = [at(0, 0), at(1, 0), at(1, 1), at(0, 1), at(0, 0)]
        canvas.stroke(frame, min(3.0, 1.6 * width), paint)


def table(painter: Painter, box: Box) -> None:
    """A table, a stool or a chair: a thin top on thin legs."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    paint = painter.paint(TABLE, box)
    width = rng.log_between(1, 3)
    wide, tall = right - left, bottom - top
    slant, depth = rng.between(-0.25, 0.25) * wide, rng.between(0.08, 0.22) * tall
    chair = rng.chance(0.5)
    seat = top + (rng.between(0.4, 0.55) if chair else rng.between(0.02, 0.12)) * tall
    front = [(left, seat + depth), (right, seat + depth)]
    back = [(left + max(slant, 0), seat), (right + min(slant, 0), seat)]
    splay = rng.between(-0.08, 0.08) * wide
    rear = bottom - depth
    legs: list[list[Point]] = [
        [(x, y), (x + sign * splay, foot)]
        for ends, foot in ((front, bottom), (back, rear))
        for (x, y), sign in zip(ends, (-1, 1), strict=True)
    ]
    canvas.strokes(legs, width, paint)
    if rng.chance(0.4):
        rung = rng.between(0.3, 0.7)
        canvas.stroke([_along(legs[0], rung), _along(legs[1], rung)], width, paint)
    if chair:
        posts = [[back[0], (back[0][0], top)], [back[1], (back[1][0], top)]]
        slats = rng.whole(1, 3)
        rails = [
            [_along(posts[0], share), _along(posts[1], share)]
            for share in np.linspace(0.4, 1, slats).tolist()
        ]
        canvas.strokes([*posts, *rails], width, paint)
    canvas.polygon([front[0], front[1], back[1], back[0]], paint)
    canvas.stroke(front, max(1.0, rng.between(1, 3)), painter.paint(TABLE, box))


def twig(painter: Painter, box: Box) -> None:
    """A branch that forks again and again, with leaves: a young tree, a plant, a bough."""
    rng, canvas = painter.rng, painter.canvas
    left, top, right, bottom = box
    root, length = ((left + right) / 2, bottom), 0.42 * (bottom - top)
    wood = painter.paint(TWIG, box)
    leaves = [painter.paint(TWIG, box) for _ in range(2)]
    size, density = rng.between(1.2, 3), rng.between(0.2, 1)
    tips = [(root, -np.pi / 2 + rng.between(-0.15, 0.15), length, rng.between(1.5, 3.5))]
    spread, squeeze = rng.between(0.35, 0.75), (right - left) / (bottom - top)
    for level in range(rng.whole(3, 4)):
        grown = []
        for (x, y), angle, reach, width in tips:
            end = (x + reach * np.cos(angle) * min(1.5, squeeze), y + reach * np.sin(angle))
            canvas.stroke([(x, y), end], width, wood)
            for turn in rng.uniform(-1, 1, rng.whole(2, 3)).tolist():
                start = _between((x, y), end, rng.between(0.6, 1))
                grown.append((start, angle + spread * turn * 1.6, 0.68 * reach, 0.65 * width))
            if level and rng.chance(density):
                for share in rng.uniform(0.2, 1.1, 2).tolist():
                    axes = (size, 0.5 * size)
                    at = _between((x, y), end, share)
                    canvas.ellipse(at, axes, rng.pick(leaves), angle=rng.between(0, 180))
        tips = grown


def _rounded(box: Box, radius: float) -> list[Point]:
    """A rectangle's outline with its two upper corners rounded."""
    left, top, right, bottom = box
    radius = min(radius, (right - left) / 2, bottom - top)
    turns = np.linspace(0, np.pi / 2, 6)
    falls = (radius * (1 - np.cos(turns))).tolist()
    starts = (radius * (1 - np.sin(turns))).tolist()
    upper_left = [(left + fall, top + start) for fall, start in zip(falls, starts, strict=True)]
    upper_right = [(right - x + left, y) for x, y in reversed(upper_left)]
    return [(left, bottom), *upper_left, *upper_right, (right, bottom)]


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _along(line: Sequence[Point], share: float) -> Point:
    return _between(line[0], line[1], share)


THINGS = {
    BLOCK: block,
    BODY: body,
    POLE: pole,
    CABLE: cable,
    WHEEL: wheel,
    LATTICE: lattice,
    TABLE: table,
    TWIG: twig,
}
