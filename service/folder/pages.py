"""The pages of a file as photo files: one, but for TIFF and PDF; frames of animations are none."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ppool.service.codecs import kinds, tiff
from ppool.service.codecs.header import ImageLimits
from ppool.service.errors import CorruptImage, TooLarge
from ppool.service.folder import pdf
from ppool.service.folder.photos import Photo

__all__ = ["Pages", "open_pages"]

# Four channels of 16 bits, uncompressed; what is larger has no more pixels to show for it.
_BYTES_A_PIXEL = 8


@dataclass(frozen=True)
class Pages:
    """A file that was opened.

    Attributes:
        photo: The file as it is now.
        numbers: Of its pages.
        file: A photo file, and which page of it is the page of a number.
        drawn: Whether that takes drawing it.
    """

    photo: Photo
    numbers: tuple[int, ...]
    file: Callable[[int], tuple[bytes, int]]
    drawn: bool = False


def open_pages(photo: Photo, limits: ImageLimits, dpi: int) -> Pages:
    """Open a file.

    Args:
        photo: Where it is.
        limits: What is refused.
        dpi: At which pages of a PDF are drawn.

    Raises:
        CodecError: if it is too large, no file any more, or a PDF that cannot be read.
        OSError: if it cannot be read.
    """
    # A FIFO that took its place would wait for a writer.
    descriptor = os.open(photo.path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise CorruptImage("no file any more")
        photo = replace(photo, size=about.st_size, modified_ns=about.st_mtime_ns)
        if photo.path.suffix.lower() == pdf.SUFFIX:
            numbers = tuple(range(1, pdf.count_pages(photo.path) + 1))
            return Pages(photo, numbers, partial(_drawn, photo, limits, dpi), drawn=True)
        most = limits.max_pixels * _BYTES_A_PIXEL
        if about.st_size > most:
            raise TooLarge(f"larger than {most} bytes; raise PPOOL_MAX_PIXELS")
        data = file.read()
    numbers = tiff.own_pages(data) if kinds.kind_of(data) is kinds.TIFF else (1,)
    return Pages(photo, numbers, lambda number: (data, number))


def _drawn(photo: Photo, limits: ImageLimits, dpi: int, number: int) -> tuple[bytes, int]:
    return pdf.drawn_page(photo.path, number, dpi, limits), 1
