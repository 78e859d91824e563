"""What shows a photo: the classes blended over it, the chosen ones cut out, and their files."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ppool.service.codecs.png import png
from ppool.service.codecs.strips import strips
from ppool.service.errors import TooLarge

__all__ = ["Format", "blended", "cut_out", "picture"]

Format = Literal["png", "jpeg", "webp"]

# Where the colours of classes meet, a smaller file would show it.
_QUALITY, _SUBSAMPLING = 90, "444"
# A WebP has half the resolution of colours, which more bits do not bring back.
_OPAQUE_WEBP_QUALITY = 80
# Of the format's fourteen bits (RFC 9649, section 2.6).
_WEBP_SIDE = 16383


def blended(photo: NDArray[np.uint8], mask: NDArray[Any], palette: bytes) -> NDArray[np.uint8]:
    """The photo, RGB, uint8 [H, W, 3], half as strong, with the colours of its mask over it.

    Args:
        photo: RGB, uint8 [H, W, 3].
        mask: Class ids, [H, W]; those beyond the palette leave the photo as it is.
        palette: Red, green and blue of each class.
    """
    result = np.empty_like(photo)
    classes = len(palette) // 3
    for rows in strips(len(photo)):
        labels, pixels = mask[rows], photo[rows]
        other = labels >= classes if labels.max() >= classes else None
        labels = labels if other is None else np.where(other, labels.dtype.type(0), labels)
        over = Image.fromarray(_coloured(labels, palette))
        result[rows] = np.asarray(Image.blend(Image.fromarray(pixels), over, 0.5))
        if other is not None:
            result[rows][other] = pixels[other]
    return result


def cut_out(photo: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo where ``alpha`` is, RGBA, uint8 [H, W, 4], its colours not multiplied by it.

    Nothing is left of a pixel that does not show at all, neither for a reader of the file nor to
    its size.

    Args:
        photo: RGB or RGBA, uint8 [H, W, C]; the fourth channel is multiplied.
        alpha: From 0 to 255, uint8 [H, W].
    """
    result = np.empty((*alpha.shape, 4), np.uint8)
    for rows in strips(len(photo)):
        opaque = alpha[rows]
        if photo.shape[2] == 4:
            opaque = ((photo[rows, :, 3].astype(np.uint16) * opaque + 127) // 255).astype(np.uint8)
        result[rows, :, :3] = photo[rows, :, :3] * (opaque > 0)[..., None]
        result[rows, :, 3] = opaque
    return result


def picture(pixels: NDArray[np.uint8], kind: Format, profile: bytes = b"") -> bytes:
    """The file of a picture.

    Args:
        pixels: RGB, uint8 [H, W, 3], or RGBA, uint8 [H, W, 4], which a JPEG cannot hold.
        kind: Of file.
        profile: The ICC profile that the colours are of; empty for sRGB, and not kept in a JPEG.

    Raises:
        TooLarge: if the format has no room for so many rows or columns.
    """
    if kind == "png":
        return png(pixels, profile=profile)
    if kind == "jpeg":
        jpeg: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), _QUALITY, "RGB", _SUBSAMPLING
        )
        return jpeg
    if max(pixels.shape[:2]) > _WEBP_SIDE:
        raise TooLarge(f"Ask for PNG: a WebP has sides of at most {_WEBP_SIDE} pixels.")
    file = io.BytesIO()
    # The other methods take up to ten times as long for a tenth fewer bytes.
    quality = _QUALITY if pixels.shape[2] == 4 else _OPAQUE_WEBP_QUALITY
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=0, icc_profile=profile)
    return file.getvalue()


def _coloured(mask: NDArray[Any], palette: bytes) -> NDArray[np.uint8]:
    if mask.dtype != np.uint8:
        colours: NDArray[np.uint8] = np.frombuffer(palette, np.uint8).reshape(-1, 3)[mask]
        return colours
    picture = Image.fromarray(mask)
    picture.putpalette(palette)
    return np.asarray(picture.convert("RGB"))
