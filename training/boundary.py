"""The band along label boundaries, where small structures and outlines are scored."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["boundary_band"]


def boundary_band(mask: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Pixels that have another label within ``distance``: the trimap of a mask.

    Scoring only these tells how well outlines and thin structures are found, which the large areas
    hide (Kohli et al., IJCV 2009; Krähenbühl and Koltun, NIPS 2011). The ignore label counts as a
    label here: in PASCAL VOC it is the outline itself.

    Shape:
        uint8 [H, W] to bool [H, W].

    Args:
        mask: A label a pixel.
        distance: In pixels, between the centres; 1 is the pixels that touch another label.

    Raises:
        ValueError: if ``distance`` is below 1.
    """
    if distance < 1:
        raise ValueError(f"distance: expected at least 1 pixel, got {distance!r}")
    offsets = np.arange(-distance, distance + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= distance**2).astype(np.uint8)
    return np.asarray(cv2.dilate(mask, disc) != cv2.erode(mask, disc), np.bool_)
