"""Pixels to the size that a network takes, as Pillow does it, to the bit.

Networks were trained on photos that Pillow resized, and who checks a mask uses it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppool._pixels import resized_pixels
from ppool.metadata import InputPolicy, Resample

__all__ = ["reduced", "resized"]


def reduced(rgb: NDArray[np.uint8], policy: InputPolicy) -> NDArray[np.uint8]:
    """Pixels, uint8 [H, W, 3], resized as the policy says: what decoding does to a photo."""
    return resized(rgb, *policy.reduced(*rgb.shape[:2]), policy.resample)


def resized(
    rgb: NDArray[np.uint8], height: int, width: int, resample: Resample = "bilinear"
) -> NDArray[np.uint8]:
    """Pixels, uint8 [H, W, 3], at another size: what Pillow gives, in less time where it can be."""
    if rgb.shape[:2] == (height, width):
        return rgb
    if resample in ("bilinear", "bicubic"):
        found = resized_pixels(rgb, height, width, resample)
        if found is not None:
            return found
    return np.asarray(
        Image.fromarray(rgb).resize((width, height), Image.Resampling[resample.upper()])
    )
