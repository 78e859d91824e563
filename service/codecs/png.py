"""Pixels to PNG files: the little of the format that masks and overlays need, written fast.

A 640 x 480 mask takes 0.2 ms here and 1.7 ms through Pillow (``benchmarks/edges.py``).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

__all__ = ["png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour types and the row filter Up (PNG specification, sections 11.2.1 and 9.2).
_GREY, _RGB, _INDEXED, _UP = 0, 2, 3, 2
_LARGEST_WINDOW, _MOST_MEMORY = 15, 9


def png(pixels: NDArray[Any], palette: bytes = b"") -> bytes:
    """The PNG file of an image.

    Shape:
        ``pixels`` is uint8 [H, W], grey levels or, with a palette, indices into it; or uint16
        [H, W], grey levels, with which a palette goes unused; or RGB, uint8 [H, W, 3].

    Args:
        pixels: The image.
        palette: Red, green and blue of each index.
    """
    height, width = pixels.shape[:2]
    bits = 8 * pixels.itemsize
    palette = palette if bits == 8 else b""
    kind = _RGB if pixels.ndim == 3 else _INDEXED if palette else _GREY
    if bits == 16:
        pixels = pixels.astype(">u2").view(np.uint8)
    samples = pixels.reshape(height, -1)
    rows = np.empty((height, 1 + samples.shape[1]), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
    # What repeats is the row above, which Up turns into runs of zeros: of a photo, too, this
    # strategy makes a smaller file in less time than the default one at this level.
    deflate = zlib_ng.compressobj(1, zlib_ng.DEFLATED, _LARGEST_WINDOW, _MOST_MEMORY, zlib_ng.Z_RLE)
    chunks = [
        (b"IHDR", struct.pack(">2I5B", width, height, bits, kind, 0, 0, 0)),
        *([(b"PLTE", palette)] if palette else []),
        (b"IDAT", deflate.compress(rows) + deflate.flush()),
        (b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib_ng.crc32(content, zlib_ng.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", check)))
