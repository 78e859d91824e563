"""One page from one seed: chooses the view, prints the sheets, takes the photo."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from ppool.training.dataset import Sample
from research.fields import Field
from research.pages.camera import Camera, without_unseen
from research.pages.fonts import FontLibrary
from research.pages.frame import Frame, Placing
from research.pages.layout import compose, compose_spread, photograph
from research.pages.leaf import draw_leaf
from research.pages.pictures import picture
from research.pages.screen import draw_screen
from research.pages.sheet import Sheet
from research.pages.textures import desk, is_plain
from research.rng import Rng

__all__ = ["draw_page", "installed_fonts"]

# Leaves seen from near are cheap to draw, and where the finest labels are learned.
_LEAVES, _SCREENS = 0.64, 0.12
_VIEWS = {"close": 32, "whole": 50, "scan": 6, "photo": 30, "print": 6, "desk": 7}


@lru_cache(maxsize=1)
def installed_fonts() -> FontLibrary:
    """The fonts of this machine, looked up once."""
    return FontLibrary.find()


def draw_page(seed: int, fonts: FontLibrary | None = None) -> Sample:
    """Draw the page of a seed; the same seed and fonts give the same page.

    Args:
        seed: any non-negative integer.
        fonts: the faces to set it in; all installed ones by default.
    """
    fonts = fonts or installed_fonts()
    rng = Rng(seed)
    near = rng.random()
    if near < _LEAVES:
        return draw_leaf(rng, fonts)
    if near < _LEAVES + _SCREENS:
        return draw_screen(rng, fonts)
    longer = rng.log_between(360, 1300)
    shorter = longer * rng.between(0.36, 1.0)
    size = (round(longer), round(shorter)) if rng.chance(0.6) else (round(shorter), round(longer))
    # Two dots a pixel keep strokes exact; large frames make do with fewer.
    unit = 2.0 if longer < 900 else 1.5
    height, width = round(size[0] * unit), round(size[1] * unit)
    body = _body(rng, longer)
    view = rng.weighted(_VIEWS)
    alone = view in {"photo", "desk"}
    if view == "photo":
        frame = Frame(picture(rng, height, width), unit)
        frame.planes[..., 0] = 255
    else:
        frame = Frame(desk(rng, height, width, unit), unit)
    if alone and is_plain(frame.rgb):
        frame.planes[:], frame.paper[:] = 0, 255
    if view in {"close", "whole", "scan", "print"}:
        _lay_sheets(rng, fonts, frame, view, body)
    if rng.chance(0.04):
        _hold(rng, frame)
    # A photograph in black and white bits would be ink to any eye, and a desk paper.
    kinds = {"photo": 6.0, "scan": 3.0, "fax": 0.0 if alone or view == "print" else 0.35}
    camera = Camera.draw(rng, body, kinds)
    seen = camera.view(rng, frame.rgb, size)
    mask = without_unseen(frame.label(size), seen, camera.noise)
    return Sample(camera.record(rng, seen), mask)


def _body(rng: Rng, longer: float) -> float:
    """Body type in final pixels per em: what fits the frame, small type as often as large."""
    return rng.log_between(7.5, float(np.clip(longer / 15, 18, 44)))


def _lay_sheets(rng: Rng, fonts: FontLibrary, frame: Frame, view: str, body: float) -> None:
    """Print one to three sheets and lay them before the camera, the main one last."""
    scales = {"close": (1.1, 1.7), "scan": (0.99, 1.06)}.get(view, (0.55, 0.98))
    below = rng.weighted({0: 5, 1: 3, 2: 1}) if view == "whole" else 0
    for index in range(below + 1):
        height = int(frame.paper.shape[0] * rng.between(*scales))
        width = int(frame.paper.shape[1] * rng.between(*scales))
        spine = None
        if view == "print" or rng.chance(0.03):
            sheet = photograph(rng, (height, width), frame.unit)
        elif width > 20 * body * frame.unit and rng.chance(0.12):
            spine = rng.between(0.3, 0.7)
            sheet = compose_spread(rng, fonts, (height, width), (frame.unit, body), spine)
        else:
            sheet = compose(rng, fonts, (height, width), frame.unit, body * frame.unit)
        placing = _placing(rng, sheet, frame, view, shifted=index < below)
        frame.lay(rng, sheet, replace(placing, spine=spine))


def _hold(rng: Rng, frame: Frame) -> None:
    """A finger reaching in from an edge of the frame."""
    height, width = frame.paper.shape
    thick = rng.between(14, 40) * frame.unit
    x, y = rng.pick(((0, rng.whole(0, height)), (width, rng.whole(0, height)),
                      (rng.whole(0, width), height)))  # fmt: skip
    towards = np.arctan2(height / 2 - y, width / 2 - x) + rng.between(-0.5, 0.5)
    outline = np.zeros_like(frame.paper)
    axes = (int(thick * rng.between(1.2, 3.5)), int(thick))
    cv2.ellipse(outline, (x, y), axes, float(np.rad2deg(towards)), 0, 360, 255, -1)
    skins = ((226, 182, 154), (198, 144, 112), (136, 92, 68), (92, 62, 48))
    frame.cover(outline, rng.tint(rng.pick(skins), 10))


def _placing(rng: Rng, sheet: Sheet, frame: Frame, view: str, shifted: bool) -> Placing:
    """Turn, tilt and move a sheet: near the middle, or aside if another one is to lie on it."""
    tall, wide = sheet.alpha.shape
    height, width = frame.paper.shape
    spread = {"scan": 1.0, "close": 3.5}.get(view, 6.0) * (4 if shifted else 1)
    turn = np.deg2rad(float(rng.normal(0, spread)))
    if view != "scan" and rng.chance(0.04):
        turn += np.pi / 2 * rng.whole(1, 3)
    corners = np.asarray([(-1, -1), (1, -1), (1, 1), (-1, 1)], float) * (wide / 2, tall / 2)
    rotation = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = corners @ rotation.T
    if view != "scan":
        corners *= 1 + rng.between(0, 0.09) * rng.normal(0, 1, (4, 2))
    room = np.abs(np.asarray((width - wide, height - tall))) / 2
    reach = 2.0 if shifted else 0.9
    middle = np.asarray((width, height)) / 2 + rng.uniform(-1, 1, 2) * room * reach
    curl = rng.between(0, 0.025) if view != "scan" and rng.chance(0.5) else 0.0
    placed: Field = (corners + middle).astype(np.float32)
    return Placing(placed, curl, lifted=view in {"whole", "print"} and rng.chance(0.8))
