"""Photo files to upright RGB pixels: limits from the header first, then decoding, no surprise."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from ppool.metadata import InputPolicy
from ppool.service.codecs import kinds, tiff_pixels
from ppool.service.codecs.header import NO_LIMITS, TURNS, ImageLimits, Opened, opened
from ppool.service.codecs.resizing import resized
from ppool.service.errors import CodecError, UnsupportedImage

__all__ = ["Photo", "decode", "decode_file", "strips"]

_STRIP_ROWS = 128


@dataclass(frozen=True)
class Photo:
    """Upright RGB, uint8 [h, w, 3], resized as asked.

    Attributes:
        image: The pixels.
        width: Of the file's page, upright.
        height: Likewise.
        pages: How many pages or frames the file has.
        whole: The pixels at their own size, where they were to be kept.
    """

    image: NDArray[np.uint8]
    width: int
    height: int
    pages: int = 1
    whole: NDArray[np.uint8] | None = None


def decode(
    data: bytes,
    limits: ImageLimits,
    policy: InputPolicy | None = None,
    page: int = 1,
    *,
    keep: bool = False,
) -> Photo:
    """Decode a photo file to upright 8-bit RGB.

    Grey, palette, CMYK and LAB become RGB, transparency is laid on white, up to 16 bits are scaled
    to 8, the EXIF orientation is undone. Every file is decoded at its full size before it is
    resized, so that a photo gives the same mask whatever kind of file it is.

    Args:
        data: The file.
        limits: What to refuse.
        policy: Resize the photo as it says; ``None`` keeps its size.
        page: Of a TIFF, or frame of an animation; the first is 1.
        keep: Keep the pixels at their own size as well.

    Raises:
        UnsupportedImage: if the content is of none of the accepted types.
        TooLarge: if the header announces more than the limits.
        CorruptImage: if the content cannot be decoded.
        NoSuchPage: if the file has fewer pages.
    """
    with opened(data, limits, page) as file:
        rgb = _pixels(file, page)
        orientation = file.orientation()  # only now: a PNG may tell it behind its pixels
        turned = orientation >= 5
        height, width = rgb.shape[1::-1] if turned else rgb.shape[:2]
        whole = _turned(rgb, orientation) if keep else None
        if policy is not None:
            size = policy.reduced(height, width)
            rgb = resized(rgb, *(size[::-1] if turned else size))
        return Photo(_turned(rgb, orientation), width, height, file.pages, whole)


def decode_file(path: Path, policy: InputPolicy | None = None) -> Photo:
    """Decode a photo file of one's own, as :func:`decode` would if it were sent.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it cannot be decoded; the message names it.
    """
    try:
        return decode(path.read_bytes(), NO_LIMITS, policy)
    except CodecError as error:
        raise ValueError(f"{path}: not a readable image: {error}") from error


def _turned(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation not in TURNS:
        return rgb
    return np.asarray(Image.fromarray(rgb).transpose(TURNS[orientation]))


def strips(height: int) -> Iterator[slice]:
    """The rows of an image of ``height``, a few at a time."""
    for top in range(0, height, _STRIP_ROWS):
        yield slice(top, min(top + _STRIP_ROWS, height))


def _pixels(file: Opened, page: int) -> NDArray[np.uint8]:
    """The pixels as they are stored, as RGB, uint8 [h, w, 3]."""
    if file.image is None:
        return tiff_pixels.decode(file.data, file.tags)
    if file.kind is kinds.JPEG and page == 1 and file.image.mode in ("L", "RGB"):
        # Pillow takes twice as long, but knows CMYK and forgives what strict decoding does not.
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(file.data, "RGB")
        except ValueError:
            pass
        else:
            return pixels
    hidden = _hidden_colour(file)
    image = file.image
    image.load()
    if (
        image.mode == "RGBA"
        and file.kind is kinds.BMP
        and image.getchannel("A").getextrema() == (0, 0)
    ):
        image = image.convert("RGB")  # the fourth byte was never used
    rgb = _in_strips(image)
    if hidden is not None:
        rgb[hidden] = 255
    return rgb


def _hidden_colour(file: Opened) -> NDArray[np.bool_] | None:
    """Where a PNG's one transparent colour is, [h, w]; ``None`` where Pillow sees to it.

    Pillow compares scaled or shortened samples with the colour as it is stored.
    """
    image = file.image
    if file.kind is not kinds.PNG or not isinstance(image, PngImagePlugin.PngImageFile):
        return None
    colour = image.info.get("transparency")
    layout = image.tile[0].args if image.tile else ""
    if colour is None or image.mode not in ("1", "L", "I;16", "RGB"):
        return None
    if layout == "RGB;16B":
        # Read as if the low byte were the high one, it gives the low one.
        low = PngImagePlugin.PngImageFile(io.BytesIO(file.data))
        low.tile = [low.tile[0]._replace(args="RGB;16L")]
        samples = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
    elif layout in ("L;2", "L;4", "1", "I;16B"):
        samples = np.asarray(image).astype(np.uint16)
        if layout.startswith("L;"):
            samples //= {"L;2": 85, "L;4": 17}[layout]
    else:
        return None
    del image.info["transparency"]
    equal = samples.reshape(*samples.shape[:2], -1) == np.array(colour, np.uint16)
    hidden: NDArray[np.bool_] = np.all(equal, axis=2)
    return hidden


def _in_strips(image: Image.Image) -> NDArray[np.uint8]:
    """Uint8 [h, w, 3] in strips: whole, what lies in between takes 12 bytes a pixel."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for rows in strips(height):
        pixels[rows] = np.asarray(_to_rgb(image.crop((0, rows.start, width, rows.stop))))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        # 65535 / 257 = 255, so this rounds; Pillow's own conversion would clip at 255.
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnsupportedImage("Save the image with 8 or 16 bits a channel; this has 32.")
    if image.mode == "LAB":
        return (
            ImageCms.profileToProfile(
                image,
                ImageCms.createProfile("LAB"),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            or image
        )
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
