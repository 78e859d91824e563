"""What the header of a photo file tells: its kind, size and pages; and what is refused for it."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from PIL import (  # one by one; on demand Pillow would load all seventy
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ppool.service.codecs import kinds, tiff
from ppool.service.codecs.kinds import ACCEPTED, Kind, kind_of
from ppool.service.errors import (
    CodecError,
    CorruptImage,
    NoSuchPage,
    TooLarge,
    UnsupportedImage,
)

__all__ = ["NO_LIMITS", "TURNS", "ImageLimits", "Opened", "opened", "probe"]

# Pillow warns about odd files; a server that anyone can send odd files to would drown in it.
warnings.filterwarnings("ignore", module="PIL")

# Where cameras write the orientation of a JPEG. Behind that only decoding finds it, which costs the
# photo its place in a batch of photos of its shape, no more.
_EXIF_BYTES = 4096

# What undoes each EXIF orientation (tag 0x0112, EXIF 2.32 section 4.6.4).
_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A frame of an animation is decoded after all those before it; so many times the pixels of the
# largest photo, at most.
_SEEK_FACTOR = 4

# PNG chunks that say something of the pixels; any other may be as large or as broken as it likes.
_PIXEL_CHUNKS = frozenset({b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})


@dataclass(frozen=True)
class ImageLimits:
    """What is refused from the header alone, before any pixel is decoded."""

    max_pixels: int
    max_side_pixels: int
    max_frames: int

    def check(self, width: int, height: int) -> None:
        """Raise ``TooLarge``, or ``CorruptImage`` where there are no pixels at all."""
        if min(width, height) < 1:
            raise CorruptImage(
                f"The file claims to be {width} x {height} pixels; open it in another program and "
                "save it anew."
            )
        if width * height > self.max_pixels:
            raise TooLarge(f"Send at most {self.max_pixels} pixels; this is {width} x {height}.")
        if max(width, height) > self.max_side_pixels:
            raise TooLarge(
                f"Send sides of at most {self.max_side_pixels} pixels; this is {width} x {height}."
            )


# For files of one's own.
NO_LIMITS = ImageLimits(2**62, 2**31, 2**31)


@dataclass(frozen=True)
class Opened:
    """A photo file whose header was read.

    Attributes:
        kind: Of the file.
        data: The file, perhaps without what says nothing of its pixels.
        image: Its page that was asked for; ``None`` if :mod:`.tiff_pixels` reads it.
        width: Of that page, in pixels, before what :meth:`orientation` says.
        height: Likewise.
        pages: How many it has.
        tags: Of the page of a TIFF.
    """

    kind: Kind
    data: bytes
    image: Image.Image | None
    width: int
    height: int
    pages: int
    tags: tiff.Tags

    def orientation(self) -> int:
        """The EXIF orientation, from 1 to 8; that of a PNG may stand behind its pixels."""
        found = 1
        if self.image is None:
            found = self.tags.get(tiff.Tag.ORIENTATION, (1,))[0]
        elif self.kind is not kinds.TIFF:  # which Pillow turns itself
            # A damaged EXIF block is no reason to refuse sound pixels.
            with suppress(Exception):
                # Pillow's own would ask XMP next, which is often left behind in a turned photo.
                exif = Image.Exif()
                exif.load(self.image.info["exif"])
                found = int(exif[_ORIENTATION])
        return found if found in TURNS else 1


@contextmanager
def opened(data: bytes, limits: ImageLimits, page: int = 1) -> Iterator[Opened]:
    """Open a photo file at a page; whatever goes wrong inside becomes a ``CodecError``."""
    kind = kind_of(data)
    if kind is None:
        raise UnsupportedImage(f"Send a {ACCEPTED} file; the content is none of these.")
    try:
        if kind is kinds.TIFF:
            yield from _opened_tiff(data, limits, page)
        else:
            data = _pixel_chunks(data) if kind is kinds.PNG else data
            # Counted before Pillow sees it, which looks at every frame of a GIF.
            pages = kind.pages(data, limits.max_frames + 1)
            with _open(kind, data) as image:
                limits.check(*image.size)
                # Of the others the decoder knows.
                pages = pages if kind in (kinds.PNG, kinds.GIF) else getattr(image, "n_frames", 1)
                if pages > limits.max_frames:
                    raise TooLarge(f"Send at most {limits.max_frames} frames; this has more.")
                _seek(image, pages, page, limits)
                yield Opened(kind, data, image, *image.size, pages, {})
    except CodecError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise _complaint(kind, data, error) from error


def _opened_tiff(data: bytes, limits: ImageLimits, page: int) -> Iterator[Opened]:
    pages = tiff.count_pages(data)
    _check_page(page, pages)
    tags = tiff.page_tags(data, page)
    width, height = tags[tiff.Tag.WIDTH][0], tags[tiff.Tag.HEIGHT][0]
    limits.check(width, height)
    if reason := tiff.refusal(data, tags):
        raise UnsupportedImage(reason)
    if tiff.needs_care(data, tags):
        yield Opened(kinds.TIFF, data, None, width, height, pages, tags)
        return
    if tiff.lacks_jpeg(data, tags):
        raise ValueError("a part of the page has no end")
    # Pillow would set up every page before it, and may not know how.
    file = io.BytesIO(tiff.beginning_with(data, page) if page > 1 else data)
    with TiffImagePlugin.TiffImageFile(file) as image:
        yield Opened(kinds.TIFF, data, image, *image.size, pages, tags)


def probe(data: bytes, limits: ImageLimits, page: int = 1) -> tuple[int, int]:
    """Width and height of a photo file once upright, as far as its header tells.

    Raises:
        CodecError: as decoding would, where the header tells.
    """
    kind = kind_of(data)
    if kind is kinds.JPEG and page == 1 and b"Exif" not in data[:_EXIF_BYTES]:
        frame = kinds.jpeg_frame(data)
        if frame is not None and not frame.oddity:
            limits.check(frame.width, frame.height)
            return frame.width, frame.height
    if kind in (kinds.AVIF, kinds.HEIC) and (size := kinds.box_size(data)):
        # Their decoders are large, and in a worker a crash of theirs is no great harm.
        limits.check(*size)
        return size
    with opened(data, limits, page) as file:
        # Looking for EXIF costs as much as opening the file; most have none.
        looks = file.image is None or "exif" in file.image.info
        turned = looks and file.orientation() >= 5
        return (file.height, file.width) if turned else (file.width, file.height)


def _open(kind: Kind, data: bytes) -> Image.Image:
    """The image, by its own class: ``Image.open`` tells of no failure what it was."""
    file = io.BytesIO(data)
    if kind is kinds.JPEG:
        return JpegImagePlugin.jpeg_factory(file)
    if kind is kinds.HEIC:
        try:
            from pillow_heif import HeifImageFile, options
        except ImportError as error:
            raise UnsupportedImage(
                "Send HEIC photos as JPEG, or install ppool[heif] where the service runs."
            ) from error
        options.DECODE_THREADS = 1  # there is a worker for each core
        image: Image.Image = HeifImageFile(file)  # type: ignore[no-untyped-call]
        return image
    if kind is kinds.AVIF:
        from PIL import AvifImagePlugin

        if not AvifImagePlugin.SUPPORTED:
            raise UnsupportedImage("Send AVIF photos as JPEG; Pillow was built without AVIF here.")
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        return AvifImagePlugin.AvifImageFile(file)
    classes: dict[Kind, Callable[[io.BytesIO], Image.Image]] = {
        kinds.PNG: PngImagePlugin.PngImageFile,
        kinds.WEBP: WebPImagePlugin.WebPImageFile,
        kinds.GIF: GifImagePlugin.GifImageFile,
        kinds.BMP: BmpImagePlugin.BmpImageFile,
    }
    return classes[kind](file)


def _seek(image: Image.Image, pages: int, page: int, limits: ImageLimits) -> None:
    _check_page(page, pages)
    # Every frame before it is decoded as well.
    if page > 1 and image.width * image.height * page > _SEEK_FACTOR * limits.max_pixels:
        raise TooLarge(f"Ask for an earlier page; before page {page} lie too many pixels.")
    if page > 1:
        image.seek(page - 1)


def _check_page(page: int, pages: int) -> None:
    if page > pages:
        raise NoSuchPage(f"Ask for a page from 1 to {pages}; page {page} is not in the file.")


def _pixel_chunks(data: bytes) -> bytes:
    """A PNG without what says nothing of its pixels: texts of any size, optional chunks in ruins.

    As libpng does, of optional chunks those with a wrong check sum are left out.
    """
    kept, place = [], 0
    for name, start, end in kinds.png_chunks(data):
        optional = name[0] & 0x20
        sound = name in _PIXEL_CHUNKS and (
            zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        )
        if optional and not sound:
            kept.append(memoryview(data)[place:start])
            place = end
    return b"".join((*kept, memoryview(data)[place:])) if kept else data


def _complaint(kind: Kind, data: bytes, error: Exception) -> CodecError:
    """Why decoding failed, as far as the file tells; sending it again helps only if it is cut."""
    frame = kinds.jpeg_frame(data) if kind is kinds.JPEG else None
    if frame is not None and frame.oddity:
        return UnsupportedImage(
            f"Save the JPEG as a baseline or progressive one; this is {frame.oddity}."
        )
    if kind is kinds.BMP and str(error).startswith("Unsupported BMP"):
        return UnsupportedImage("Save the image as PNG; such a BMP file is not read here.")
    with suppress(Exception):  # what does not even have an end cannot be shown to be whole
        if not kind.is_cut_off(data):
            return CorruptImage(
                f"The {kind.name} file is damaged; open it in another program and save it anew."
            )
    return CorruptImage(f"The {kind.name} file is cut off; send it again, whole.")
