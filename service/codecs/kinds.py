"""Kinds of photo files: how each is recognised, cut off, counted in pages, and named."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ppool.service.codecs import tiff

__all__ = [
    "ACCEPTED",
    "SUFFIXES",
    "JpegFrame",
    "Kind",
    "box_size",
    "jpeg_frame",
    "kind_of",
    "png_chunks",
]

_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
# Of ISO base media files: the brands of AVIF, and those of HEVC in HEIF.
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})


# How a JPEG is coded, by the second byte of its frame header (ITU-T T.81, table B.1).
_JPEG_CODED = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical",
               0xCB: "lossless", 0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical",
               0xF7: "JPEG-LS"}  # fmt: skip
_JPEG_TABLES = (0xC4, 0xC8, 0xCC)  # among the numbers of frames
_JPEG_SCAN = 0xDA


@dataclass(frozen=True)
class Kind:
    """One kind of photo file.

    Attributes:
        name: As people call it.
        suffixes: Of file names.
        is_cut_off: Whether a file ends before it says it does.
        pages: How many pages or frames a file has, counted no further than to a limit.
    """

    name: str
    suffixes: tuple[str, ...]
    is_cut_off: Callable[[bytes], bool]
    pages: Callable[[bytes, int], int] = lambda _, __: 1


def kind_of(data: bytes) -> Kind | None:
    """The kind of a file, as far as its first bytes tell; ``None`` for any other."""
    if data[4:8] == b"ftyp":
        brands = set(_brands(data))
        return AVIF if brands & _AVIF else HEIC if brands & _HEIC else None
    if data[:4] == b"RIFF":
        return WEBP if data[8:12] == b"WEBP" else None
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


class JpegFrame(NamedTuple):
    """What the frame header of a JPEG says.

    Attributes:
        width: In pixels, as stored.
        height: Likewise.
        oddity: What keeps a sound file from being decoded; empty if nothing does.
    """

    width: int
    height: int
    oddity: str


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a JPEG; ``None`` if it does not follow the markers before it."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker in _JPEG_CODED or (0xC0 <= marker <= 0xCF and marker not in _JPEG_TABLES):
            bits, height, width = struct.unpack_from(">BHH", data, place + 4)
            coded = _JPEG_CODED.get(marker, "" if bits == 8 else f"of {bits} bits")
            return JpegFrame(width, height, coded)
        if marker == _JPEG_SCAN:
            break
        place += 2 + length
    return None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG, as far as whole ones go.

    The start is that of its length field, the end that of its check sum.
    """
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name, start, place = data[place + 4 : place + 8], place, place + 12 + length
        if place > len(data):
            return
        yield name, start, place
        if name == b"IEND":
            return


def _brands(data: bytes) -> Iterator[bytes]:
    """The major brand of an ISO base media file, then the compatible ones."""
    (size,) = struct.unpack_from(">I", data)
    yield data[8:12]
    for place in range(16, min(size, len(data), 1024) - 3, 4):
        yield data[place : place + 4]


def _png_is_cut_off(data: bytes) -> bool:
    return all(name != b"IEND" for name, *_ in png_chunks(data))


def _png_pages(data: bytes, _: int) -> int:
    """Frames of an APNG, which says so before its pixels."""
    for name, start, _ in png_chunks(data):
        if name == b"acTL":
            return max(int.from_bytes(data[start + 8 : start + 12]), 1)
        if name == b"IDAT":
            break
    return 1


def _boxes_are_cut_off(data: bytes) -> bool:
    place = 0
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if size == 1 and place + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, place + 8)
        if not size:  # to the end of the file
            return False
        place += max(size, 8)
    return place != len(data)


def box_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the largest image in an AVIF or HEIC file, once upright."""
    size, turned = (0, 0), False
    place = data.find(b"ispe")
    while 0 <= place <= len(data) - 16:
        _, width, height = struct.unpack_from(">3I", data, place + 4)
        size = max(size, (width, height), key=lambda both: both[0] * both[1])
        place = data.find(b"ispe", place + 4, place + 65536)
    place = data.find(b"irot")
    if 0 <= place < len(data) - 4:
        turned = bool(data[place + 4] & 1)
    if not size[0] * size[1]:
        return None
    return size[::-1] if turned else size


def _gif_pages(data: bytes, most: int) -> int:
    """Images of a GIF. Pillow would decode them to count them."""
    count, place = 0, 13 + _colour_bytes(data, 10)
    while place < len(data) and count < most:
        block = data[place]
        if block == _GIF_IMAGE:
            count += 1
            place += 11 + _colour_bytes(data, place + 9)  # its size, colours, code size
        elif block == _GIF_EXTENSION:
            place += 2
        else:
            break
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return max(count, 1)


def _colour_bytes(data: bytes, flags: int) -> int:
    if flags >= len(data) or not data[flags] & 0x80:
        return 0
    return int(3 << (data[flags] & 7) + 1)


JPEG = Kind(
    "JPEG",
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    lambda data: data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or b"\xff\xda" not in data,
)
PNG = Kind("PNG", (".png", ".apng"), _png_is_cut_off, _png_pages)
WEBP = Kind("WebP", (".webp",), lambda data: int.from_bytes(data[4:8], "little") + 8 > len(data))
AVIF = Kind("AVIF", (".avif",), _boxes_are_cut_off)
HEIC = Kind("HEIC", (".heic", ".heif"), _boxes_are_cut_off)
GIF = Kind("GIF", (".gif",), lambda data: data.rstrip(b"\0")[-1:] != b";", _gif_pages)
BMP = Kind("BMP", (".bmp",), lambda data: int.from_bytes(data[2:6], "little") > len(data))
TIFF = Kind("TIFF", (".tif", ".tiff"), tiff.is_cut_off, tiff.count_pages)

_KINDS = (JPEG, PNG, WEBP, AVIF, HEIC, GIF, BMP, TIFF)
ACCEPTED = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF"
SUFFIXES = frozenset(suffix for kind in _KINDS for suffix in kind.suffixes)

_MAGIC = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"BM": BMP,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
}
