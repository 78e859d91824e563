"""Photo files of every kind, to upright RGB."""

import io
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from ppool.metadata import InputPolicy, Resample
from ppool.service.codecs.header import ImageLimits
from ppool.service.codecs.images import decode
from ppool.service.codecs.resizing import resized
from ppool.service.errors import CorruptImage, TooLarge, UnsupportedImage
from tests.service.harness import encoded, photo

LIMITS = ImageLimits(max_pixels=1_000_000, max_side_pixels=5_000, max_frames=10)
SMALL = InputPolicy(max_side=100, multiple=16)


def pixels(data: bytes, **options: Any) -> Any:
    return decode(data, LIMITS, **options).image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_rgb_comes_out_as_it_went_in(kind: str) -> None:
    np.testing.assert_array_equal(pixels(encoded(photo(), kind)), photo())


def test_a_photo_of_many_strips_is_put_together_again() -> None:
    tall = photo(30, 300)
    np.testing.assert_array_equal(pixels(encoded(tall)), tall)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_rgb_comes_out_nearly_as_it_went_in(kind: str) -> None:
    decoded = pixels(encoded(photo(), kind, quality=95))
    assert np.abs(decoded.astype(int) - photo()).mean() < 15


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_grey_becomes_equal_channels(kind: str) -> None:
    grey = photo()[:, :, 0]
    decoded = pixels(encoded(grey, kind))
    assert decoded.shape == (*grey.shape, 3)
    np.testing.assert_array_equal(decoded[:, :, 0], decoded[:, :, 2])
    assert np.abs(decoded[:, :, 0].astype(int) - grey).mean() < 3


def test_one_bit_becomes_black_and_white() -> None:
    bits = photo()[:, :, 0] > 128
    np.testing.assert_array_equal(pixels(encoded(bits))[:, :, 1], bits * 255)


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(photo()).quantize(16)
    np.testing.assert_array_equal(pixels(encoded(image)), np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.array([[0, 257, 32768, 65535], [128, 129, 300, 65407]], np.uint16)
    expected = np.rint(deep / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(pixels(encoded(deep, kind))[:, :, 0], expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new(mode, (4, 2), (0,) * len(mode))
    np.testing.assert_array_equal(pixels(encoded(image)), 255)


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 1)
    decoded = pixels(encoded(image, transparency=0))
    assert decoded[0, 0].tolist() == [40, 50, 60]
    assert decoded[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = pixels(encoded(image, kind))[8, 8]
    assert red[0] > 200
    assert max(red[1:]) < 60


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright[:, ::-1].transpose(1, 0, 2),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    # Stored as a camera held that way has it: what undoes orientation 6 is a quarter turn right.
    if orientation in (6, 8):
        stored = np.rot90(upright, 1 if orientation == 6 else -1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(stored), kind, exif=exif)
    decoded = decode(data, LIMITS)
    assert (decoded.width, decoded.height) == (48, 32)
    assert np.abs(np.asarray(decoded.image).astype(int) - upright).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored() -> None:
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40)
    assert decode(data, LIMITS).width == 60


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("#ff0000", "#00ff00")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red = pixels(data)[5, 10]
    assert red[0] > 240
    assert red[1] < 15


def test_too_many_frames_are_refused() -> None:
    frames = [Image.new("RGB", (8, 8), (index * 9, 0, 0)) for index in range(12)]
    with pytest.raises(TooLarge, match="at most 10 frames"):
        decode(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]), LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photo_is_reduced_and_its_own_size_kept(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(photo(900, 301), kind, exif=exif), LIMITS, policy=SMALL)
    sizes = [(decoded.width, decoded.height), decoded.image.shape[1::-1]]
    assert sizes == ([(900, 301), (100, 33)] if orientation == 1 else [(301, 900), (33, 100)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_is_stretched_to_the_one_size_a_network_takes(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(900, 300), kind, exif=exif)
    decoded = decode(data, LIMITS, InputPolicy.fixed(height=20, width=48))
    assert decoded.image.shape == (20, 48, 3)
    assert (decoded.width, decoded.height) == ((900, 300) if orientation == 1 else (300, 900))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_comes_out_exactly_as_from_pillow(mode: str, subsampling: str) -> None:
    data = encoded(Image.fromarray(photo(77, 45)).convert(mode), "JPEG", subsampling=subsampling)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))


@pytest.mark.parametrize("size", [(97, 61), (199, 151), (400, 300), (801, 640), (1600, 500)])
@pytest.mark.parametrize("policy", [SMALL, InputPolicy.fixed(64, 64)], ids=["side", "fixed"])
def test_a_network_is_fed_the_same_from_jpeg_and_png(
    size: tuple[int, int], policy: InputPolicy
) -> None:
    jpeg = encoded(photo(*size), "JPEG", quality=90)
    png = encoded(Image.open(io.BytesIO(jpeg)))
    np.testing.assert_array_equal(pixels(jpeg, policy=policy), pixels(png, policy=policy))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("resample", get_args(Resample))
def test_pixels_are_resized_as_pillow_does_with_native_code_and_without(
    resample: Resample, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr("ppool._pixels._library.entry", lambda _: None)
    noise = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    judge = Image.fromarray(noise).resize((64, 170), Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(resized(noise, 170, 64, resample), judge)


def test_a_jpeg_with_bytes_between_its_segments_is_forgiven() -> None:
    data = encoded(photo(), "JPEG")
    end_of_header = data.index(b"\xff\xdb")
    odd = data[:end_of_header] + b"\0\0\0" + data[end_of_header:]
    np.testing.assert_array_equal(pixels(odd), pixels(data))


def test_reducing_averages_so_that_fine_lines_leave_a_trace() -> None:
    lines = np.zeros((400, 400, 3), np.uint8)
    lines[:, ::4] = 255
    assert pixels(encoded(lines), policy=SMALL)[10:-10, 10:-10].mean() == pytest.approx(64, abs=3)


def test_a_strip_one_pixel_high_keeps_a_row() -> None:
    assert decode(encoded(photo(1000, 1)), LIMITS, policy=SMALL).image.shape == (1, 100, 3)


def test_what_the_limits_forbid_is_refused_before_decoding() -> None:
    with pytest.raises(TooLarge, match="at most 1000000 pixels; this is 1100 x 1000"):
        decode(encoded(Image.new("1", (1100, 1000)))[:60], LIMITS)
    with pytest.raises(TooLarge, match="sides of at most 5000 pixels"):
        decode(encoded(Image.new("1", (5001, 1))), LIMITS)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "JPEG2000"])
def test_other_formats_are_not_accepted(kind: str) -> None:
    with pytest.raises(UnsupportedImage, match="JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF"):
        decode(encoded(photo(), kind), LIMITS)


def test_a_name_is_no_promise() -> None:
    with pytest.raises(CorruptImage, match="PNG file is cut off"):
        decode(b"\x89PNG\r\n\x1a\n" + b"not really" * 9, LIMITS)
