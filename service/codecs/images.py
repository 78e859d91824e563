"""Photo files to upright RGB pixels: limits from the header first, then decoding, no surprise."""

from __future__ import annotations

import io
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from ppool.metadata import InputPolicy
from ppool.service.codecs import kinds, tiff_pixels
from ppool.service.codecs.colours import managed
from ppool.service.codecs.header import NO_LIMITS, TURNS, ImageLimits, Opened, opened
from ppool.service.codecs.resizing import resized
from ppool.service.codecs.strips import in_strips
from ppool.service.errors import CodecError, UnsupportedImage

__all__ = ["Keep", "Photo", "decode", "decode_file"]

Keep = Literal["seen", "straight"]

# libjpeg-turbo's words for what it fills with grey, or with what comes of guessing.
_PIXELS_ARE_LOST = ("premature end of data segment", "bad Huffman code")


@dataclass(frozen=True)
class Photo:
    """Upright RGB, uint8 [h, w, 3], resized as asked.

    Attributes:
        image: The pixels.
        width: Of the file's page, upright.
        height: Likewise.
        pages: How many pages or frames the file has.
        whole: The pixels at their own size, in the forms that were to be kept. ``straight`` is RGBA
            if the file has transparency, with colours not multiplied by it.
        profile: The ICC profile that the colours of ``straight`` are of; empty for sRGB.
    """

    image: NDArray[np.uint8]
    width: int
    height: int
    pages: int = 1
    whole: Mapping[Keep, NDArray[np.uint8]] = field(default_factory=dict)
    profile: bytes = b""


def decode(
    data: bytes,
    limits: ImageLimits,
    policy: InputPolicy | None = None,
    page: int = 1,
    *,
    keep: Set[Keep] = frozenset(),
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
        keep: Keep the pixels at their own size as well: as the network sees them, or as they are
            in the file, with transparency and colour profile.

    Raises:
        UnsupportedImage: if the content is of none of the accepted types.
        TooLarge: if the header announces more than the limits.
        CorruptImage: if the content cannot be decoded.
        NoSuchPage: if the file has fewer pages.
    """
    with opened(data, limits, page) as file:
        rgb, shown = _pixels(file, page, straight="straight" in keep)
        forms: dict[Keep, NDArray[np.uint8]] = {"seen": rgb, "straight": shown}
        profile = b""
        if "straight" in keep:
            forms["straight"], profile = managed(shown, file, data, page)
        orientation = file.orientation()  # only now: a PNG may tell it behind its pixels
        turned = orientation >= 5
        height, width = rgb.shape[1::-1] if turned else rgb.shape[:2]
        whole = {form: _turned(forms[form], orientation) for form in forms if form in keep}
        if policy is not None:
            size = policy.reduced(height, width)
            rgb = resized(rgb, *(size[::-1] if turned else size), policy.resample)
        return Photo(_turned(rgb, orientation), width, height, file.pages, whole, profile)


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


def _pixels(
    file: Opened, page: int, *, straight: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The pixels as they are stored, as RGB, uint8 [h, w, 3].

    And once more, with ``straight`` as RGBA if any are transparent, uint8 [h, w, 4].
    """
    if file.image is None:
        rgb = tiff_pixels.decode(file.data, file.tags)
        return rgb, tiff_pixels.decode(file.data, file.tags, straight=True) if straight else rgb
    if file.kind is kinds.JPEG and page == 1:
        # Pillow takes twice as long, but knows inks and forgives what strict decoding does not. It
        # does not tell that pixels are lost, so photos in inks are decoded here for that alone.
        inks = file.image.mode == "CMYK"
        try:
            rgb = simplejpeg.decode_jpeg(file.data, "CMYK" if inks else "RGB")
        except ValueError as error:
            if str(error).endswith(_PIXELS_ARE_LOST):
                raise
        else:
            if not inks:
                return rgb, rgb
    hidden = _hidden_colour(file)
    image = file.image
    image.load()
    if (
        image.mode == "RGBA"
        and file.kind is kinds.BMP
        and image.getchannel("A").getextrema() == (0, 0)
    ):
        image = image.convert("RGB")  # the fourth byte was never used
    rgb = shown = in_strips(image, _to_rgb)
    if hidden is not None:
        if straight:
            shown = np.dstack((rgb, np.where(hidden, 0, 255).astype(np.uint8)))
        rgb[hidden] = 255
    elif straight and (image.has_transparency_data or image.mode == "La"):
        shown = in_strips(image, _to_rgba)
    return rgb, shown


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


def _to_rgba(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


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
