"""A writer of TIFF files of any layout, straight from the specification (TIFF 6.0).

tifffile writes few depths, and those of big-endian files wrong.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

COMPRESSIONS: dict[int, Any] = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32773: lambda data: bytes(imagecodecs.packbits_encode(data)),
}


@dataclass(frozen=True)
class Layout:
    """How samples lie in a file; ``tags`` are written as they are."""

    bits: int = 8
    photometric: int = 1
    order: str = "<"
    separate: bool = False
    compression: int = 1
    predictor: int = 1
    rows: int = 7
    tile: tuple[int, int] | None = None
    big: bool = False
    lowest_bit_first: bool = False
    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)


def tiff_page(samples: NDArray[Any], layout: Layout) -> bytes:
    """The file of samples, whole numbers [H, W, channels]."""
    return tiff_file([(samples, layout)])


def tiff_file(pages: list[tuple[NDArray[Any], Layout]]) -> bytes:
    """A file of several pages, of one byte order."""
    first = pages[0][1]
    order, pointer = first.order, "Q" if first.big else "I"
    header = b"II" if order == "<" else b"MM"
    header += struct.pack(f"{order}HHH", 43, 8, 0) if first.big else struct.pack(f"{order}H", 42)
    out = bytearray(header + struct.pack(order + pointer, 0))
    link = len(header)
    for samples, layout in pages:
        tags = described(samples, layout)
        places, sizes = [], []
        for block in blocks(samples, layout):
            places.append(len(out))
            sizes.append(len(block))
            out += block + bytes(len(block) % 2)
        tags |= {324 if layout.tile else 273: tuple(places)}
        tags |= {325 if layout.tile else 279: tuple(sizes)}
        tags |= layout.tags
        entries = bytearray()
        for tag, values in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}I", *values)
            width = struct.calcsize(pointer)
            if len(packed) > width:
                out += bytes(-len(out) % 8)
                place, packed_at = len(out), packed
                out += packed_at
                packed = struct.pack(order + pointer, place)
            entries += struct.pack(f"{order}HH{pointer}", tag, 4, len(values))
            entries += packed.ljust(width, b"\0")
        out += bytes(-len(out) % 8)
        struct.pack_into(order + pointer, out, link, len(out))
        out += struct.pack(f"{order}{'Q' if layout.big else 'H'}", len(tags)) + entries
        link = len(out)
        out += struct.pack(order + pointer, 0)
    return bytes(out)


def described(samples: NDArray[Any], layout: Layout) -> dict[int, tuple[int, ...]]:
    height, width, channels = samples.shape
    tags: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (layout.bits,) * channels,
        259: (layout.compression,),
        262: (layout.photometric,),
        277: (channels,),
        284: (2 if layout.separate else 1,),
        317: (layout.predictor,),
    }
    if layout.lowest_bit_first:
        tags[266] = (2,)
    if layout.tile:
        return tags | {322: (layout.tile[1],), 323: (layout.tile[0],)}
    return tags | {278: (layout.rows,)}


def blocks(samples: NDArray[Any], layout: Layout) -> list[bytes]:
    """The strips or tiles, plane after plane."""
    planes = [samples[..., [i]] for i in range(samples.shape[2])] if layout.separate else [samples]
    found = []
    for plane in planes:
        if layout.tile:
            high, wide = layout.tile
            bottom, right = -plane.shape[0] % high, -plane.shape[1] % wide
            padded = np.pad(plane, ((0, bottom), (0, right), (0, 0)))
            found += [
                padded[top : top + high, left : left + wide]
                for top in range(0, len(padded), high)
                for left in range(0, padded.shape[1], wide)
            ]
        else:
            found += [plane[top : top + layout.rows] for top in range(0, len(plane), layout.rows)]
    return [COMPRESSIONS[layout.compression](packed(block, layout)) for block in found]


def packed(block: NDArray[Any], layout: Layout) -> bytes:
    values = block.astype(np.int64)
    if layout.predictor == 2:
        values = np.diff(values, axis=1, prepend=0) % (1 << layout.bits)
    rows = values.reshape(len(values), -1)
    if layout.bits in (16, 32):
        return rows.astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    bits = rows[..., None] >> np.arange(layout.bits)[::-1] & 1
    order = "little" if layout.lowest_bit_first else "big"
    return np.packbits(
        bits.reshape(len(rows), -1).astype(np.uint8), axis=1, bitorder=order
    ).tobytes()
