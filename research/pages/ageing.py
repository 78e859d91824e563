"""What time, presses, lenses and files do to a leaf."""

from __future__ import annotations

import cv2
import numpy as np

from research.fields import Field, Image, as_image, clouds, noise, resized
from research.rng import Color, Rng

__all__ = ["aged_paper", "flat_paper", "seen", "worn"]

_PAPERS: dict[Color, float] = {
    (252, 252, 251): 4, (240, 239, 235): 3, (236, 228, 208): 4, (222, 206, 172): 4,
    (205, 184, 146): 3, (182, 156, 118): 2, (206, 204, 198): 3, (170, 166, 158): 1.5,
    (226, 178, 92): 1.5, (192, 148, 88): 1, (152, 122, 86): 0.7,
    (244, 230, 160): 0.6, (200, 218, 232): 0.4, (240, 206, 206): 0.3, (210, 230, 206): 0.3,
}  # fmt: skip


def aged_paper(rng: Rng, side: int) -> Field:
    """A bare surface, float32 [side, side, 3] with white 1: tint, clouds, stains, foxing, folds."""
    color = np.asarray(rng.tint(rng.weighted(_PAPERS), 5), np.float32) / 255
    small = side // 2
    old = rng.between(0, 1) ** 1.5
    shade = 0.09 * old * clouds(rng, small, small / rng.between(0.7, 5), 4)
    for _ in range(rng.whole(1, 4) if rng.chance(0.35) else 0):
        shade -= _stain(rng, small)
    if rng.chance(0.25):
        shade -= _foxing(rng, small, old)
    if rng.chance(0.25):
        shade -= _fold(rng, small)
    if rng.chance(0.2):
        # A corner or edge far darker than the rest: damp, smoke, a gutter's shadow.
        field = clouds(rng, small, small * rng.between(0.7, 2), 2)
        shade -= rng.between(0.15, 0.6) / (1 + np.exp(-rng.between(2, 12) * (field - 1)))
    surface = resized(shade.astype(np.float32), side, side)
    if rng.chance(0.6):
        fibres = noise(rng, side, side, rng.between(1.5, 5), 2, rng.between(1, 5))
        surface += rng.between(0.003, 0.05) * fibres
    if rng.chance(0.45):
        surface -= _specks(rng, side)
    if rng.chance(0.2):
        surface -= _hairs(rng, side)
    # Aged paper loses blue first.
    yellowing = np.asarray((0.75, 1.0, 1.3), np.float32)
    spread = np.clip(1 + surface[..., None] * yellowing, 0.08, 1.15)
    return np.asarray(color * spread, np.float32)


def flat_paper(rng: Rng, side: int) -> Field:
    """A new sheet or a screen, float32 [side, side, 3]: one colour, most often white."""
    color = (255, 255, 255) if rng.chance(0.5) else rng.tint(rng.weighted(_PAPERS), 8)
    return np.full((side, side, 3), np.asarray(color, np.float32) / 255, np.float32)


def _stain(rng: Rng, side: int) -> Field:
    """A blot or a tide mark with a darker rim, as darkening."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    radius = side * rng.log_between(0.04, 0.6)
    distance = np.hypot(rows - rng.between(0, side), columns - rng.between(0, side))
    distance = distance * (1 + 0.15 * clouds(rng, side, side / rng.between(2, 8), 3))
    edge = (distance - radius) / (radius * rng.log_between(0.01, 0.3) + 0.5)
    body = 1 / (1 + np.exp(np.clip(edge, -30, 30)))
    rim = np.exp(-(edge**2)) * rng.between(0, 1)
    return np.asarray(rng.log_between(0.03, 0.7) * (body + rim), np.float32)


def _foxing(rng: Rng, side: int, old: float) -> Field:
    """Rusty spots of all sizes."""
    spots = np.zeros((side, side), np.uint8)
    for _ in range(rng.whole(3, 60)):
        center = (rng.whole(0, side), rng.whole(0, side))
        cv2.circle(spots, center, round(rng.log_between(0.7, 9)), rng.whole(60, 255), -1)
    soft = cv2.GaussianBlur(spots, (0, 0), rng.log_between(0.5, 4)).astype(np.float32) / 255
    return np.asarray((0.1 + 0.6 * old) * soft, np.float32)


def _fold(rng: Rng, side: int) -> Field:
    """Creases, lit on one side or dirty along their middle."""
    total = np.zeros((side, side), np.float32)
    steps = np.arange(side, dtype=np.float32)
    for _ in range(rng.whole(1, 3)):
        line = rng.between(0, side) + rng.between(-0.1, 0.1) * steps
        line = line + rng.between(0, 3) * noise(rng, 1, side, rng.between(10, 120), 3)[0]
        offset = steps[None] - line[:, None]
        width = rng.between(0.6, 5)
        lit = offset / width * np.exp(-((offset / width) ** 2))
        dirty = np.exp(-((offset / width) ** 2))
        mark = rng.between(0, 0.25) * lit + rng.between(0, 0.2) * dirty
        mark = mark * np.clip(0.6 + 0.6 * noise(rng, 1, side, side / 4, 3), 0, 1.5).T
        total += mark.T if rng.chance(0.5) else mark
    return total


def _specks(rng: Rng, side: int) -> Field:
    """Dust and fly-specks: dark, but no ink."""
    specks = np.zeros((side, side), np.uint8)
    for _ in range(round(rng.log_between(5, 700))):
        center = (rng.whole(0, side), rng.whole(0, side))
        cv2.circle(specks, center, round(rng.log_between(0.5, 2.5)), rng.whole(60, 255), -1)
    return np.asarray(rng.between(0.1, 0.6) / 255 * cv2.blur(specks, (2, 2)), np.float32)


def _hairs(rng: Rng, side: int) -> Field:
    """Fibres and scratches: short, thin, and no ink."""
    hairs = np.zeros((side, side), np.uint8)
    for _ in range(rng.whole(5, 150)):
        start, reach = rng.uniform(0, side, 2), rng.log_between(2, 30)
        steps = np.cumsum(rng.normal(0, reach / 3, (4, 2)), 0) + start
        path = [np.rint(16 * steps).astype(np.int32)]
        cv2.polylines(hairs, path, False, rng.whole(60, 255), 1, cv2.LINE_AA, 4)
    return np.asarray(rng.between(0.05, 0.4) / 255 * hairs, np.float32)


def worn(rng: Rng, cover: Field, em: float) -> Field:
    """Let ink spread or break away: strokes fatter or thinner, their edges rough.

    Args:
        rng: the choices.
        cover: coverage of a square, float32 [side, side] in 0..1.
        em: size of the letters in dots, on which the reach depends.
    """
    reach = rng.between(0.4, 1.0) * float(np.clip(0.018 * em, 0.35, 2.2))
    soft = np.asarray(cv2.GaussianBlur(cover, (0, 0), reach), np.float32)
    # Thin strokes are low peaks after the blur and must not drown.
    level = rng.between(0.3, 0.5) if rng.chance(0.8) else rng.between(0.15, 0.3)
    side = len(cover)
    field = level + rng.between(0, 0.07) * clouds(rng, side, 1.5 * em, 2)
    if rng.chance(0.5):
        field += rng.between(0.02, 0.16) * clouds(rng, side, rng.between(2, 6))
    steep = rng.between(2.0, 4.0) * max(1.0, reach)
    # However rough an edge, there is no ink where none was near.
    near = np.clip(soft * 12 - 0.5, 0, 1)
    return np.asarray(near * np.clip((soft - field) * steep + 0.5, 0, 1), np.float32)


def seen(rng: Rng, image: Field, blur: float, *, grainy: bool = True, shadow: float = 0.2) -> Image:
    """The file of an optical image, uint8 [H, W, 3]: light, lens, sensor and compression.

    Args:
        rng: the choices.
        image: float32 [H, W, 3], white 1.
        blur: standard deviation of the lens blur, in pixels.
        grainy: whether noise may be strong.
        shadow: chance of a shadow with a hard or soft edge.
    """
    height, width = image.shape[:2]
    image = image * _light(rng, height, width, shadow)[..., None]
    if rng.chance(0.5):
        image = image * (1 + rng.normal(0, 0.05, 3)).astype(np.float32)
    if blur > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.float32)
    bright = float(np.percentile(image[::4, ::4], 90))
    image = image * (rng.between(0.5, 1.04) / (bright + 1e-3))
    if rng.chance(0.35):
        black = rng.between(0, 0.25)
        image = black + (1 - black) * image
    if rng.chance(0.4):
        image = np.clip(image, 0, None) ** rng.log_between(0.65, 1.6)
    if rng.chance(0.5):
        grain = rng.standard_normal((height, width, 1), np.float32)
        if rng.chance(0.4):
            grain = np.asarray(cv2.blur(grain, (2, 2)), np.float32)[..., None]
        image = image + rng.log_between(0.004, 0.06 if grainy else 0.02) * grain
    if grainy and rng.chance(0.1):
        # A photocopy: little left between black and white, and grain where there was grey.
        grain = rng.between(0.05, 0.2) * rng.standard_normal((height, width, 1), np.float32)
        steep = rng.between(1.5, 4)
        image = np.clip((image + grain - 0.5) * steep + 0.55, 0, 1).astype(np.float32)
    if rng.chance(0.25):
        smooth = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.2), np.float32)
        image = image + np.float32(rng.between(0.3, 1.2)) * (image - smooth)
    if rng.chance(0.35):
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    if rng.chance(0.04):
        image = rng.between(0.85, 1.05) - image
    file = as_image(255 * image)
    if rng.chance(0.8):
        quality = int(rng.log_between(20, 97))
        _, data = cv2.imencode(".jpg", file, [cv2.IMWRITE_JPEG_QUALITY, quality])
        file = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return file


def _light(rng: Rng, height: int, width: int, shadow: float) -> Field:
    """Even light, light from one side, and a shadow with the given chance."""
    light = np.ones((height, width), np.float32)
    if rng.chance(0.6):
        light *= _slope(rng, height, width)
    if rng.chance(shadow):
        light *= _shadow(rng, height, width)
    return light


def _slope(rng: Rng, height: int, width: int) -> Field:
    """Light that falls off to one side."""
    small = (height // 8, width // 8)
    rows, columns = np.mgrid[: small[0], : small[1]].astype(np.float32)
    angle = rng.between(0, 2 * np.pi)
    along = (np.cos(angle) * rows + np.sin(angle) * columns) / max(small)
    field = 1 + rng.between(0, 0.5) * (along - along.mean())
    return np.clip(resized(field.astype(np.float32), width, height), 0.15, 2)


def _shadow(rng: Rng, height: int, width: int) -> Field:
    """The shadow of a head, a hand or a shelf: straight or wavy, its edge hard or soft."""
    small = (height // 8, width // 8)
    largest = max(small)
    rows, columns = np.mgrid[: small[0], : small[1]].astype(np.float32) / largest
    if rng.chance(0.5):
        angle = rng.between(0, 2 * np.pi)
        wave = np.cos(angle) * (rows - 0.5) + np.sin(angle) * (columns - 0.5)
        wave = 4 * wave + 0.2 * noise(rng, *small, largest * rng.between(0.4, 1.5), 2)
    else:
        wave = noise(rng, *small, largest * rng.between(0.4, 1.5), 2)
    hard = rng.log_between(2, 60)
    edge = np.clip(hard * (wave + rng.between(-1, 1)), -30, 30)
    field = 1 - rng.between(0.1, 0.65) / (1 + np.exp(-edge))
    return np.clip(resized(field.astype(np.float32), width, height), 0.15, 2)
