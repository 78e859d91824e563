"""A writer of PDF files whose pages are pictures, pixel for pixel at 72 dpi (ISO 32000-1)."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pdf_file(
    pages: Sequence[NDArray[np.uint8]],
    points: tuple[int, int] | None = None,
    *,
    encrypted: bool = False,
) -> bytes:
    """A file with a page for each picture, uint8 [H, W, 3], as large as it or of ``points``.

    ``encrypted`` only says that it is: no password opens it.
    """
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b""]
    kids = []
    for pixels in pages:
        height, width = pixels.shape[:2]
        wide, high = points or (width, height)
        drawing = b"%d 0 0 %d 0 0 cm /P Do" % (wide, high)
        number = len(objects) + 1
        kids.append(number)
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents %d 0 R"
            b"/Resources<</XObject<</P %d 0 R>>>>>>" % (wide, high, number + 1, number + 2),
            _stream(b"", drawing),
            _stream(
                b"/Type/XObject/Subtype/Image/ColorSpace/DeviceRGB/BitsPerComponent 8"
                b"/Filter/FlateDecode/Width %d/Height %d" % (width, height),
                zlib.compress(pixels.tobytes()),
            ),
        ]
    listed = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (listed, len(kids))
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    secret = b"<%s>" % (b"00" * 32)
    lock = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O%s/U%s>>/ID[%s%s]" % ((secret,) * 4)
    out += b"trailer<</Size %d/Root 1 0 R%s>>\n" % (len(places) + 1, lock if encrypted else b"")
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


def _stream(about: bytes, content: bytes) -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (about, len(content), content)
