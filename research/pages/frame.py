"""The camera's view: sheets laid into it, curled and in perspective, and the mask of what is seen.

Geometry moves colours and labels alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from research.fields import Field, Image, as_image, noise
from research.pages.classes import DESK, PAPER, PICTURE
from research.pages.sheet import PLANES, Sheet
from research.rng import Color, Rng

__all__ = ["Frame", "Placing"]

# The map from frame to sheet is smooth, so it is computed on every 8th dot and stretched.
_GRID = 8


@dataclass(frozen=True)
class Placing:
    """Where a sheet lies: its four corners in the frame, clockwise from the top left, in dots.

    Attributes:
        corners: float32 [4, 2] of (x, y).
        curl: how far the page bulges, as a share of its size.
        lifted: whether it throws a shadow on what lies below.
        spine: where the book's spine is, as a share of the width; None for a single sheet.
    """

    corners: Field
    curl: float
    lifted: bool
    spine: float | None = None


class Frame:
    """The camera's view in dots: what is seen, and how much of each class covers every dot.

    Attributes:
        rgb: uint8 [H, W, 3].
        planes: uint8 [H, W, 5], as :attr:`Sheet.planes`.
        paper: uint8 [H, W], 255 where there is paper.
    """

    def __init__(self, background: Image, unit: float) -> None:
        self.rgb = background
        self.unit = unit
        self.planes: Image = np.zeros((*background.shape[:2], len(PLANES)), np.uint8)
        self.paper: Image = np.zeros(background.shape[:2], np.uint8)

    def lay(self, rng: Rng, sheet: Sheet, placing: Placing) -> None:
        """Lay a sheet on top of what is there."""
        columns, rows, shade = self._map(rng, sheet, placing)

        def warped(values: np.ndarray, border: int) -> Image:
            return np.asarray(
                cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=border), np.uint8
            )

        alpha = warped(sheet.alpha, cv2.BORDER_CONSTANT)
        color = warped(sheet.rgb, cv2.BORDER_REPLICATE)
        if not np.all(shade == 1):
            color = as_image(color * shade[..., None])
        if placing.lifted:
            self._shadow(rng, alpha)
        if alpha.min() == 255:
            self.rgb[:] = color
        else:
            share = alpha[..., None].astype(np.float32) / 255
            self.rgb[:] = as_image(self.rgb + share * (color.astype(np.float32) - self.rgb))
        # OpenCV warps at most four channels at once.
        planes = [warped(sheet.planes[..., :3].copy(), cv2.BORDER_CONSTANT),
                  warped(sheet.planes[..., 3:].copy(), cv2.BORDER_CONSTANT)]  # fmt: skip
        self.planes[alpha >= 128] = 0
        np.maximum(self.planes, np.concatenate(planes, 2), out=self.planes)
        np.maximum(self.paper, alpha, out=self.paper)

    def label(self, size: tuple[int, int]) -> Image:
        """The mask, uint8 [height, width]: the topmost ink of every pixel, else paper or desk.

        A pixel is ink where two fifths of it are, or where a stroke thinner than a pixel has its
        core, so that thick strokes end where the eye sees them end and tight ones keep their gaps.
        """
        height, width = size

        def reduced(plane: Image) -> Field:
            small = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)
            return small.astype(np.float32)

        mask = np.where(reduced(self.paper) >= 128, PAPER, DESK).astype(np.uint8)
        best = np.zeros((height, width), np.float32)
        near = np.ones((3, 3), np.uint8)
        for name, plane in zip(PLANES, np.moveaxis(self.planes, 2, 0), strict=True):
            if not plane.any():
                continue
            coverage = reduced(np.ascontiguousarray(plane))
            if name == PICTURE:
                mask[coverage >= 128] = name
                continue
            peak = np.asarray(cv2.dilate(coverage, near), np.float32)
            pit = np.asarray(cv2.erode(coverage, near), np.float32)
            seen = coverage >= np.clip(pit + 0.45 * (peak - pit), 0.2 * 255, 0.4 * 255)
            # Of two inks the upper one wins unless it is only the faint rim of its stroke.
            seen &= coverage >= 0.6 * best
            mask[seen] = name
            best = np.maximum(best, np.where(seen, coverage, 0))
        return mask

    def cover(self, outline: Image, color: Color) -> None:
        """Hold something opaque, such as a finger, over all: uint8 [H, W], 255 where it is."""
        self.rgb[outline > 127] = color
        self.planes[outline > 127] = 0
        self.paper[outline > 127] = 0

    def _map(self, rng: Rng, sheet: Sheet, placing: Placing) -> tuple[Field, Field, Field]:
        """Sheet column and row seen at every dot of the frame, and the shading of the curl."""
        height, width = self.rgb.shape[:2]
        tall, wide = sheet.alpha.shape
        outline = np.asarray([(0, 0), (wide, 0), (wide, tall), (0, tall)], np.float32)
        matrix = cv2.getPerspectiveTransform(placing.corners.astype(np.float32), outline)
        ys, xs = np.mgrid[0 : height + _GRID : _GRID, 0 : width + _GRID : _GRID].astype(np.float64)
        points = matrix @ np.stack([xs, ys, np.ones_like(xs)]).reshape(3, -1)
        columns, rows = (points[:2] / points[2]).reshape(2, *xs.shape)
        shade = np.ones_like(columns)
        if placing.curl:
            for axis in range(2 if rng.chance(0.3) else 1):
                along, across = (rows / tall, columns) if axis else (columns / wide, rows)
                phase, waves = rng.between(0, 2 * np.pi), rng.between(0.3, 1.3) * 2 * np.pi
                bulge = np.sin(waves * along + phase)
                lean = rng.between(-0.3, 0.3)
                across += placing.curl * (wide + tall) / 2 * bulge * (1 + lean * across / tall)
                slope = np.cos(waves * along + phase + rng.between(-0.5, 0.5))
                shade *= 1 + rng.between(0, 6) * placing.curl * slope
        if rng.chance(0.12):
            # Sheets folded once for an envelope keep a crease, lit on one side.
            position = (rows / tall) if rng.chance(0.5) else (columns / wide)
            offset = (position - rng.pick((0.33, 0.5, 0.67))) * 60
            shade *= 1 + rng.between(0.03, 0.15) * offset * np.exp(-(offset**2))
        if rng.chance(0.08):
            # Crumpled once and flattened again.
            ridges = np.abs(noise(rng, len(xs), len(xs[0]), rng.between(8, 40), 3))
            shade *= 1 - rng.between(0.05, 0.25) * np.exp(-10 * ridges) + 0.04 * ridges
        if placing.spine is not None:
            fall = np.exp(-np.abs(columns / wide - placing.spine) / rng.between(0.02, 0.07))
            shade *= 1 - rng.between(0.2, 0.75) * fall
            rows += rng.between(-0.04, 0.04) * tall * fall
            columns += rng.between(0, 0.03) * wide * fall * np.sign(columns / wide - placing.spine)
        size = (xs.shape[1] * _GRID, xs.shape[0] * _GRID)

        def spread(grid: np.ndarray) -> Field:
            # resize aligns pixel centres, so the grid is shifted back by half a cell.
            matrix = np.asarray([[_GRID, 0, 0], [0, _GRID, 0]], np.float64)
            full = cv2.warpAffine(grid.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
            return np.asarray(full[:height, :width], np.float32)

        return spread(columns), spread(rows), spread(shade)

    def _shadow(self, rng: Rng, alpha: Image) -> None:
        """Darken what lies under and beside the sheet."""
        reach = rng.between(1, 12) * self.unit
        shift = np.asarray([[1, 0, rng.between(-1, 1) * reach], [0, 1, rng.between(-1, 1) * reach]])
        moved = cv2.warpAffine(alpha, shift, alpha.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        soft = np.asarray(cv2.blur(moved, (2 * int(reach) + 1,) * 2), np.float32) / 255
        self.rgb[:] = as_image(self.rgb * (1 - rng.between(0.1, 0.6) * soft)[..., None])
