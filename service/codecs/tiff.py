"""TIFF beyond what Pillow reads right: any depth to 16 bits, min-is-white, separate planes.

TIFF 6.0 (Adobe, 1992) is the source of tags and layouts.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppool.service.errors import CorruptImage, TooLarge, UnsupportedImage

__all__ = [
    "Tags",
    "beginning_with",
    "count_pages",
    "decode",
    "is_cut_off",
    "needs_care",
    "own_pages",
    "page_tags",
    "refusal",
]

Tags = Mapping[int, tuple[int, ...]]

(
    _SUBFILE,
    WIDTH,
    HEIGHT,
    _BITS,
    _COMPRESSION,
    _PHOTOMETRIC,
    _FILL_ORDER,
    _STRIPS,
    _SAMPLES,
    _STRIP_ROWS,
    _STRIP_BYTES,
    _PLANAR,
    _PREDICTOR,
    _COLOURS,
    _TILE_WIDTH,
    _TILE_HEIGHT,
    _TILES,
    _TILE_BYTES,
    _SUB_IFDS,
    _INK_SET,
    _EXTRA,
    _FORMAT,
    _DNG_VERSION,
) = (
    254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330,
    332, 338, 339, 50706,
)  # fmt: skip
ORIENTATION = 274
_READ = frozenset(
    {_SUBFILE, WIDTH, HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, ORIENTATION,
     _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT,
     _TILES, _TILE_BYTES, _SUB_IFDS, _INK_SET, _EXTRA, _FORMAT, _DNG_VERSION}
)  # fmt: skip

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _CMYK = range(6)
_YCBCR = 6
_CHANNELS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
_CFA, _LINEAR_RAW = 32803, 34892
# None, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard.
_LOSSLESS = {1, 5, 8, 32946, 32773, 34925, 50000}
# CCITT (modified Huffman, T.4, T.6), JPEG (old, new), WebP.
_PILLOWS = {2, 3, 4, 32771, 6, 7, 50001}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_REDUCED, _IS_MASK = 1, 4  # bits of NewSubfileType
_MOST_EXTRA = 4
_MOST_PAGES = 4096
# Strips of one row of the longest photo in four planes, or its smallest tiles.
_MOST_VALUES = 2**20
# By struct code: unsigned and signed numbers, and BigTIFF's.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


class _Layout(NamedTuple):
    """Of the numbers in a file; the directories of BigTIFF are wider."""

    order: str
    entries: str
    pointer: str

    @property
    def entry(self) -> int:
        """Bytes of an entry of a directory: tag, type, count, value."""
        return 4 + 2 * struct.calcsize(self.order + self.pointer)

    def read(self, code: str, data: bytes, place: int) -> int:
        return int(struct.unpack_from(self.order + code, data, place)[0])


def _layout(data: bytes) -> _Layout:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    return _Layout(order, "Q", "Q") if big else _Layout(order, "H", "I")


def _directories(data: bytes) -> Iterator[int]:
    """Where the directory of each page begins; a chain that turns back ends there."""
    layout = _layout(data)
    link = 8 if layout.pointer == "Q" else 4
    seen: set[int] = set()
    try:
        while (place := layout.read(layout.pointer, data, link)) and place not in seen:
            seen.add(place)
            count = layout.read(layout.entries, data, place)
            link = place + struct.calcsize(layout.entries) + count * layout.entry
            yield place
    except (struct.error, OverflowError):  # beyond the end, or beyond any file
        return


def count_pages(data: bytes, most: int = _MOST_PAGES) -> int:
    """The directories of a file, at least 1 and at most ``most``."""
    return max(sum(1 for _ in islice(_directories(data), most)), 1)


def own_pages(data: bytes) -> tuple[int, ...]:
    """The numbers of the pages that are neither smaller copies nor masks of others.

    Raises:
        TooLarge: if there are more pages than can be asked for.
    """
    places = enumerate(islice(_directories(data), _MOST_PAGES + 1), 1)
    kinds = {page: _one(_tags(data, place), _SUBFILE, 0) for page, place in places}
    if len(kinds) > _MOST_PAGES:
        raise TooLarge(f"Split the TIFF file; it has more than {_MOST_PAGES} pages.")
    return tuple(page for page, kind in kinds.items() if not kind & (_REDUCED | _IS_MASK)) or (1,)


def beginning_with(data: bytes, page: int) -> bytes:
    """The file as if this page were its first."""
    layout = _layout(data)
    place = next(islice(_directories(data), page - 1, None))
    link = struct.pack(layout.order + layout.pointer, place)
    start = len(link) if layout.pointer == "Q" else 4
    return b"".join((data[:start], link, memoryview(data)[start + len(link) :]))


def page_tags(data: bytes, page: int = 1) -> Tags:
    """The whole numbers in the directory of a page; empty if there is none."""
    place = next(islice(_directories(data), page - 1, None), None)
    return {} if place is None else _tags(data, place)


def _tags(data: bytes, place: int) -> Tags:
    layout = _layout(data)
    tags: dict[int, tuple[int, ...]] = {}
    first = place + struct.calcsize(layout.entries)
    pointer_bytes = struct.calcsize(layout.pointer)
    count = min(layout.read(layout.entries, data, place), (len(data) - first) // layout.entry)
    for entry in range(first, first + count * layout.entry, layout.entry):
        tag, kind = struct.unpack_from(f"{layout.order}HH", data, entry)
        length = layout.read(layout.pointer, data, entry + 4)
        # The first of a kind counts, as in libtiff; others may be there to keep us busy.
        if tag not in _READ or tag in tags or kind not in _NUMBERS or length > _MOST_VALUES:
            continue
        code = f"{layout.order}{length}{_NUMBERS[kind]}"
        value = entry + 4 + pointer_bytes
        if struct.calcsize(code) > pointer_bytes:
            value = layout.read(layout.pointer, data, value)
        with suppress(struct.error, OverflowError):
            tags[tag] = struct.unpack_from(code, data, value)
    return tags


def is_cut_off(data: bytes) -> bool:
    """Whether the first page lies beyond the end of the file, in part at least."""
    tags = page_tags(data)
    if not tags:
        return True
    places = tags.get(_STRIPS, ()) + tags.get(_TILES, ())
    sizes = tags.get(_STRIP_BYTES, ()) + tags.get(_TILE_BYTES, ())
    return not places or any(
        place + size > len(data) for place, size in zip(places, sizes, strict=False)
    )


def _one(tags: Tags, tag: int, default: int) -> int:
    return (tags.get(tag) or (default,))[0]


def _depths(tags: Tags) -> tuple[int, ...]:
    samples = _one(tags, _SAMPLES, 1)
    depths = tags.get(_BITS, (1,))
    return depths * samples if len(depths) == 1 and samples <= 64 else depths


def refusal(data: bytes, tags: Tags) -> str:
    """Why a sound page is not decoded; empty if it should be."""
    photometric, depths = _one(tags, _PHOTOMETRIC, 0), _depths(tags)
    raw = _DNG_VERSION in tags or photometric in (_CFA, _LINEAR_RAW) or data[8:10] == b"CR"
    # The first page of a raw file is a thumbnail of what its sub-directories hold.
    kinds = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
    odd = next((kinds[kind] for kind in tags.get(_FORMAT, ()) if kind in kinds), None)
    # The first page of a raw file is a thumbnail of what its sub-directories hold.
    raw |= _SUB_IFDS in tags and bool(_one(tags, _SUBFILE, 0) & 1)
    other_inks = photometric == _CMYK and (
        _one(tags, _INK_SET, 1) != 1 or _one(tags, _SAMPLES, 4) < _CHANNELS[_CMYK]
    )
    samples, coded = _one(tags, _SAMPLES, 1), _one(tags, _COMPRESSION, 1)
    # Pillow takes it for three samples a pixel.
    subsampled = (
        photometric == _YCBCR
        and coded == 1
        and (
            _one(tags, _PLANAR, 1) == 2
            or sum(tags.get(_STRIP_BYTES, tags.get(_TILE_BYTES, ())))
            < 3 * tags[WIDTH][0] * tags[HEIGHT][0]
        )
    )
    reasons = {
        "Develop the photo first; this is a camera's raw file.": raw,
        f"Save the TIFF with unsigned samples of 8 or 16 bits; this has {odd} ones.": odd,
        f"Save the TIFF with 8 or 16 bits a channel; this has {max(depths)}.": max(depths) > 16,
        "Save the TIFF with as many bits in every channel; these differ.": len(set(depths)) > 1,
        "Save the TIFF as RGB; this has YCbCr samples that are not compressed.": subsampled,
        "Ask for another page; this one is the mask of another.": photometric == _MASK,
        "Save the TIFF as RGB or CMYK; this has other inks.": other_inks,
        f"Save the TIFF without compression or as Deflate; this has compression {coded}.": (
            coded not in _LOSSLESS | _PILLOWS
        ),
        f"Save the TIFF as RGB; this has {samples} channels.": (
            samples > _CHANNELS.get(photometric, 3) + _MOST_EXTRA
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def needs_care(data: bytes, tags: Tags) -> bool:
    """Whether :func:`decode` is to be used, as Pillow may give other pixels or none."""
    photometric = _one(tags, _PHOTOMETRIC, 0)
    if photometric not in _CHANNELS or _one(tags, _COMPRESSION, 1) not in _LOSSLESS:
        return False
    plain = (
        photometric in (_MIN_IS_BLACK, _RGB)
        and _depths(tags) == (8,) * _CHANNELS[photometric]
        and _one(tags, _PLANAR, 1) == 1
        and data[:4] in (b"II*\0", b"MM\0*")
    )
    return not plain


def decode(data: bytes, tags: Tags) -> NDArray[np.uint8]:
    """The pixels of a page as RGB, uint8 [H, W, 3], transparency laid on white.

    Raises:
        UnsupportedImage: if a predictor does not go with the depth.
        CorruptImage: if the tags contradict each other.
    """
    photometric, depth = _one(tags, _PHOTOMETRIC, 0), _depths(tags)[0]
    samples = _samples(data, tags)  # [H, W, samples], of `depth` bits
    channels = _CHANNELS[photometric]
    if photometric == _PALETTE:
        colours = np.array(tags.get(_COLOURS, ()), np.uint32).reshape(3, -1)
        if colours.shape[1] <= samples[..., 0].max(initial=0):
            raise CorruptImage("The TIFF file has fewer colours than it uses; save it anew.")
        # Some writers give 8 bits where 16 are due; libtiff guesses likewise.
        scale = 257 if colours.max() > 255 else 1
        rgb = ((colours.T + scale // 2) // scale).astype(np.uint8)[samples[..., 0]]
    else:
        values = _to_8_bits(samples[..., :channels], depth)
        if photometric == _MIN_IS_WHITE:
            values = 255 - values
        if photometric == _CMYK:
            light = 255 - values.astype(np.uint16)
            values = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
        rgb = np.broadcast_to(values, (*values.shape[:2], 3))
    extra = tags.get(_EXTRA, ())
    for index, kind in enumerate(extra[: samples.shape[2] - channels]):
        if kind in (_ASSOCIATED, _UNASSOCIATED):
            alpha = _to_8_bits(samples[..., channels + index : channels + index + 1], depth)
            return _on_white(rgb, alpha, premultiplied=kind == _ASSOCIATED)
    return np.ascontiguousarray(rgb)


def _to_8_bits(samples: NDArray[np.uint16], depth: int) -> NDArray[np.uint8]:
    most = (1 << depth) - 1
    return ((samples.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)


def _on_white(
    rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], *, premultiplied: bool
) -> NDArray[np.uint8]:
    white = 255 - alpha.astype(np.uint32)
    colour = rgb.astype(np.uint32) if premultiplied else (rgb * np.uint32(1) * alpha + 127) // 255
    laid: NDArray[np.uint8] = np.minimum(colour + white, 255).astype(np.uint8)
    return laid


def _samples(data: bytes, tags: Tags) -> NDArray[np.uint16]:
    """Every sample as stored, uint16 [H, W, samples]."""
    width, height, count = tags[WIDTH][0], tags[HEIGHT][0], _one(tags, _SAMPLES, 1)
    depth, separate = _depths(tags)[0], _one(tags, _PLANAR, 1) == 2 and count > 1
    predictor = _one(tags, _PREDICTOR, 1)
    if predictor not in (1, 2) or (predictor == 2 and depth not in (8, 16)):
        raise UnsupportedImage(f"Save the TIFF without a predictor; this has {depth} bits and one.")
    tiled = _TILES in tags
    places, sizes = (tags.get(tag, ()) for tag in
                     ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)))  # fmt: skip
    wide = _one(tags, _TILE_WIDTH, width) if tiled else width
    high = _one(tags, _TILE_HEIGHT, height) if tiled else _one(tags, _STRIP_ROWS, height)
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
        unpacked = _unpacked(found, depth, wide * chunky, _layout(data).order)
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
    from PIL import TiffImagePlugin

    rows, row_bytes, strip_rows = shape
    order = _layout(data).order
    described = {
        WIDTH: (row_bytes,),
        HEIGHT: (rows,),
        _BITS: (8,),
        _COMPRESSION: (_one(tags, _COMPRESSION, 1),),
        _PHOTOMETRIC: (_MIN_IS_BLACK,),
        _FILL_ORDER: (_one(tags, _FILL_ORDER, 1),),
        _STRIPS: parts[0],
        _SAMPLES: (1,),
        _STRIP_ROWS: (min(strip_rows, rows),),
        _STRIP_BYTES: parts[1],
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
