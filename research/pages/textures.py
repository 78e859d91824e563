"""Surfaces: paper in its tints and wear, and the desks pages lie on."""

from __future__ import annotations

import cv2
import numpy as np

from research.fields import Field, Image, as_image, noise, resized
from research.pages.photos import load_photos
from research.rng import Color, Rng

__all__ = ["desk", "is_plain", "paper"]

# Standard deviation of the levels of grey, light that falls off apart, of what has no texture.
_PLAIN = 4.0

_PAPERS: dict[Color, float] = {
    (250, 250, 248): 5,
    (238, 238, 236): 3,
    (244, 238, 222): 3,
    (232, 216, 182): 1.5,
    (214, 214, 210): 1.5,
    (205, 188, 150): 0.6,
    (246, 232, 150): 0.4,
    (198, 220, 236): 0.3,
    (244, 206, 212): 0.3,
    (206, 232, 204): 0.3,
}
_WOODS: tuple[Color, ...] = (
    (150, 104, 62), (96, 62, 38), (196, 158, 112), (120, 84, 60), (66, 46, 36), (176, 140, 104)
)  # fmt: skip


def paper(rng: Rng, height: int, width: int, unit: float) -> Image:
    """A sheet's bare surface, RGB [height, width, 3]: tint, clouds, fibres and stains."""
    color = np.asarray(rng.tint(rng.weighted(_PAPERS), 3), np.float32)
    # Wear is far larger than a pixel, so it is made small and stretched.
    small = (max(2, height // 4), max(2, width // 4))
    shade = rng.between(0, 0.025) * noise(rng, *small, 150 * unit / 4, 3)
    if rng.chance(0.2):
        edges = np.minimum.outer(*(np.minimum(np.arange(n), np.arange(n)[::-1]) for n in small))
        shade -= rng.between(0.05, 0.2) * np.exp(-edges / (rng.between(4, 20) * unit / 4))
    for _ in range(rng.weighted({0: 8, 1: 1, 2: 1, 4: 1})):
        shade -= _stain(rng, *small, unit / 4)
    surface = resized(shade.astype(np.float32), width, height)
    if rng.chance(0.5):
        grain = rng.standard_normal((height, width), np.float32)
        surface += rng.between(0.005, 0.03) * np.asarray(cv2.blur(grain, (3, 2)), np.float32)
    # Aged paper loses blue first.
    yellowing = np.asarray((0.8, 1.0, 1.25), np.float32)
    return as_image(color * (1 + surface[..., None] * yellowing))


def is_plain(view: Image) -> bool:
    """Whether nothing is on a view, RGB [height, width, 3]: then it is a blank sheet to any eye."""
    grey = np.asarray(view.mean(2), np.float32)
    wide = np.asarray(cv2.GaussianBlur(grey, (0, 0), max(grey.shape) / 8), np.float32)
    return bool((grey - wide).std() < _PLAIN)


def _stain(rng: Rng, height: int, width: int, unit: float) -> Field:
    """A round or ring-shaped mark, as darkening."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    wobble = 1 + 0.1 * noise(rng, height, width, 40 * unit, 2)
    radius = rng.between(6, 60) * unit
    distance = wobble * np.hypot(
        rows - rng.between(0, height), columns - rng.between(0, width)
    ).astype(np.float32)
    if rng.chance(0.5):
        mark = np.exp(-(((distance - radius) / (0.06 * radius + 1)) ** 2))
    else:
        mark = 1 / (1 + np.exp(np.clip((distance - radius) / (0.1 * radius + 0.5), -30, 30)))
    return np.asarray(rng.between(0.03, 0.14) * mark, np.float32)


def desk(rng: Rng, height: int, width: int, unit: float) -> Image:
    """What lies under and around the pages, RGB [height, width, 3]."""
    kinds = {_wood: 4, _plain: 4, _cloth: 2, _stone: 2, _photographed: 3, _planks: 1}
    surface = rng.weighted(kinds)(rng, height, width, unit)
    for _ in range(rng.weighted({0: 6, 1: 2, 2: 1})):
        _put_object(rng, surface, unit)
    return surface


def _plain(rng: Rng, height: int, width: int, unit: float) -> Image:
    light = rng.weighted({"dark": 5, "middle": 3, "light": 2, "vivid": 2})
    span = {"dark": (5, 60), "middle": (60, 170), "light": (170, 245), "vivid": (20, 220)}[light]
    level = rng.whole(*span)
    color = rng.color(*span) if light == "vivid" else rng.tint((level, level, level), 6)
    texture = rng.between(0, 0.08) * noise(rng, height, width, rng.between(3, 300) * unit)
    return as_image(np.asarray(color) * (1 + texture[..., None]))


def _wood(rng: Rng, height: int, width: int, unit: float) -> Image:
    grain = noise(rng, height, width, rng.between(15, 60) * unit, 4, stretch=rng.between(8, 30))
    rings = np.sin(rng.between(2, 8) * grain + noise(rng, height, width, 400 * unit, 2, 3))
    pores = noise(rng, height, width, 3 * unit, 1, stretch=20)
    shade = 1 + rng.between(0.04, 0.16) * rings + rng.between(0.02, 0.08) * pores
    surface = as_image(np.asarray(rng.tint(rng.pick(_WOODS), 12)) * shade[..., None])
    return np.ascontiguousarray(surface[:, ::-1]) if rng.chance(0.5) else surface


def _planks(rng: Rng, height: int, width: int, unit: float) -> Image:
    surface = _wood(rng, height, width, unit).astype(np.float32)
    step = int(rng.between(60, 200) * unit)
    for top in range(rng.whole(0, step), height, step):
        surface[top : top + step] *= rng.between(0.8, 1.15)
        surface[top : top + max(1, int(2 * unit))] *= rng.between(0.3, 0.7)
    return as_image(surface)


def _cloth(rng: Rng, height: int, width: int, unit: float) -> Image:
    rows, columns = np.ogrid[:height, :width]
    pitch = rng.between(2, 7) * unit
    weave = np.sin(2 * np.pi * rows / pitch) * np.sin(2 * np.pi * columns / pitch)
    folds = noise(rng, height, width, 250 * unit, 3)
    shade = 1 + rng.between(0.03, 0.2) * weave + rng.between(0.03, 0.15) * folds
    if rng.chance(0.3):
        across = columns if rng.chance(0.5) else rows
        striped = np.sin(2 * np.pi * across / (rng.between(15, 90) * unit)) > 0
        shade = shade * np.where(striped, 1.0, rng.between(0.5, 0.9))
    return as_image(np.asarray(rng.color(20, 230)) * shade[..., None])


def _stone(rng: Rng, height: int, width: int, unit: float) -> Image:
    clouds = noise(rng, height, width, rng.between(60, 300) * unit, 6)
    veins = np.exp(-np.abs(noise(rng, height, width, 200 * unit, 5)) * rng.between(6, 20))
    speckle = noise(rng, height, width, 2 * unit, 1)
    shade = 1 + 0.12 * clouds + rng.between(-0.5, 0.5) * veins + rng.between(0, 0.12) * speckle
    level = rng.whole(50, 220)
    return as_image(np.asarray(rng.tint((level, level, level), 10)) * shade[..., None])


def _photographed(rng: Rng, height: int, width: int, unit: float) -> Image:
    """A real texture in any colour, tiled by mirroring; stone where no photo is installed."""
    textures = load_photos().textures
    if not textures:
        return _stone(rng, height, width, unit)
    tile = rng.pick(textures)
    scale = rng.between(0.3, 1.5) * unit / 2
    tile = np.asarray(cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    pad = (max(0, height - tile.shape[0]), max(0, width - tile.shape[1]))
    tile = np.pad(tile, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="symmetric")[:height, :width]
    light = tile.mean(2, keepdims=True) / 128
    return as_image(np.asarray(rng.color(30, 230)) * light ** rng.between(0.3, 1.2))


def _put_object(rng: Rng, surface: Image, unit: float) -> None:
    """A pen, a cup or a box on the desk, flat and soft."""
    height, width = surface.shape[:2]
    centre = (rng.whole(0, width), rng.whole(0, height))
    color = rng.color(0, 255)
    kind = rng.pick(("pen", "cup", "box"))
    if kind == "pen":
        angle, length = rng.between(0, 2 * np.pi), rng.between(60, 250) * unit
        end = (int(centre[0] + length * np.cos(angle)), int(centre[1] + length * np.sin(angle)))
        thickness = max(1, int(rng.between(3, 9) * unit))
        cv2.line(surface, centre, end, color, thickness, cv2.LINE_AA)
        lit = (min(255, color[0] + 60), min(255, color[1] + 60), min(255, color[2] + 60))
        cv2.line(surface, centre, end, lit, max(1, thickness // 4), cv2.LINE_AA)
    elif kind == "cup":
        radius = int(rng.between(25, 90) * unit)
        cv2.circle(surface, centre, radius, color, -1, cv2.LINE_AA)
        cv2.circle(surface, centre, int(0.85 * radius), rng.color(10, 120), -1, cv2.LINE_AA)
    else:
        size = (rng.between(40, 200) * unit, rng.between(40, 200) * unit)
        corners = cv2.boxPoints((centre, size, rng.between(0, 90)))
        cv2.fillConvexPoly(surface, corners.astype(np.int32), color, cv2.LINE_AA)
