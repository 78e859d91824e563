"""ICC profiles: what the numbers of a photo's pixels mean, for an answer that shows them."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ppool.service.codecs import kinds, tiff, tiff_pixels
from ppool.service.codecs.header import Opened
from ppool.service.codecs.strips import in_strips

__all__ = ["managed"]

# Those of printing presses have two; one that claims more is up to no good.
_MOST_BYTES = 4 * 2**20


def managed(
    pixels: NDArray[np.uint8], file: Opened, data: bytes, page: int
) -> tuple[NDArray[np.uint8], bytes]:
    """A photo's pixels and the RGB profile that they are of, empty for sRGB.

    Grey levels and inks that have a profile become sRGB by it, as no RGB file could carry it; a
    damaged profile is none.

    Args:
        pixels: RGB or RGBA, uint8 [h, w, C], made without looking at profiles.
        file: Of which.
        data: Its bytes, whole.
        page: Of it.
    """
    profile = _profile(file, data, page)
    space = profile[16:20]
    if space == b"RGB ":
        return pixels, profile
    with suppress(ImageCms.PyCMSError, OSError):
        if space == b"GRAY":
            ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
            levels = np.asarray(_to_srgb(ramp, profile, ImageCms.Flags.NOOPTIMIZE))[0]
            return np.dstack((levels[pixels[..., 0]], pixels[..., 3:])), b""
        if space == b"CMYK" and (inks := _inks(file)) is not None:
            colours = in_strips(inks, lambda strip: _to_srgb(strip, profile))
            return np.dstack((colours, pixels[..., 3:])), b""
    return pixels, b""


def _inks(file: Opened) -> Image.Image | None:
    """The photo in inks, if it is in any."""
    if file.image is None:
        levels = tiff_pixels.inks(file.data, file.tags)
        return None if levels is None else Image.fromarray(levels, "CMYK")
    if file.image.mode != "CMYK":
        return None
    file.image.load()
    return file.image


def _to_srgb(
    image: Image.Image, profile: bytes, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image,
        io.BytesIO(profile),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
        flags=flags,
    )
    return converted or image


def _profile(file: Opened, data: bytes, page: int) -> bytes:
    if file.kind is kinds.PNG:
        profile = _of_png(data)
    elif file.kind is kinds.TIFF:
        profile = tiff.profile(data, page)
    else:
        profile = (file.image and file.image.info.get("icc_profile")) or b""
    return profile if len(profile) <= _MOST_BYTES else b""


def _of_png(data: bytes) -> bytes:
    for name, start, end in kinds.png_chunks(data):
        if name == b"IDAT":
            break
        if name == b"iCCP":
            # A name, a zero, the method 0, and the profile.
            _, _, packed = data[start + 8 : end - 4].partition(b"\0")
            with suppress(zlib.error):
                return zlib.decompressobj().decompress(packed[1:], _MOST_BYTES + 1)
    return b""
