"""Light, lens, sensor and file: what a camera or scanner does to colours, never to labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from research.fields import Field, Image, as_image, noise
from research.pages.classes import LINE, PAPER, PICTURE
from research.rng import Rng

__all__ = ["Camera", "without_unseen"]


@dataclass(frozen=True)
class Camera:
    """How a photo is taken.

    Attributes:
        kind: ``photo``, ``scan`` or ``fax``.
        blur: standard deviation of the lens blur, in pixels.
        resolution: the share of resolution kept.
        noise: standard deviation of the sensor noise; white is 1.
    """

    kind: str
    blur: float
    resolution: float
    noise: float

    @classmethod
    def draw(cls, rng: Rng, body: float, kinds: Mapping[str, float]) -> Camera:
        """A random camera of one of the weighted kinds.

        Small type, ``body`` pixels per em, is never blurred out of sight.
        """
        limit = float(np.clip(body / 12, 0.5, 2.2))
        return cls(
            kind=rng.weighted(kinds),
            blur=0.0 if rng.chance(0.25) else rng.between(0, limit),
            resolution=rng.between(0.55, 1.0) if rng.chance(0.25) and body > 12 else 1.0,
            noise=rng.weighted({0.0: 2, 0.01: 3, 0.025: 2, 0.05: 1}) * rng.between(0.3, 1.0),
        )

    @property
    def spread(self) -> float:
        """Blur of lens and lost resolution together, in pixels."""
        return float(np.hypot(self.blur, 0.45 * np.sqrt(1 / self.resolution**2 - 1)))

    def view(self, rng: Rng, rgb: Image, size: tuple[int, int]) -> Field:
        """The optical image, float32 [height, width, 3] with white 1, of uint8 [H, W, 3]."""
        height, width = size
        small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        image: Field = np.divide(small, 255, dtype=np.float32)
        if self.kind == "photo":
            image *= _light(rng, height, width)[..., None]
        image = _colors(rng, image, 1.0 if self.kind == "photo" else 0.4)
        # A camera's meter would not have it darker or lighter than this.
        bright = float(np.percentile(image[::4, ::4], 85))
        gain = float(np.clip(bright, 0.3, 1.08)) / (bright + 1e-3)
        return self._blurred(rng, np.asarray(image * gain, np.float32))

    def record(self, rng: Rng, image: Field) -> Image:
        """The file, RGB uint8 [H, W, 3], of an optical image."""
        height, width = image.shape[:2]
        if self.noise:
            image = image + self.noise * _grain(rng, height, width)
        if rng.chance(0.25):
            soft = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.2), np.float32)
            image = image + np.float32(rng.between(0.3, 1.2)) * (image - soft)
        if rng.chance(0.35) or self.kind == "fax":
            image = np.repeat(image.mean(2, keepdims=True), 3, 2)
        photo = as_image(255 * image)
        if self.kind == "fax":
            grey = np.ascontiguousarray(photo[..., 0])
            block = 2 * (max(height, width) // 40) + 3
            method = cv2.ADAPTIVE_THRESH_MEAN_C
            bits = cv2.adaptiveThreshold(grey, 255, method, cv2.THRESH_BINARY, block, 12)
            photo = np.repeat(np.asarray(bits, np.uint8)[..., None], 3, 2)
        return _compressed(rng, photo) if rng.chance(0.75) else photo

    def _blurred(self, rng: Rng, image: Field) -> Field:
        """Defocus, a little shake, and lost resolution."""
        height, width = image.shape[:2]
        if self.blur > 0.3:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur), np.float32)
            if rng.chance(0.2):
                length = max(2, round(2 * self.blur))
                kernel = np.zeros((length, length), np.float32)
                start, end = ((x, rng.whole(0, length - 1)) for x in (0, length - 1))
                cv2.line(kernel, start, end, 1.0, 1)
                image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)
        if self.resolution < 1:
            reduced = (int(width * self.resolution), int(height * self.resolution))
            image = np.asarray(cv2.resize(image, reduced, interpolation=cv2.INTER_AREA), np.float32)
            image = np.asarray(cv2.resize(image, (width, height)), np.float32)
        return image


def without_unseen(mask: Image, image: Field, noise_level: float) -> Image:
    """The mask with ink turned to paper where the optical image does not show it.

    A mark is seen if a fifth of it lies beside a change of brightness, as the rim of even a bold
    letter does; rules run far, so each of their pixels is judged alone.
    """
    grey = np.ascontiguousarray(np.clip(image, 0, 1).mean(2))
    near = np.ones((7, 7), np.uint8)
    light = np.asarray(cv2.dilate(grey, near), np.float32)
    contrast = light - np.asarray(cv2.erode(grey, near), np.float32)
    # The eye judges contrast against the light around it.
    flat = contrast < np.maximum(0.06 * light, max(0.02, 1.3 * noise_level))
    ink = (mask > PAPER) & (mask != PICTURE)
    count, marks = cv2.connectedComponents(ink.astype(np.uint8))
    sizes = np.bincount(marks.ravel(), minlength=count)
    unseen = np.bincount(marks[flat], minlength=count) > 0.8 * sizes
    gone = ink & flat & (unseen[marks] | (mask == LINE))
    return np.where(gone, np.uint8(PAPER), mask)


def _grain(rng: Rng, height: int, width: int) -> Field:
    """Sensor noise of standard deviation 1, grey or coloured, fine or clumped."""
    shape = (height, width, 1 if rng.chance(0.5) else 3)
    grains = rng.standard_normal(shape, np.float32)
    if rng.chance(0.4):
        clumped = np.asarray(cv2.GaussianBlur(grains, (0, 0), 0.7), np.float32).reshape(shape)
        grains = clumped * np.float32(2.5)
    return grains


def _light(rng: Rng, height: int, width: int) -> Field:
    """Illumination over the frame: a gradient, fall-off to the corners, soft and cast shadows."""
    rows, columns = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.between(0, 2 * np.pi)
    slope = np.cos(angle) * columns + np.sin(angle) * rows
    light = 1 + rng.between(0, 0.45) * slope
    if rng.chance(0.5):
        x, y = rng.between(-0.8, 0.8), rng.between(-0.8, 0.8)
        light = light * (1 - rng.between(0.05, 0.35) * ((columns - x) ** 2 + (rows - y) ** 2))
    light = light + rng.between(0, 0.12) * noise(rng, height, width, max(height, width) / 2, 2)
    for _ in range(rng.weighted({0: 5, 1: 3, 2: 1})):
        light = light * (1 - _cast_shadow(rng, height, width))
    if rng.chance(0.08):
        x, y, size = rng.between(-1, 1), rng.between(-1, 1), rng.between(0.1, 0.6)
        glare = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / size**2)
        light = light + rng.between(0.2, 1.2) * glare
    return np.asarray(np.clip(light, 0.18, 2.0), np.float32)


def _cast_shadow(rng: Rng, height: int, width: int) -> Field:
    """The shadow of a hand, a phone or a window frame, as darkening."""
    small = np.zeros((96, 96), np.uint8)
    if rng.chance(0.5):
        corners = rng.uniform(-30, 126, (rng.whole(3, 5), 2))
        cv2.fillConvexPoly(small, cv2.convexHull(corners.astype(np.int32)), 255)
    else:
        start = (rng.whole(-20, 116), rng.whole(-20, 116))
        end = (rng.whole(-20, 116), rng.whole(-20, 116))
        cv2.line(small, start, end, 255, rng.whole(4, 36))
    soft = cv2.GaussianBlur(small, (0, 0), rng.log_between(0.7, 12))
    return np.asarray(
        rng.between(0.1, 0.55) * cv2.resize(soft, (width, height)).astype(np.float32) / 255,
        np.float32,
    )


def _colors(rng: Rng, image: Field, amount: float) -> Field:
    """White balance, exposure, contrast and tone, as far off as ``amount`` says."""
    if rng.chance(0.6):
        image = image * (1 + amount * rng.normal(0, 0.07, 3)).astype(np.float32)
    image = image * rng.log_between(1 - 0.45 * amount, 1 + 0.15 * amount)
    if rng.chance(0.4):
        black = rng.between(0, 0.25) * amount
        image = black + (1 - black - rng.between(0, 0.12)) * image
    if rng.chance(0.5):
        image = np.clip(image, 0, None) ** rng.log_between(0.7, 1.5)
    if rng.chance(0.25):
        image = (image - 0.5) * rng.between(1.0, 1.5) + rng.between(0.5, 0.6)
    return np.asarray(image, np.float32)


def _compressed(rng: Rng, photo: Image) -> Image:
    """Through JPEG and back."""
    quality = int(rng.log_between(25, 96))
    _, data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
