"""TIFF pages that Pillow reads wrong or not: any depth to 16 bits, min-is-white, planes."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from ppool.service.codecs.tiff import (
    CHANNELS,
    Photometric,
    Tag,
    Tags,
    layout_of,
    one,
    sample_depths,
)
from ppool.service.errors import CorruptImage, UnsupportedImage

__all__ = ["decode", "inks"]

_ASSOCIATED, _UNASSOCIATED = 1, 2


def decode(data: bytes, tags: Tags, *, straight: bool = False) -> NDArray[np.uint8]:
    """The pixels of a page as RGB, uint8 [H, W, 3], transparency laid on white.

    Args:
        data: The file.
        tags: Of the page.
        straight: Transparency is a fourth channel instead, and colours are not multiplied by it.

    Raises:
        UnsupportedImage: if a predictor does not go with the depth.
        CorruptImage: if the tags contradict each other.
    """
    photometric, depth = one(tags, Tag.PHOTOMETRIC, 0), sample_depths(tags)[0]
    samples = _samples(data, tags)  # [H, W, samples], of `depth` bits
    channels = CHANNELS[photometric]
    if photometric == Photometric.PALETTE:
        colours = np.array(tags.get(Tag.COLOURS, ()), np.uint32).reshape(3, -1)
        if colours.shape[1] <= samples[..., 0].max(initial=0):
            raise CorruptImage("The TIFF file has fewer colours than it uses; save it anew.")
        # Some writers give 8 bits where 16 are due; libtiff guesses likewise.
        scale = 257 if colours.max() > 255 else 1
        rgb = ((colours.T + scale // 2) // scale).astype(np.uint8)[samples[..., 0]]
    else:
        values = _to_8_bits(samples[..., :channels], depth)
        if photometric == Photometric.MIN_IS_WHITE:
            values = 255 - values
        if photometric == Photometric.CMYK:
            light = 255 - values.astype(np.uint16)
            values = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
        rgb = np.broadcast_to(values, (*values.shape[:2], 3))
    extra = tags.get(Tag.EXTRA, ())
    for index, kind in enumerate(extra[: samples.shape[2] - channels]):
        if kind in (_ASSOCIATED, _UNASSOCIATED):
            alpha = _to_8_bits(samples[..., channels + index : channels + index + 1], depth)
            premultiplied = kind == _ASSOCIATED
            if straight:
                return np.dstack((_divided(rgb, alpha) if premultiplied else rgb, alpha))
            return _on_white(rgb, alpha, premultiplied=premultiplied)
    return np.ascontiguousarray(rgb)


def inks(data: bytes, tags: Tags) -> NDArray[np.uint8] | None:
    """Cyan, magenta, yellow and black of a page as stored, uint8 [H, W, 4]; ``None`` of others."""
    if one(tags, Tag.PHOTOMETRIC, 0) != Photometric.CMYK:
        return None
    samples = _samples(data, tags)[..., : CHANNELS[Photometric.CMYK]]
    return _to_8_bits(samples, sample_depths(tags)[0])


def _to_8_bits(samples: NDArray[np.uint16], depth: int) -> NDArray[np.uint8]:
    most = (1 << depth) - 1
    return ((samples.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)


def _on_white(
    rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], *, premultiplied: bool
) -> NDArray[np.uint8]:
    white = 255 - alpha.astype(np.uint32)
    colour = (
        rgb.astype(np.uint32) if premultiplied else (rgb.astype(np.uint32) * alpha + 127) // 255
    )
    laid: NDArray[np.uint8] = np.minimum(colour + white, 255).astype(np.uint8)
    return laid


def _divided(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    most = np.maximum(alpha, 1).astype(np.uint32)
    colour: NDArray[np.uint32] = np.minimum((rgb.astype(np.uint32) * 255 + most // 2) // most, 255)
    return colour.astype(np.uint8)


def _samples(data: bytes, tags: Tags) -> NDArray[np.uint16]:
    """Every sample as stored, uint16 [H, W, samples]."""
    width, height, count = tags[Tag.WIDTH][0], tags[Tag.HEIGHT][0], one(tags, Tag.SAMPLES, 1)
    depth, separate = sample_depths(tags)[0], one(tags, Tag.PLANAR, 1) == 2 and count > 1
    predictor = one(tags, Tag.PREDICTOR, 1)
    if predictor not in (1, 2) or (predictor == 2 and depth not in (8, 16)):
        raise UnsupportedImage(f"Save the TIFF without a predictor; this has {depth} bits and one.")
    tiled = Tag.TILES in tags
    kept = (Tag.TILES, Tag.TILE_BYTES) if tiled else (Tag.STRIPS, Tag.STRIP_BYTES)
    places, sizes = (tags.get(tag, ()) for tag in kept)
    wide = one(tags, Tag.TILE_WIDTH, width) if tiled else width
    high = one(tags, Tag.TILE_HEIGHT, height) if tiled else one(tags, Tag.STRIP_ROWS, height)
    across = -(-width // max(wide, 1))
    down = -(-height // max(min(high, height), 1))
    planes, chunky = (count, 1) if separate else (1, count)
    each = across * down
    if len(places) < each * planes or len(sizes) < each * planes or wide * high > 4 * 2**26:
        raise CorruptImage("The TIFF file contradicts itself about its parts; save it anew.")
    rows = each * high if tiled else height
    if rows * wide > 4 * (width * height + wide * high):
        raise CorruptImage("The TIFF file contradicts itself about its parts; save it anew.")
    values = np.empty((height, width, count), np.uint16)
    for plane in range(planes):
        part = slice(plane * each, (plane + 1) * each)
        row_bytes = -(-wide * chunky * depth // 8)
        found = _bytes(data, tags, (rows, row_bytes, high), (places[part], sizes[part]))
        unpacked = _unpacked(found, depth, wide * chunky, layout_of(data).order)
        if predictor == 2:
            unpacked = np.cumsum(unpacked.reshape(rows, wide, chunky), 1, np.uint16)
            unpacked &= (1 << depth) - 1
        unpacked = unpacked.reshape(rows, wide, chunky)
        if tiled:
            grid = unpacked.reshape(down, across, high, wide, chunky).swapaxes(1, 2)
            unpacked = grid.reshape(down * high, across * wide, chunky)[:height, :width]
        values[..., plane : plane + chunky] = unpacked
    return values


def _bytes(
    data: bytes,
    tags: Tags,
    shape: tuple[int, int, int],
    parts: tuple[tuple[int, ...], tuple[int, ...]],
) -> NDArray[np.uint8]:
    """The decompressed bytes of strips or tiles, uint8 [rows, row_bytes].

    libtiff, which Pillow brings, decompresses them: a directory is put behind the file that says
    they were grey pixels of 8 bits.
    """
    rows, row_bytes, strip_rows = shape
    order = layout_of(data).order
    described = {
        Tag.WIDTH: (row_bytes,),
        Tag.HEIGHT: (rows,),
        Tag.BITS: (8,),
        Tag.COMPRESSION: (one(tags, Tag.COMPRESSION, 1),),
        Tag.PHOTOMETRIC: (Photometric.MIN_IS_BLACK,),
        Tag.FILL_ORDER: (one(tags, Tag.FILL_ORDER, 1),),
        Tag.STRIPS: parts[0],
        Tag.SAMPLES: (1,),
        Tag.STRIP_ROWS: (min(strip_rows, rows),),
        Tag.STRIP_BYTES: parts[1],
    }
    place = len(data) + len(data) % 2
    lists = place + 2 + 12 * len(described) + 4
    entries, values = [struct.pack(f"{order}H", len(described))], b""
    for tag, numbers in described.items():
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        value = packed if len(numbers) == 1 else struct.pack(f"{order}I", lists + len(values))
        entries.append(struct.pack(f"{order}HHI", tag, 4, len(numbers)) + value)
        values += packed if len(numbers) > 1 else b""
    header = data[:2] + struct.pack(f"{order}HI", 42, place)
    file = io.BytesIO(b"".join(
        (header, memoryview(data)[8:], bytes(len(data) % 2), *entries, bytes(4), values)
    ))  # fmt: skip
    with TiffImagePlugin.TiffImageFile(file) as image:
        return np.asarray(image)


def _unpacked(found: NDArray[np.uint8], depth: int, count: int, order: str) -> NDArray[np.uint16]:
    """``count`` samples of each row, uint16 [rows, count]: first the highest bit."""
    if depth == 16:
        return found.view(f"{order}u2").astype(np.uint16)
    if depth == 8:
        return found.astype(np.uint16)
    values = np.zeros((len(found), count), np.uint16)
    # A few rows at a time: bits take 8 bytes each byte.
    for top in range(0, len(found), 64):
        rows = slice(top, top + 64)
        bits = np.unpackbits(found[rows], axis=1)[:, : count * depth]
        bits = bits.reshape(-1, count, depth)
        for bit in range(depth):
            values[rows] |= bits[..., bit].astype(np.uint16) << (depth - 1 - bit)
    return values
