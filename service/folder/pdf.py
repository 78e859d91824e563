"""Pages of PDF files to photo files, by PDFium; the extra ``pdf`` brings it."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ppool.service.codecs.header import ImageLimits
from ppool.service.errors import CorruptImage, TooLarge, UnsupportedImage

__all__ = ["DPI", "SUFFIX", "count_pages", "drawn_page"]

SUFFIX = ".pdf"
# An A4 page has 1654 x 2339 pixels then, and print of 8 points letters 22 high.
DPI = 200

_POINTS_AN_INCH = 72
_PASSWORD = 4  # FPDF_ERR_PASSWORD

# PDFium may be used by one thread at a time, and closes what it holds whenever that is collected.
_ONE_AT_A_TIME = threading.Lock()


def count_pages(path: Path) -> int:
    """How many pages a file has.

    Raises:
        UnsupportedImage: if it has a password, or PDFium is not installed.
        CorruptImage: if it cannot be read.
        OSError: if there is no such file.
    """
    with _opened(path) as document:
        return len(document)


def drawn_page(path: Path, page: int, dpi: int, limits: ImageLimits) -> bytes:
    """A page on white paper, with its annotations and what its forms are filled with, as a BMP.

    Args:
        path: Of the PDF file.
        page: The first is 1.
        dpi: Pixels an inch.
        limits: What is refused before a pixel is drawn.

    Raises:
        TooLarge: if the page has more pixels; the message says which ``dpi`` would do.
        UnsupportedImage, CorruptImage, OSError: as :func:`count_pages`.
    """
    with _opened(path) as document:
        document.init_forms()
        paper = document[page - 1]
        _check(paper.get_size(), dpi, limits)
        bitmap = paper.render(scale=dpi / _POINTS_AN_INCH)
        try:
            return _bmp(bitmap.to_numpy())
        finally:
            bitmap.close()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with _ONE_AT_A_TIME:
        try:
            import pypdfium2
        except ImportError as error:
            raise UnsupportedImage(
                "Install what reads PDF files: pip install 'ppool[pdf]'."
            ) from error
        try:
            with pypdfium2.PdfDocument(path) as document:
                yield document
        except pypdfium2.PdfiumError as error:
            if error.err_code == _PASSWORD:
                raise UnsupportedImage("The PDF has a password; save it without one.") from error
            raise CorruptImage(
                "The PDF is damaged; open it in another program and save it anew."
            ) from error


def _check(points: tuple[float, float], dpi: int, limits: ImageLimits) -> None:
    width, height = (max(side, 1.0) * dpi / _POINTS_AN_INCH for side in points)
    shrink = min(
        1.0,
        (limits.max_pixels / (width * height)) ** 0.5,
        limits.max_side_pixels / max(width, height),
    )
    if shrink < 1:
        raise TooLarge(
            f"The page has {width:.0f} x {height:.0f} pixels at {dpi} dpi; ask for "
            f"--dpi {max(int(dpi * shrink), 1)}, or raise PPOOL_MAX_PIXELS."
        )


def _bmp(pixels: Any) -> bytes:
    """Blue, green, red, uint8 [H, W, 3], as an uncompressed file at the price of a copy."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, -(-3 * width // 4) * 4), np.uint8)
    rows[:, : 3 * width] = pixels.reshape(height, 3 * width)
    head = struct.pack("<2sI4xI", b"BM", 54 + rows.nbytes, 54)
    # A negative height: the first row is the top one.
    about = struct.pack("<IiiHHI20x", 40, width, -height, 1, 24, 0)
    return b"".join((head, about, rows.data))
