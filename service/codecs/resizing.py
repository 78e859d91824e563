"""Pixels to the size that a network takes, as Pillow would do it.

Nearly all networks want them bilinear, over every pixel that a new one covers.
"""

from __future__ import annotations

import math

import numpy as np
from cykooz_resizer import (
    CropBox,
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)
from numpy.typing import NDArray
from PIL import Image

from ppool.metadata import InputPolicy, Resample

__all__ = ["reduced", "resized"]

_ALGORITHM = ResizeAlg.convolution(FilterType.bilinear)
# Of source pixels at a time. The library takes a copy of them, and where that is too large for the
# heap, getting fresh memory from the system takes longer than resizing.
_STRIP_BYTES = 2**19


def reduced(rgb: NDArray[np.uint8], policy: InputPolicy) -> NDArray[np.uint8]:
    """Pixels, uint8 [H, W, 3], resized as the policy says: what decoding does to a photo."""
    return resized(rgb, *policy.reduced(*rgb.shape[:2]), policy.resample)


def resized(
    rgb: NDArray[np.uint8], height: int, width: int, resample: Resample = "bilinear"
) -> NDArray[np.uint8]:
    """Pixels, uint8 [H, W, 3], at another size: what Pillow gives, a few times faster if bilinear.

    That is equal to one level. Strips are cut so that each new pixel sees what it would see of the
    whole.
    """
    rows, columns = rgb.shape[:2]
    if (rows, columns) == (height, width):
        return rgb
    if resample != "bilinear":
        found = Image.fromarray(rgb).resize((width, height), Image.Resampling[resample.upper()])
        return np.asarray(found)
    scale = rows / height
    reach = math.ceil(max(scale, 1)) + 1
    step = max(int(_STRIP_BYTES / (3 * columns) / scale), 1)
    result = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, step):
        count = min(step, height - top)
        first = max(math.floor(top * scale) - reach, 0)
        last = min(math.ceil((top + count) * scale) + reach, rows)
        source = ImageData(columns, last - first, PixelType.U8x3, rgb[first:last].tobytes())
        target = ImageData(width, count, PixelType.U8x3)
        # Rounding must not reach beyond the strip's own rows.
        offset = top * scale - first
        box = CropBox(0, offset, columns, min(count * scale, last - first - offset))
        Resizer().resize(source, target, ResizeOptions(_ALGORITHM, crop_box=box))
        result[top : top + count] = np.frombuffer(target.get_buffer(), np.uint8).reshape(
            count, width, 3
        )
    return result
