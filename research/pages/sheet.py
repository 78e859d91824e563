"""A sheet of paper and what is on it: colour, and one coverage plane per kind of ink.

Everything on a sheet is measured in dots, ``unit`` of which make one pixel of the final image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from research.fields import Image, as_image
from research.pages.classes import HANDWRITING, LINE, PICTURE, STAMP, TEXT
from research.rng import Color

__all__ = ["PLANES", "Box", "Ink", "Sheet", "text_alpha"]

# From the bottom of the pile to the top: of two inks on one pixel, the later one is seen.
PLANES = (PICTURE, STAMP, LINE, TEXT, HANDWRITING)


@dataclass(frozen=True)
class Ink:
    """What a mark is made of: its class, its colour, and how much paper shines through."""

    label: int
    color: Color
    opacity: float = 1.0


@dataclass(frozen=True)
class Box:
    """A rectangle in dots, right and bottom excluded."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Horizontal extent in dots."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Vertical extent in dots."""
        return self.bottom - self.top

    def inset(self, by: float) -> Box:
        """The box, smaller by ``by`` on every side."""
        return Box(self.left + by, self.top + by, self.right - by, self.bottom - by)


class Sheet:
    """A surface to print on.

    Attributes:
        rgb: uint8 [H, W, 3], reflectance of the printed paper.
        planes: uint8 [H, W, 5], coverage by each class of :data:`PLANES`; 255 is full.
        alpha: uint8 [H, W], 255 where there is paper; cut corners and tears are 0.
    """

    def __init__(self, surface: Image, unit: float) -> None:
        self.rgb = surface
        self.unit = unit
        self.planes: Image = np.zeros((*surface.shape[:2], len(PLANES)), np.uint8)
        self.alpha: Image = np.full(surface.shape[:2], 255, np.uint8)

    @property
    def box(self) -> Box:
        """The whole sheet."""
        return Box(0, 0, self.rgb.shape[1], self.rgb.shape[0])

    def _clip(self, shape: tuple[int, ...], left: int, top: int) -> tuple[slice, ...] | None:
        """Slices of the sheet and of a patch put at (left, top), or None if they miss."""
        height, width = self.rgb.shape[:2]
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + shape[1], width), min(top + shape[0], height)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)

    def put(self, coverage: Image, left: float, top: float, ink: Ink) -> None:
        """Print a patch of coverage, uint8 [h, w], with its corner at (left, top)."""
        self.tint(coverage, left, top, ink.color, ink.opacity)
        clip = self._clip(coverage.shape, round(left), round(top))
        if clip is not None:
            rows, columns, patch_rows, patch_columns = clip
            plane = self.planes[rows, columns, PLANES.index(ink.label)]
            np.maximum(plane, coverage[patch_rows, patch_columns], out=plane)

    def tint(
        self, coverage: Image, left: float, top: float, color: Color, opacity: float = 1.0
    ) -> None:
        """Colour the paper without marking it as ink: shaded boxes, highlighter, bleed-through."""
        clip = self._clip(coverage.shape, round(left), round(top))
        if clip is None:
            return
        rows, columns, patch_rows, patch_columns = clip
        area = self.rgb[rows, columns]
        share = coverage[patch_rows, patch_columns].astype(np.float32) * (opacity / 255)
        paint = np.asarray(color, np.float32)
        self.rgb[rows, columns] = as_image(area + share[..., None] * (paint - area))

    def paste(self, picture: Image, left: float, top: float) -> None:
        """Lay an RGB picture over everything and mark its rectangle as picture."""
        clip = self._clip(picture.shape, round(left), round(top))
        if clip is None:
            return
        rows, columns, patch_rows, patch_columns = clip
        self.rgb[rows, columns] = picture[patch_rows, patch_columns]
        self.planes[rows, columns] = 0
        self.planes[rows, columns, PLANES.index(PICTURE)] = 255

    def fill(self, box: Box, color: Color, opacity: float = 1.0) -> None:
        """Colour a rectangle as paper."""
        shape = (max(1, round(box.height)), max(1, round(box.width)))
        self.tint(np.full(shape, 255, np.uint8), box.left, box.top, color, opacity)

    def rule(
        self, start: tuple[float, float], end: tuple[float, float], thickness: float, ink: Ink
    ) -> None:
        """Draw a straight stroke of the given thickness in dots."""
        self.strokes([np.asarray((start, end), np.float32)], thickness, ink)

    def strokes(self, paths: list[np.ndarray], thickness: float, ink: Ink) -> None:
        """Draw polylines, each float [n, 2] of (x, y), all of one thickness in dots."""
        points = np.concatenate(paths)
        margin = int(thickness) + 2
        left, top = np.floor(points.min(0)).astype(int) - margin
        right, bottom = np.ceil(points.max(0)).astype(int) + margin
        # A path may leave the sheet; only what is near it is worth drawing.
        left, top = max(left, -margin), max(top, -margin)
        right = min(right, self.rgb.shape[1] + margin)
        bottom = min(bottom, self.rgb.shape[0] + margin)
        if left >= right or top >= bottom:
            return
        coverage = np.zeros((bottom - top, right - left), np.uint8)
        fixed = np.rint((points - (left, top)) * 16).astype(np.int32)
        ends = np.cumsum([len(path) for path in paths])[:-1]
        cv2.polylines(
            coverage, np.split(fixed, ends), False, 255, max(1, round(thickness)), cv2.LINE_AA, 4
        )
        self.put(coverage, left, top, ink)


def text_alpha(font: ImageFont.FreeTypeFont, text: str) -> tuple[Image, int, int]:
    """Coverage of a line of text, uint8 [h, w], and its (x, y) offset from the baseline's start."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text, anchor="ls"))
    size = (max(1, right - left + 2), max(1, bottom - top + 2))
    image = PillowImage.new("L", size)
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, 255, font, anchor="ls")
    return np.array(image), left - 1, top - 1
