"""Light, lens, sensor and file: what a camera does to a scene's colours, never to its labels."""

from __future__ import annotations

import cv2
import numpy as np

from research.fields import Field, Image, as_image, noise
from research.rng import Rng

__all__ = ["photograph"]


def photograph(rng: Rng, colors: Field) -> Image:
    """The photo, uint8 [H, W, 3], of a scene's colours, float32 [H, W, 3] in 0..255."""
    height, width = colors.shape[:2]
    seen = colors * _light(rng, height, width)[..., None]
    if rng.chance(0.6):
        seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), rng.between(0.3, 0.7)), np.float32)
    grain = rng.standard_normal((height, width, 3), np.float32)
    photo = as_image(seen + rng.log_between(1.5, 12) * grain)
    if rng.chance(0.6):
        quality = rng.whole(50, 95)
        _, data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
        photo = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return photo


def _light(rng: Rng, height: int, width: int) -> Field:
    """Illumination: a gradient, soft shadows and an exposure that is a little off."""
    rows, columns = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.between(0, 2 * np.pi)
    light = 1 + rng.between(0, 0.35) * (np.cos(angle) * columns + np.sin(angle) * rows)
    light = light + rng.between(0, 0.15) * noise(rng, height, width, max(height, width) / 3, 2)
    return np.asarray(np.clip(light * rng.log_between(0.7, 1.25), 0.2, 2), np.float32)
