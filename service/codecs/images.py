"""Photo files to RGB pixels: limits from the header first, then decoding, never a surprise."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import (  # the plugins register themselves; on demand Pillow would load all seventy
    BmpImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from ppool.metadata import InputPolicy
from ppool.service.codecs.errors import CodecError, CorruptImage, TooLarge, UnsupportedImage

__all__ = [
    "NO_LIMITS",
    "ImageLimits",
    "Photo",
    "decode",
    "decode_file",
    "probe",
    "reduced",
    "strips",
]

# Pillow warns about odd files; a server that anyone can send odd files to would drown in it.
warnings.filterwarnings("ignore", module="PIL")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
ACCEPTED = "JPEG, PNG, WebP, BMP or TIFF"

# A JPEG may be decoded at a half, quarter or eighth that is this much smaller than wanted.
_CLOSE_ENOUGH = 0.9

# Where cameras write the orientation of a JPEG. Behind that only decoding finds it, which costs the
# photo its place in a batch of photos of its shape, no more.
_EXIF_BYTES = 4096

_STRIP_ROWS = 128

_BILINEAR = ResizeOptions(ResizeAlg.convolution(FilterType.bilinear))

# What undoes each EXIF orientation (tag 0x0112, EXIF 2.32 section 4.6.4).
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """What is refused from the header alone, before any pixel is decoded."""

    max_pixels: int
    max_side_pixels: int
    max_frames: int


# For files of one's own.
NO_LIMITS = ImageLimits(2**62, 2**31, 2**31)


@dataclass(frozen=True)
class Photo:
    """Upright RGB, uint8 [h, w, 3], resized as asked, and the upright size of the file."""

    image: NDArray[np.uint8]
    width: int
    height: int


def decode(data: bytes, limits: ImageLimits, policy: InputPolicy | None = None) -> Photo:
    """Decode a photo file to upright 8-bit RGB.

    Grey, palette and CMYK become RGB, transparency is laid on white, 16 bits are scaled to 8, the
    EXIF orientation is undone, the first frame of an animation is used.

    Args:
        data: The file.
        limits: What to refuse.
        policy: Resize the photo as it says; ``None`` keeps its size.

    Raises:
        UnsupportedImage: if the content is of none of the accepted types.
        TooLarge: if the header announces more than the limits.
        CorruptImage: if the content cannot be decoded.
    """
    with _opened(data, limits) as image:
        return _upright(image, data, policy)


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


def reduced(rgb: NDArray[np.uint8], policy: InputPolicy) -> NDArray[np.uint8]:
    """Pixels, uint8 [H, W, 3], resized as the policy says: what :func:`decode` does to a photo."""
    height, width = policy.reduced(*rgb.shape[:2])
    return _resized(rgb, width, height)


def probe(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Width and height of a photo file once upright, as far as its header tells.

    Raises:
        UnsupportedImage, TooLarge, CorruptImage: as :func:`decode`, where the header tells.
    """
    if _kind(data) == "JPEG" and b"Exif" not in data[:_EXIF_BYTES]:
        with suppress(ValueError):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            _check_size(width, height, limits)
            return width, height
    with _opened(data, limits) as image:
        width, height = image.size
        # Looking for EXIF costs as much as opening the file; most have none.
        turned = "exif" in image.info and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


def _kind(data: bytes) -> str | None:
    """The type of a file, as far as its first bytes tell."""
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


@contextmanager
def _opened(data: bytes, limits: ImageLimits) -> Iterator[Image.Image]:
    kind = _kind(data)
    if kind is None or (kind == "WEBP" and data[8:12] != b"WEBP"):
        raise UnsupportedImage(f"Send a {ACCEPTED} file; the content is none of these.")
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            _check(image, limits)
            yield image
    except (TooLarge, UnsupportedImage):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"Send at most {limits.max_pixels} pixels.") from error
    except Exception as error:  # decoders raise anything on hostile bytes, and all of it means this
        raise CorruptImage(f"The {kind} file is cut off or broken; send it again.") from error


def _check(image: Image.Image, limits: ImageLimits) -> None:
    _check_size(*image.size, limits)
    # Counting the frames of a TIFF means walking the whole file, and only its first is read.
    frames = 1 if image.format == "TIFF" else getattr(image, "n_frames", 1)
    if frames > limits.max_frames:
        raise TooLarge(f"Send at most {limits.max_frames} frames; this has {frames}.")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise TooLarge(f"Send at most {limits.max_pixels} pixels; this is {width} x {height}.")
    if max(width, height) > limits.max_side_pixels:
        raise TooLarge(
            f"Send sides of at most {limits.max_side_pixels} pixels; this is {width} x {height}."
        )


def _upright(image: Image.Image, data: bytes, policy: InputPolicy | None) -> Photo:
    width, height = image.size
    rgb = _jpeg(image, data, policy) if image.format == "JPEG" else None
    if rgb is None:
        image.load()
        rgb = _pixels(image)
    orientation = _orientation(image)  # only now: a PNG may tell it behind its pixels
    turned = orientation >= 5
    if policy is not None:
        rgb = _resized(rgb, *_reduced(width, height, policy, turned=turned))
    if orientation in _UPRIGHT:
        rgb = np.asarray(Image.fromarray(rgb).transpose(_UPRIGHT[orientation]))
    return Photo(rgb, height, width) if turned else Photo(rgb, width, height)


def _jpeg(image: Image.Image, data: bytes, policy: InputPolicy | None) -> NDArray[np.uint8] | None:
    """Decoded at the smallest scale that will do; ``None`` for what is better left to Pillow.

    Pillow takes twice as long, but knows CMYK and forgives what strict decoding does not.
    """
    if image.mode not in ("L", "RGB"):
        return None
    width, height = image.size
    factor = 1
    if policy is not None:
        # The orientation is not known for certain yet, so whichever needs more.
        lying, standing = (_reduced(width, height, policy, turned=turn) for turn in (False, True))
        wanted = max(lying[0], standing[0]) / width, max(lying[1], standing[1]) / height
        factor = next((f for f in (8, 4, 2) if 1 / f >= _CLOSE_ENOUGH * max(wanted)), 1)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor)
        )
    except ValueError:
        return None
    return pixels


def _resized(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Bilinear over every pixel a new one covers: what Pillow gives, in a third of the time."""
    if rgb.shape[:2] == (height, width):
        return rgb
    source = ImageData(rgb.shape[1], rgb.shape[0], PixelType.U8x3, rgb.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    Resizer().resize(source, target, _BILINEAR)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def _reduced(width: int, height: int, policy: InputPolicy, *, turned: bool) -> tuple[int, int]:
    """Width and height to resize to while the photo still lies as it is stored."""
    if turned:
        return policy.reduced(width, height)
    height, width = policy.reduced(height, width)
    return width, height


def _orientation(image: Image.Image) -> int:
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a damaged EXIF block is no reason to refuse sound pixels
        return 1
    return orientation if orientation in _UPRIGHT else 1


def strips(height: int) -> Iterator[slice]:
    """The rows of an image of ``height``, a few at a time."""
    for top in range(0, height, _STRIP_ROWS):
        yield slice(top, min(top + _STRIP_ROWS, height))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
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
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
