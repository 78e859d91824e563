"""One street or room from one seed, and one thing alone for classification."""

from __future__ import annotations

from ppool.training.dataset import Sample
from research.fields import Image
from research.fineshapes.camera import photograph
from research.fineshapes.canvas import Canvas
from research.fineshapes.classes import (
    BACKGROUND,
    BLOCK,
    BODY,
    CABLE,
    FINE_SHAPES_CLASSES,
    GROUND,
    LATTICE,
    POLE,
    TABLE,
    TWIG,
    WHEEL,
)
from research.fineshapes.painter import Painter
from research.fineshapes.textures import textures
from research.fineshapes.things import THINGS
from research.rng import Rng

__all__ = ["draw_object", "draw_scene"]

_STREET = {POLE: 4.0, LATTICE: 3.0, WHEEL: 2.0, BODY: 2.0, TWIG: 3.0, TABLE: 1.0}
_ROOM = {TABLE: 4.0, TWIG: 2.5, BODY: 1.5, POLE: 2.0, LATTICE: 2.0, WHEEL: 2.0, BLOCK: 1.0}

# Height and width as shares of the frame's height, for a thing in the foreground.
_SIZES = {
    BLOCK: ((0.4, 0.9), (0.3, 0.6)),
    BODY: ((0.18, 0.4), (0.4, 0.8)),
    POLE: ((0.5, 1.1), (0.05, 0.05)),
    WHEEL: ((0.2, 0.45), (0.2, 0.45)),
    LATTICE: ((0.18, 0.5), (0.3, 0.9)),
    TABLE: ((0.25, 0.5), (0.2, 0.55)),
    TWIG: ((0.35, 0.9), (0.3, 0.6)),
}


def draw_scene(seed: int, height: int, width: int) -> Sample:
    """Draw the scene of a seed; the same arguments give the same scene.

    Args:
        seed: any non-negative integer.
        height: rows; at least 32.
        width: columns; at least 32.

    Returns:
        An image and its exact labels, ids of :data:`FINE_SHAPES_CLASSES`.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(seed, height, width)
    rng = Rng((seed, height, width))
    painter = Painter(rng, Canvas(height, width, textures(rng, height, width)))
    horizon = rng.between(0.4, 0.75) * height
    _stage(painter, horizon)
    street = rng.chance(0.5)
    if street:
        _row_of_blocks(painter, horizon)
    elif rng.chance(0.7):
        _put(painter, BLOCK, horizon, rng.between(0.0, 0.25))
    if rng.chance(0.7):
        _hang_cables(painter, horizon)
    kinds = _STREET if street else _ROOM
    for nearness in sorted(rng.uniform(0, 1, rng.whole(4, 8)).tolist()):
        _put(painter, rng.weighted(kinds), horizon, nearness)
    if rng.chance(0.25):
        _hang_cables(painter, horizon)
    return Sample(photograph(rng, painter.canvas.colors()), painter.canvas.labels())


def draw_object(seed: int, size: int) -> tuple[Image, int]:
    """Draw one thing on a textured ground, for training a classifier before a segmenter.

    Args:
        seed: any non-negative integer.
        size: rows and columns; at least 32.

    Returns:
        uint8 [size, size, 3], RGB, and the thing's class id. Background is a wall alone and ground
        a wall that stands on it.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(seed, size, size)
    # The 1 keeps an object's choices apart from those of a square scene of the same seed.
    rng = Rng((seed, size, size, 1))
    label = rng.whole(0, len(FINE_SHAPES_CLASSES) - 1)
    painter = Painter(rng, Canvas(size, size, textures(rng, size, size)))
    whole = (0.0, 0.0, float(size), float(size))
    painter.canvas.rectangle(whole, painter.textured(BACKGROUND))
    if label == GROUND:
        top = rng.between(0.15, 0.6) * size
        painter.canvas.rectangle((0, top, size, size), painter.textured(GROUND, whole))
    elif label != BACKGROUND:
        tall, wide = rng.between(0.5, 0.95) * size, rng.between(0.5, 0.95) * size
        left, top = rng.between(0, size - wide), rng.between(0, size - tall)
        THINGS[label](painter, (left, top, left + wide, top + tall))
    return photograph(rng, painter.canvas.colors()), label


def _check(seed: int, height: int, width: int) -> None:
    if seed < 0 or height < 32 or width < 32:
        raise ValueError(
            "expected a seed of at least 0 and a height and width of at least 32 pixels, got "
            f"{seed!r}, {height!r} and {width!r}"
        )


def _stage(painter: Painter, horizon: float) -> None:
    """Sky or wall, and the road or floor in front of it."""
    canvas = painter.canvas
    whole = (0.0, 0.0, float(canvas.width), float(canvas.height))
    canvas.rectangle(whole, painter.textured(BACKGROUND))
    tilt = painter.rng.between(-0.06, 0.06) * canvas.height
    floor = [(0, horizon - tilt), (canvas.width, horizon + tilt)]
    box = (0, horizon, canvas.width, canvas.height)
    canvas.polygon(
        [*floor, (canvas.width, canvas.height), (0, canvas.height)], painter.textured(GROUND, box)
    )
    if painter.rng.chance(0.5):
        _markings(painter, horizon)


def _markings(painter: Painter, horizon: float) -> None:
    """Lines painted on the ground: as thin as a cable, yet ground."""
    rng, canvas = painter.rng, painter.canvas
    vanishing = (rng.between(0, canvas.width), horizon - 0.05 * canvas.height)
    paint = painter.paint(GROUND, (0, horizon + 5, canvas.width, canvas.height))
    for _ in range(rng.whole(1, 4)):
        near = (rng.between(-0.5, 1.5) * canvas.width, canvas.height + 2)
        start = rng.between(0.1, 0.5)
        x, y = (n + (1 - start) * (v - n) for n, v in zip(near, vanishing, strict=True))
        width = rng.log_between(1, 4)
        canvas.polygon([(x, y), (near[0] - width, near[1]), (near[0] + width, near[1])], paint)


def _row_of_blocks(painter: Painter, horizon: float) -> None:
    rng, canvas = painter.rng, painter.canvas
    x = rng.between(-0.3, 0.2) * canvas.width
    while x < canvas.width:
        wide = rng.between(0.18, 0.5) * canvas.height
        top = horizon - rng.between(0.15, 0.65) * canvas.height
        box = (x, top, x + wide, horizon + rng.between(0, 0.08) * canvas.height)
        if rng.chance(0.75):
            THINGS[BLOCK](painter, box)
        x += wide * rng.between(0.9, 1.3)


def _hang_cables(painter: Painter, horizon: float) -> None:
    rng, canvas = painter.rng, painter.canvas
    for _ in range(rng.whole(1, 2)):
        left = rng.between(-0.4, 0.4) * canvas.width
        right = rng.between(0.6, 1.4) * canvas.width
        top = rng.between(-0.05, 0.5) * horizon
        THINGS[CABLE](painter, (left, top, right, top + rng.between(0.1, 0.5) * horizon))


def _put(painter: Painter, label: int, horizon: float, nearness: float) -> None:
    """One thing with its foot on the ground, larger the nearer it is."""
    rng, canvas = painter.rng, painter.canvas
    talls, wides = _SIZES[label]
    scale = (0.45 + 0.55 * nearness) * canvas.height
    tall, wide = rng.between(*talls) * scale, rng.between(*wides) * scale
    foot = horizon + (0.05 + 0.9 * nearness) * (canvas.height - horizon)
    left = rng.between(-0.3 * wide, canvas.width - 0.7 * wide)
    THINGS[label](painter, (left, foot - tall, left + wide, foot))
