"""Pixels to PNG files: the little of the format that masks and pictures need, written fast.

A 640 x 480 mask takes 0.2 ms here and 1.7 ms through Pillow (``benchmarks/edges.py``).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from zlib_ng import zlib_ng

__all__ = ["png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour types and the row filter Up (PNG specification, sections 11.2.1 and 9.2).
_GREY, _INDEXED, _UP = 0, 3, 2
_COLOURED = {3: 2, 4: 6}
_LARGEST_WINDOW, _MOST_MEMORY = 15, 9


def png(
    pixels: NDArray[Any], palette: bytes = b"", profile: bytes = b"", *, has_none: bool = False
) -> bytes:
    """The PNG file of an image.

    Shape:
        ``pixels`` is uint8 [H, W], grey levels or, with a palette, indices into it; or uint16
        [H, W], grey levels, with which a palette goes unused; or RGB or RGBA, uint8 [H, W, 3] or
        [H, W, 4].

    Args:
        pixels: The image.
        palette: Red, green and blue of each index.
        profile: The ICC profile that the colours are of; empty for sRGB.
        has_none: Whether the index 255 has no colour, but is clear.
    """
    height, width = pixels.shape[:2]
    is_coloured, bits = pixels.ndim == 3, 8 * pixels.itemsize
    palette = palette if bits == 8 else b""
    clear = b"\xff" * 255 + b"\0" if palette and has_none else b""
    palette = palette.ljust(768, b"\0") if clear else palette
    kind = _COLOURED[pixels.shape[2]] if is_coloured else _INDEXED if palette else _GREY
    if bits == 16:
        pixels = pixels.astype(">u2").view(np.uint8)
    samples = pixels.reshape(height, -1)
    rows = np.empty((height, 1 + samples.shape[1]), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, bits, kind, 0, 0, 0)),
        # A name, the method 0, and the profile (section 11.3.2.3).
        *([(b"iCCP", b"ICC profile\0\0" + zlib_ng.compress(profile))] if profile else []),
        *([(b"PLTE", palette)] if palette else []),
        *([(b"tRNS", clear)] if clear else []),
        (b"IDAT", isal_zlib.compress(rows, 1) if is_coloured else _deflated(rows)),
        (b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _deflated(rows: NDArray[np.uint8]) -> bytes:
    # What repeats is the row above, which Up turns into runs of zeros: this strategy makes a
    # smaller file of a mask than isal, which takes half the time, and of a photo too.
    deflate = zlib_ng.compressobj(1, zlib_ng.DEFLATED, _LARGEST_WINDOW, _MOST_MEMORY, zlib_ng.Z_RLE)
    return deflate.compress(rows) + deflate.flush()


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib_ng.crc32(content, zlib_ng.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", check)))
