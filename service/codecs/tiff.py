"""The directories of a TIFF file: its pages, and what of them is refused or needs care.

TIFF 6.0 (Adobe, 1992) is the source of tags and layouts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from ppool.service.errors import TooLarge

__all__ = [
    "CHANNELS",
    "Layout",
    "Photometric",
    "Tag",
    "Tags",
    "beginning_with",
    "count_pages",
    "is_cut_off",
    "lacks_jpeg",
    "layout_of",
    "needs_care",
    "one",
    "own_pages",
    "page_tags",
    "profile",
    "refusal",
    "sample_depths",
]

Tags = Mapping[int, tuple[int, ...]]


class Tag(IntEnum):
    """The entries of a directory that are read."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIPS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    COLOURS = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_BYTES = 325
    SUB_IFDS = 330
    INK_SET = 332
    EXTRA = 338
    FORMAT = 339
    DNG_VERSION = 50706


class Photometric(IntEnum):
    """What samples mean, as far as it matters here."""

    MIN_IS_WHITE = 0
    MIN_IS_BLACK = 1
    RGB = 2
    PALETTE = 3
    MASK = 4
    CMYK = 5
    YCBCR = 6
    LAB = 8
    CFA = 32803
    LINEAR_RAW = 34892


_READ = frozenset(Tag)
_RAW = (Photometric.CFA, Photometric.LINEAR_RAW)
CHANNELS: dict[int, int] = {
    Photometric.MIN_IS_WHITE: 1,
    Photometric.MIN_IS_BLACK: 1,
    Photometric.RGB: 3,
    Photometric.PALETTE: 1,
    Photometric.CMYK: 4,
}
# None, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard.
_LOSSLESS = {1, 5, 8, 32946, 32773, 34925, 50000}
_OLD_JPEG, _NEW_JPEG = 6, 7
# CCITT (modified Huffman, T.4, T.6), JPEG.
_PILLOWS = {2, 3, 4, 32771, _OLD_JPEG, _NEW_JPEG}
_REDUCED, _IS_MASK = 1, 4  # bits of NewSubfileType
_MOST_EXTRA = 4
_ICC = 34675
_MOST_PAGES = 4096
# Strips of one row of the longest photo in four planes, or its smallest tiles.
_MOST_VALUES = 2**20
# By struct code: unsigned and signed numbers, and BigTIFF's.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


class Layout(NamedTuple):
    """Of the numbers in a file; the directories of BigTIFF are wider."""

    order: str
    entries: str
    pointer: str

    @property
    def entry(self) -> int:
        """Bytes of an entry of a directory: tag, type, count, value."""
        return 4 + 2 * struct.calcsize(self.order + self.pointer)

    def read(self, code: str, data: bytes, place: int) -> int:
        """A number by its struct code."""
        return int(struct.unpack_from(self.order + code, data, place)[0])


def layout_of(data: bytes) -> Layout:
    """As the first bytes of a file say."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    return Layout(order, "Q", "Q") if big else Layout(order, "H", "I")


def _directories(data: bytes) -> Iterator[int]:
    """Where the directory of each page begins; a chain that turns back ends there."""
    layout = layout_of(data)
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
    kinds = {page: one(_tags(data, place), Tag.SUBFILE, 0) for page, place in places}
    if len(kinds) > _MOST_PAGES:
        raise TooLarge(f"Split the TIFF file; it has more than {_MOST_PAGES} pages.")
    return tuple(page for page, kind in kinds.items() if not kind & (_REDUCED | _IS_MASK)) or (1,)


def beginning_with(data: bytes, page: int) -> bytes:
    """The file as if this page were its first."""
    layout = layout_of(data)
    place = next(islice(_directories(data), page - 1, None))
    link = struct.pack(layout.order + layout.pointer, place)
    start = len(link) if layout.pointer == "Q" else 4
    return b"".join((data[:start], link, memoryview(data)[start + len(link) :]))


def page_tags(data: bytes, page: int = 1) -> Tags:
    """The whole numbers in the directory of a page; empty if there is none."""
    place = next(islice(_directories(data), page - 1, None), None)
    return {} if place is None else _tags(data, place)


def _tags(data: bytes, place: int) -> Tags:
    layout = layout_of(data)
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


def profile(data: bytes, page: int = 1) -> bytes:
    """The ICC profile of a page; empty if it has none."""
    layout = layout_of(data)
    place = next(islice(_directories(data), page - 1, None), None)
    if place is None:
        return b""
    first = place + struct.calcsize(layout.entries)
    count = min(layout.read(layout.entries, data, place), (len(data) - first) // layout.entry)
    for entry in range(first, first + count * layout.entry, layout.entry):
        (tag,) = struct.unpack_from(f"{layout.order}H", data, entry)
        if tag == _ICC:
            length = layout.read(layout.pointer, data, entry + 4)
            at = layout.read(layout.pointer, data, entry + 4 + struct.calcsize(layout.pointer))
            return data[at : at + length]
    return b""


def is_cut_off(data: bytes) -> bool:
    """Whether the first page lies beyond the end of the file, in part at least."""
    tags = page_tags(data)
    if not tags:
        return True
    return not _places(tags) or any(place + size > len(data) for place, size in _parts(tags))


def lacks_jpeg(data: bytes, tags: Tags) -> bool:
    """Whether a strip or tile of JPEG has no end, so that libtiff would fill it with grey."""
    return one(tags, Tag.COMPRESSION, 1) == _NEW_JPEG and any(
        b"\xff\xd9" not in data[place + size - 8 : place + size] for place, size in _parts(tags)
    )


def _places(tags: Tags) -> tuple[int, ...]:
    return tags.get(Tag.STRIPS, ()) + tags.get(Tag.TILES, ())


def _parts(tags: Tags) -> Iterator[tuple[int, int]]:
    """Where each strip or tile of a page begins, and how many bytes it has."""
    sizes = tags.get(Tag.STRIP_BYTES, ()) + tags.get(Tag.TILE_BYTES, ())
    return zip(_places(tags), sizes, strict=False)


def one(tags: Tags, tag: int, default: int) -> int:
    """The first number of an entry."""
    return (tags.get(tag) or (default,))[0]


def sample_depths(tags: Tags) -> tuple[int, ...]:
    """The bits of each sample of a pixel."""
    samples = one(tags, Tag.SAMPLES, 1)
    depths = tags.get(Tag.BITS, (1,))
    return depths * samples if len(depths) == 1 and samples <= 64 else depths


def refusal(data: bytes, tags: Tags) -> str:
    """Why a sound page is not decoded; empty if it should be."""
    photometric, depths = one(tags, Tag.PHOTOMETRIC, 0), sample_depths(tags)
    raw = Tag.DNG_VERSION in tags or photometric in _RAW or data[8:10] == b"CR"
    # The first page of a raw file is a thumbnail of what its sub-directories hold.
    kinds = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
    odd = next((kinds[kind] for kind in tags.get(Tag.FORMAT, ()) if kind in kinds), None)
    # The first page of a raw file is a thumbnail of what its sub-directories hold.
    raw |= Tag.SUB_IFDS in tags and bool(one(tags, Tag.SUBFILE, 0) & 1)
    other_inks = photometric == Photometric.CMYK and (
        one(tags, Tag.INK_SET, 1) != 1 or one(tags, Tag.SAMPLES, 4) < CHANNELS[Photometric.CMYK]
    )
    samples, coded = one(tags, Tag.SAMPLES, 1), one(tags, Tag.COMPRESSION, 1)
    # Pillow takes it for three samples a pixel.
    subsampled = (
        photometric == Photometric.YCBCR
        and coded == 1
        and (
            one(tags, Tag.PLANAR, 1) == 2
            or sum(tags.get(Tag.STRIP_BYTES, tags.get(Tag.TILE_BYTES, ())))
            < 3 * tags[Tag.WIDTH][0] * tags[Tag.HEIGHT][0]
        )
    )
    other_colours = photometric not in {*CHANNELS, Photometric.YCBCR, Photometric.LAB} or (
        photometric == Photometric.LAB and depths[:3] != (8, 8, 8)
    )
    reasons = {
        "Develop the photo first; this is a camera's raw file.": raw,
        f"Save the TIFF with unsigned samples of 8 or 16 bits; this has {odd} ones.": odd,
        f"Save the TIFF with 8 or 16 bits a channel; this has {max(depths)}.": max(depths) > 16,
        "Save the TIFF with as many bits in every channel; these differ.": len(set(depths)) > 1,
        "Save the TIFF as RGB; this has YCbCr samples that are not compressed.": subsampled,
        "Ask for another page; this one is the mask of another.": photometric == Photometric.MASK,
        "Save the TIFF as RGB or CMYK; this has other inks.": other_inks,
        "Save the TIFF as RGB; this has other colours.": other_colours,
        f"Save the TIFF without compression or as Deflate; this has compression {coded}.": (
            coded not in _LOSSLESS | _PILLOWS
            or (coded in (_OLD_JPEG, _NEW_JPEG) and max(depths) > 8)
        ),
        f"Save the TIFF as RGB; this has {samples} channels.": (
            samples > CHANNELS.get(photometric, 3) + _MOST_EXTRA
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def needs_care(data: bytes, tags: Tags) -> bool:
    """Whether :mod:`.tiff_pixels` is to decode it, as Pillow may give other pixels or none."""
    photometric = one(tags, Tag.PHOTOMETRIC, 0)
    if photometric not in CHANNELS or one(tags, Tag.COMPRESSION, 1) not in _LOSSLESS:
        return False
    plain = (
        photometric in (Photometric.MIN_IS_BLACK, Photometric.RGB)
        and sample_depths(tags) == (8,) * CHANNELS[photometric]
        and one(tags, Tag.PLANAR, 1) == 1
        and data[:4] in (b"II*\0", b"MM\0*")
    )
    return not plain
