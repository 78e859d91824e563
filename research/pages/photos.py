"""The few real photographs at hand: those bundled in Python packages, never downloaded.

Without scikit-image and Matplotlib (the ``dev`` extra) pictures are drawn instead; scikit-learn,
where it is installed, adds two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["PHOTO_NAMES", "TEXTURE_NAMES", "Photos", "load_photos"]

# scikit-image's page, text, astronaut and coffee are test photos and must never be among these.
PHOTO_NAMES = (
    "chelsea.png", "rocket.jpg", "camera.png", "hubble_deep_field.jpg", "coins.png", "ihc.png",
    "retina.jpg", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "cell.png",
    "clock_motion.png", "grace_hopper.jpg", "china.jpg", "flower.jpg",
)  # fmt: skip
TEXTURE_NAMES = ("brick.png", "gravel.png", "grass.png")
_FOLDERS = (
    ("skimage", "data"), ("matplotlib", "mpl-data/sample_data"), ("sklearn", "datasets/images"),
)  # fmt: skip


@dataclass(frozen=True)
class Photos:
    """RGB pictures, uint8 [H, W, 3]: scenes, and close views of a surface."""

    scenes: tuple[NDArray[np.uint8], ...]
    textures: tuple[NDArray[np.uint8], ...]


def _read(name: str) -> NDArray[np.uint8] | None:
    for package, folder in _FOLDERS:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).parent / folder / name
        if path.is_file():
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            return None if picture is None else picture.astype(np.uint8)
    return None


@lru_cache(maxsize=1)
def load_photos() -> Photos:
    """Read whatever photographs are installed; each tuple may be empty."""
    scenes, textures = (
        tuple(photo for photo in map(_read, names) if photo is not None)
        for names in (PHOTO_NAMES, TEXTURE_NAMES)
    )
    return Photos(scenes, textures)
