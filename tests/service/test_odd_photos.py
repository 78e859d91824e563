"""Sound files with something odd: the pixels that a viewer shows, or the true reason."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ppool.service.codecs import kinds
from ppool.service.codecs.header import NO_LIMITS, ImageLimits, probe
from ppool.service.codecs.images import decode
from ppool.service.errors import CorruptImage, NoSuchPage, TooLarge, UnsupportedImage
from tests.service.harness import Client, encoded, photo

LIMITS = ImageLimits(max_pixels=1_000_000, max_side_pixels=5_000, max_frames=10)
PHOTOS = Path(__file__).parent / "photos"
# A file, and beside it the pixels that a viewer shows.
CASES = sorted(path.name.removesuffix(".want.png") for path in PHOTOS.glob("*.want.png"))


def decoded(data: bytes, page: int = 1) -> NDArray[np.uint8]:
    found = decode(data, NO_LIMITS, page=page)
    assert probe(data, NO_LIMITS, page) == (found.width, found.height)
    return found.image


@pytest.mark.parametrize("name", CASES)
def test_a_strangers_file_shows_what_a_viewer_shows(name: str) -> None:
    wanted = np.asarray(Image.open(PHOTOS / f"{name}.want.png").convert("RGB"))
    found = decoded((PHOTOS / name).read_bytes())
    # Nothing is lost except in JPEG, whose decoders differ by a few levels.
    np.testing.assert_allclose(found, wanted, atol=4 if name.endswith(".jpg") else 0)


@pytest.mark.parametrize("name", CASES)
def test_a_strangers_file_has_the_mask_of_what_a_viewer_shows(client: Client, name: str) -> None:
    answers = [client.segment((PHOTOS / file).read_bytes()) for file in (name, f"{name}.want.png")]
    one, other = (np.asarray(Image.open(io.BytesIO(answer.content))) for answer in answers)
    assert one.shape == other.shape
    assert np.count_nonzero(one != other) <= one.size / 1000


ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def png(
    samples: NDArray[Any], bits: int, *chunks: tuple[bytes, bytes], adam7: bool = False
) -> bytes:
    """A PNG of samples, [H, W] or [H, W, channels], of any depth, with chunks before its pixels."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    colour = 3 if any(name == b"PLTE" for name, _ in chunks) else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    raw = b""
    for top, left, down, across in ADAM7 if adam7 else ((0, 0, 1, 1),):
        part = samples[top::down, left::across].reshape(len(samples[top::down]), -1)
        if not part.size:
            continue
        lines = part[..., None].astype(np.int64) >> np.arange(bits)[::-1] & 1
        lines = np.packbits(lines.reshape(len(part), -1).astype(np.uint8), axis=1)
        raw += np.pad(lines, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(adam7))
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*entry) for entry in body)


def chunk(name: bytes, data: bytes, damage: int = 0) -> bytes:
    check = zlib.crc32(name + data) ^ damage
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


@pytest.mark.parametrize("adam7", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_one_grey_level_may_be_transparent(bits: int, adam7: bool) -> None:
    rng = np.random.default_rng(bits)
    samples = rng.integers(0, 1 << min(bits, 3), (19, 23)) << max(bits - 3, 0)
    samples[3, 4:9] += bits > 8  # a level that differs in its last bit only
    hidden = int(samples[0, 0])
    data = png(samples, bits, (b"tRNS", struct.pack(">H", hidden)), adam7=adam7)
    expected = np.rint(samples * 255 / ((1 << bits) - 1))
    expected[samples == hidden] = 255
    np.testing.assert_allclose(decoded(data), expected[..., None].repeat(3, 2), atol=1)
    if bits > 1:
        judge = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if judge.ndim == 3:
            np.testing.assert_array_equal(judge[..., 3] == 0, samples == hidden)


@pytest.mark.parametrize("adam7", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_one_colour_may_be_transparent(bits: int, adam7: bool) -> None:
    rng = np.random.default_rng(bits)
    samples = rng.integers(0, 2, (19, 23, 3)) * ((1 << bits) - 1) // 3
    samples[2, 3:7] += 1  # another colour, but not at 8 bits
    hidden = samples[0, 0].copy()
    data = png(samples, bits, (b"tRNS", struct.pack(">3H", *hidden)), adam7=adam7)
    expected = samples >> (bits - 8)
    expected[(samples == hidden).all(2)] = 255
    np.testing.assert_allclose(decoded(data), expected, atol=1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_colours_of_a_palette_may_be_half_transparent(bits: int) -> None:
    rng = np.random.default_rng(bits)
    colours = rng.integers(0, 256, (1 << bits, 3), np.uint8)
    alpha = rng.integers(0, 256, (1 << bits) - 1, np.uint8)  # the last colour is opaque
    samples = rng.integers(0, 1 << bits, (19, 23))
    data = png(samples, bits, (b"PLTE", colours.tobytes()), (b"tRNS", alpha.tobytes()))
    share = np.append(alpha, 255)[:, None] / 255
    expected = (colours * share + 255 * (1 - share))[samples]
    np.testing.assert_allclose(decoded(data), expected, atol=1.01)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("adam7", [False, True])
def test_sixteen_bits_of_every_kind_are_shown(channels: int, adam7: bool) -> None:
    samples = np.random.default_rng(channels).integers(0, 65536, (19, 23, channels))
    data = png(samples, 16, adam7=adam7)
    values = samples / 257
    if channels in (2, 4):
        values = values[..., :-1] * samples[..., -1:] / 65535 + 255 - values[..., -1:]
    expected = np.broadcast_to(values, (19, 23, 3))
    np.testing.assert_allclose(decoded(data), expected, atol=2.01)


@pytest.mark.parametrize("name", [b"iTXt", b"zTXt", b"tEXt", b"iCCP", b"gAMA", b"pHYs", b"abCd"])
@pytest.mark.parametrize("late", [False, True])
def test_chunks_that_say_nothing_of_pixels_may_be_large_or_broken(name: bytes, late: bool) -> None:
    whole = encoded(photo())
    bomb = {
        b"iTXt": b"k\0\1\0\0\0" + zlib.compress(bytes(5_000_000)),
        b"zTXt": b"k\0\0" + zlib.compress(bytes(5_000_000)),
        b"iCCP": b"k\0\0" + zlib.compress(bytes(5_000_000)),
    }.get(name, bytes(3_000_000))
    place = len(whole) - 12 if late else 33
    for extra in (chunk(name, bomb), chunk(name, b"x", damage=1), chunk(name, b"")):
        data = whole[:place] + extra + whole[place:]
        np.testing.assert_array_equal(decoded(data), photo())


def test_a_broken_transparency_is_left_out_as_by_libpng() -> None:
    whole = encoded(photo())
    data = whole[:33] + chunk(b"tRNS", bytes(6), damage=1) + whole[33:]
    np.testing.assert_array_equal(decoded(data), photo())


def bmp(bits: int, pixels: bytes, masks: tuple[int, ...] = (), size: int = 124) -> bytes:
    """8 x 6 pixels, from the bottom up."""
    header = struct.pack("<IiiHHIIiiII", size, 8, 6, 1, bits, 3 if masks else 0, len(pixels), 0, 0,
                         0, 0)  # fmt: skip
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(size, b"\0")
    offset = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + header + pixels


@pytest.mark.parametrize("size", [40, 108, 124])
@pytest.mark.parametrize("alpha", ["none", "all", "some"])
def test_the_fourth_byte_of_a_bmp_is_alpha_unless_it_is_unused(size: int, alpha: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 8, 4), np.uint8)
    pixels[..., 3] = {"none": 0, "all": 255, "some": pixels[..., 3]}[alpha]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if size > 40 else ()
    data = bmp(32, pixels[::-1].tobytes(), masks, size)
    expected = pixels[..., 2::-1].astype(float)
    if alpha == "some" and masks:
        share = pixels[..., 3:] / 255
        expected = expected * share + 255 * (1 - share)
    np.testing.assert_allclose(decoded(data), expected, atol=1.01)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (imagecodecs.jpegls_encode(photo(64, 48)), "JPEG-LS"),
        (imagecodecs.ljpeg_encode(photo(64, 48)[..., 0].astype(np.uint16)), "lossless|JPEG"),
        (
            imagecodecs.jpeg8_encode(photo(64, 48).astype(np.uint16) * 16, bitspersample=12),
            "12 bits",
        ),
    ],
    ids=["JPEG-LS", "lossless", "12 bits"],
)
def test_jpegs_of_other_processes_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(UnsupportedImage, match=reason):
        decode(bytes(data), LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_photo_is_turned_by_exif_and_not_by_xmp(kind: str, turned: bool) -> None:
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    if kind == "PNG":
        other = {"pnginfo": PngInfo()}
        other["pnginfo"].add_itxt("XML:com.adobe.xmp", 'tiff:Orientation="8"')
    else:
        other = {"xmp": b'tiff:Orientation="8"'}
    data = encoded(photo(66, 49), kind, exif=exif, **other)
    assert decoded(data).shape == ((66, 49, 3) if turned else (49, 66, 3))


@pytest.mark.parametrize("masks", [(0xFF, 0xFF00, 0xFF0000), (0x3FF00000, 0xFFC00, 0x3FF)])
def test_a_bmp_of_another_layout_is_not_called_damaged(masks: tuple[int, int, int]) -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0) + struct.pack(
        "<3I", *masks
    )
    with pytest.raises(UnsupportedImage, match="Save the image as PNG"):
        decode(b"BM" + struct.pack("<IHHI", 82, 0, 0, 66) + head + bytes(16), LIMITS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_every_common_jpeg_is_as_opencv_sees_it(
    mode: str, progressive: bool, subsampling: int
) -> None:
    image = Image.fromarray(photo(66, 49)).convert(mode)
    data = encoded(image, "JPEG", progressive=progressive, subsampling=subsampling, quality=92)
    judge = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    if mode != "CMYK":  # OpenCV knows no Adobe ink that is stored inverted
        np.testing.assert_allclose(decoded(data), judge, atol=3)
    assert np.abs(decoded(data).astype(int) - image.convert("RGB")).mean() < 8


def frames(count: int, size: tuple[int, int] = (30, 20)) -> list[Image.Image]:
    """Pictures of one colour each: red, green, blue and so on."""
    colours = ("#ff0000", "#00ff00", "#0000ff", "#ffff00", "#00ffff", "#ff00ff")
    return [Image.new("RGB", size, colours[index % 6]) for index in range(count)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_frame_can_be_asked_for(kind: str) -> None:
    first, *others = frames(4)
    data = encoded(first, kind, save_all=True, append_images=others)
    for page, frame in enumerate((first, *others), 1):
        found = decode(data, LIMITS, page=page)
        assert found.pages == 4
        assert np.abs(found.image.astype(int) - frame).max() < 10
    with pytest.raises(NoSuchPage, match="Ask for a page from 1 to 4"):
        decode(data, LIMITS, page=5)


def test_a_stereo_photo_is_its_first_picture_and_tells_of_the_other() -> None:
    first, second = Image.fromarray(photo(64, 48)), Image.fromarray(photo(64, 48, seed=1))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    found = decode(data, LIMITS)
    assert found.pages == 2
    np.testing.assert_array_equal(found.image, np.asarray(Image.open(io.BytesIO(data))))
    other = decode(data, LIMITS, page=2).image
    assert np.abs(other.astype(int) - second).mean() < 8


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_too_many_frames_are_refused(kind: str) -> None:
    first, *others = frames(12, (8, 8))
    data = encoded(first, kind, save_all=True, append_images=others)
    with pytest.raises(TooLarge, match="at most 10 frames"):
        decode(data, LIMITS)


def test_the_frames_before_a_page_count() -> None:
    first, *others = frames(5, (400, 300))
    data = encoded(first, "GIF", save_all=True, append_images=others)
    limits = ImageLimits(max_pixels=120_000, max_side_pixels=500, max_frames=10)
    assert decode(data, limits, page=4).pages == 5
    with pytest.raises(TooLarge, match="before page 5 lie too many pixels"):
        decode(data, limits, page=5)


def test_a_gif_of_a_million_frames_is_refused_at_once() -> None:
    header = encoded(Image.new("L", (1, 1)), "GIF")[:13]
    frame = b"," + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\2\2\x4c\1\0"
    data = header[:10] + b"\0" + header[11:13] + frame * 1_000_000 + b";"
    with pytest.raises(TooLarge, match="at most 10 frames"):
        decode(data, LIMITS)


# In HEIC a property of the file turns it, not its EXIF, and pillow-heif writes none.
@pytest.mark.parametrize(("kind", "turn"), [("AVIF", 1), ("AVIF", 3), ("AVIF", 6), ("HEIF", 1)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_phones_send_is_decoded(kind: str, mode: str, turn: int) -> None:
    if kind == "HEIF":
        heif = pytest.importorskip("pillow_heif")
        heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.fromarray(photo(96, 64))
    if mode == "RGBA":
        image.putalpha(128)
    image = image.convert(mode)
    data = encoded(image, kind, quality=95, exif=exif)
    expected = np.asarray(image.convert("RGB")).astype(float)
    expected = expected * (128 / 255) + 127 if mode == "RGBA" else expected
    expected = np.rot90(expected, {1: 0, 3: 2, 6: -1}[turn])
    found = decoded(data)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 6
    assert kinds.kind_of(data) is (kinds.AVIF if kind == "AVIF" else kinds.HEIC)


def test_without_the_heif_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    data = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(64)
    with pytest.raises(UnsupportedImage, match=r"install ppool\[heif\]"):
        decode(data, LIMITS)


WHOLE: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(photo(), "JPEG"),
    "PNG": lambda: encoded(photo()),
    "WEBP": lambda: encoded(photo(), "WEBP"),
    "BMP": lambda: encoded(photo(), "BMP"),
    "GIF": lambda: encoded(Image.fromarray(photo()).quantize(64), "GIF"),
    "AVIF": lambda: encoded(photo(), "AVIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_sending_again_is_asked_for_where_a_file_is_cut_off(kind: str, share: float) -> None:
    data = WHOLE[kind]()
    with pytest.raises(CorruptImage, match="cut off; send it again"):
        decode(data[: int(len(data) * share)], LIMITS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lost_pixels_is_not_filled_with_grey(mode: str, progressive: bool) -> None:
    image = Image.fromarray(photo(66, 49)).convert(mode)
    data = encoded(image, "JPEG", progressive=progressive)
    with pytest.raises(CorruptImage, match=r"damaged; .* save it anew"):
        decode(data[: len(data) * 3 // 4] + b"\xff\xd9", LIMITS)


@pytest.mark.parametrize(("kind", "place"), [("PNG", b"IDAT"), ("WEBP", b"VP8"), ("AVIF", b"mdat")])
def test_sending_again_is_not_asked_for_where_it_would_not_help(kind: str, place: bytes) -> None:
    data = bytearray(WHOLE[kind]())
    start = data.index(place) + 8
    data[start : start + 60] = bytes(60)
    with pytest.raises(CorruptImage, match=r"damaged; .* save it anew"):
        decode(bytes(data), LIMITS)
