"""Real photographs at hand: those bundled in Python packages and Debian's, never downloaded.

Without scikit-image and Matplotlib (the ``dev`` extra) pictures are drawn instead; scikit-learn,
where it is installed, adds two. Debian's lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 (CC0,
CC BY and CC BY-SA), mate-backgrounds and plasma-workspace-wallpapers (GPL) add some thirty, and
tuxpaint-stamps-default (GPL) hundreds of animals, plants and things without their background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["PHOTO_NAMES", "TEXTURE_NAMES", "WALLPAPER_NAMES", "Photos", "load_photos"]

# scikit-image's page, text, astronaut and coffee are test photos and must never be among these.
PHOTO_NAMES = (
    "chelsea.png", "rocket.jpg", "camera.png", "hubble_deep_field.jpg", "coins.png", "ihc.png",
    "retina.jpg", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "cell.png",
    "clock_motion.png", "grace_hopper.jpg", "china.jpg", "flower.jpg",
)  # fmt: skip
WALLPAPER_NAMES = (
    "Aqua", "Blinds", "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Dune",
    "Fossa_by_Jasper_Roks", "FreshFlower", "Garden", "GreenMeadow", "Kleiber_by_Lukas_Baubkus",
    "LadyBird", "Picture_0B_by_freespace", "Picture_1A_by_freespace", "RainDrops", "Storm",
    "TwoWings", "Wine_by_Jakkub_Mede", "Wood", "YellowFlower", "aitzgorri_by_Aitzol_Berasategi",
    "free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich",
    "life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi",
    "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
    "Autumn", "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow",
    "FallenLeaf", "Grey", "Kite", "OneStandsOut", "Path", "summer_1am",
)  # fmt: skip
TEXTURE_NAMES = ("brick.png", "gravel.png", "grass.png")
_SHARE = Path("/usr/share")
# Drawings among Tux Paint's stamps.
_DRAWN = {"cartoon", "alphabets", "symbols", "math", "seasonal", "flags"}
# No more colours than a drawing has.
_FEW = 1500
_LONGEST = 1280
_FOLDERS = (
    ("skimage", "data"), ("matplotlib", "mpl-data/sample_data"), ("sklearn", "datasets/images"),
)  # fmt: skip


@dataclass(frozen=True)
class Photos:
    """RGB pictures, uint8 [H, W, 3]: scenes, and close views of a surface.

    ``things`` have a fourth channel, 0 where there is nothing of them.
    """

    scenes: tuple[NDArray[np.uint8], ...]
    textures: tuple[NDArray[np.uint8], ...]
    things: tuple[NDArray[np.uint8], ...] = ()


def _read(name: str) -> NDArray[np.uint8] | None:
    for package, folder in _FOLDERS:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).parent / folder / name
        if path.is_file():
            return _opened(path)
    return None


def _opened(path: Path) -> NDArray[np.uint8] | None:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    return None if picture is None else picture.astype(np.uint8)


def _wallpaper(name: str) -> NDArray[np.uint8] | None:
    """A desktop's background, reduced; a file of that name, or the largest in such a folder."""
    files = [*(_SHARE / "backgrounds").rglob(f"{name}.jpg")]
    files += (_SHARE / "wallpapers" / name / "contents/images").glob("*.jpg")
    if not files:
        return None
    largest = max(files, key=lambda file: file.stat().st_size)
    picture = _opened(largest)
    return None if picture is None else _reduced(picture, _LONGEST)


def _reduced(picture: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    scale = min(1.0, longest / max(picture.shape[:2]))
    reduced = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.uint8)


def _things() -> Iterator[NDArray[np.uint8]]:
    """Photographed things without their background."""
    for path in sorted((_SHARE / "tuxpaint/stamps").rglob("*.png")):
        if _DRAWN & set(path.parts):
            continue
        read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if read is None or read.ndim != 3 or read.shape[2] != 4 or read.dtype != np.uint8:
            continue
        thing = _reduced(read.astype(np.uint8)[..., (2, 1, 0, 3)], 400)
        seen = (thing[thing[..., 3] > 200][:, :3] >> 2).astype(np.int32)
        if len(np.unique(seen @ (1 << 12, 1 << 6, 1))) > _FEW:
            yield thing


@lru_cache(maxsize=1)
def load_photos() -> Photos:
    """Read whatever photographs are installed; each tuple may be empty."""
    scenes, textures = (
        tuple(photo for photo in map(_read, names) if photo is not None)
        for names in (PHOTO_NAMES, TEXTURE_NAMES)
    )
    wallpapers = (photo for photo in map(_wallpaper, WALLPAPER_NAMES) if photo is not None)
    return Photos((*scenes, *wallpapers), textures, tuple(_things()))
