"""TIFF files of every layout: the pixels that were written, or the true reason.

The expected pixels are those that went into the file; tifffile reads it too, so that writer and
decoder cannot both be wrong.
"""

import io
import itertools
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import PIL
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from skimage.color import lab2rgb

from ppool.service.codecs.header import ImageLimits, probe
from ppool.service.codecs.images import decode
from ppool.service.errors import CorruptImage, NoSuchPage, UnsupportedImage
from tests.service.harness import encoded, photo
from tests.service.tiffs import Layout, tiff_file, tiff_page

LIMITS = ImageLimits(max_pixels=1_000_000, max_side_pixels=5_000, max_frames=10)
HEIGHT, WIDTH = 26, 37
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, MASK, CMYK = range(6)
ASSOCIATED, UNASSOCIATED = 1, 2
CHANNELS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, CMYK: 4, PALETTE: 1}


def ramp(bits: int, channels: int) -> NDArray[np.int64]:
    """Every part of the range, another way in each channel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [x / (WIDTH - 1), y / (HEIGHT - 1), (x + y) / (HEIGHT + WIDTH - 2), x * y % 7 / 9]
    return np.rint(np.stack(planes, -1)[..., :channels] * ((1 << bits) - 1)).astype(np.int64)


def shown(samples: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    """What a viewer shows, [H, W, 3], from 0 to 255."""
    values = samples / ((1 << layout.bits) - 1)
    if layout.photometric == MIN_IS_WHITE:
        values = 1 - values
    if layout.photometric == CMYK:
        values = (1 - values[..., :3]) * (1 - values[..., 3:4])
    return np.broadcast_to(values[..., :3] * 255, (HEIGHT, WIDTH, 3))


def decoded(data: bytes, page: int = 1) -> NDArray[np.uint8]:
    found = decode(data, LIMITS, page=page)
    assert probe(data, LIMITS, page) == (found.width, found.height)
    return found.image


def check(samples: NDArray[Any], layout: Layout) -> None:
    data = tiff_page(samples, layout)
    odd_predictor = layout.predictor == 2 and layout.bits < 8
    # What tifffile cannot read: 10 to 14 bits of a big-endian file are none of its numbers.
    if (
        layout.order == "<"
        and not odd_predictor
        and not (layout.bits == 1 and samples.shape[2] > 1)
    ):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            read = file.pages[0].asarray()
        read = np.moveaxis(read, 0, -1) if layout.separate and samples.shape[2] > 1 else read
        np.testing.assert_array_equal(read.reshape(samples.shape), samples)
    np.testing.assert_allclose(decoded(data), shown(samples, layout), atol=1.3)


@pytest.mark.parametrize("photometric", [MIN_IS_WHITE, MIN_IS_BLACK, RGB, CMYK])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_every_depth_and_layout_is_what_was_written(bits: int, photometric: int) -> None:
    samples = ramp(bits, CHANNELS[photometric])
    # Each order with each compression, planes apart and together, strips and tiles in turn.
    for index, (order, compression) in enumerate(itertools.product("<>", (1, 5, 8, 32773))):
        tile = (16, 16) if index % 3 == 1 else None
        check(samples, Layout(bits, photometric, order, index % 2 == 1, compression, tile=tile))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("separate", [False, True])
def test_differences_are_added_up(bits: int, order: str, separate: bool) -> None:
    for photometric in (MIN_IS_WHITE, RGB):
        layout = Layout(bits, photometric, order, separate, compression=5, predictor=2)
        check(ramp(bits, CHANNELS[photometric]), layout)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_big_tiff_is_read(bits: int) -> None:
    check(ramp(bits, 3), Layout(bits, RGB, ">", big=True))


@pytest.mark.parametrize("bits", [1, 4, 8, 12])
def test_bits_may_lie_the_other_way(bits: int) -> None:
    layout = Layout(bits, MIN_IS_BLACK, lowest_bit_first=True)
    samples = ramp(bits, 1)
    np.testing.assert_allclose(
        decoded(tiff_page(samples, layout)), shown(samples, layout), atol=1.01
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_a_palette_becomes_its_colours(bits: int) -> None:
    rng = np.random.default_rng(bits)
    colours = rng.integers(0, 65536, (3, 1 << bits))
    samples = ramp(bits, 1)
    layout = Layout(bits, PALETTE, tags={320: tuple(colours.ravel().tolist())})
    expected = colours.T[samples[..., 0]] / 257
    np.testing.assert_allclose(decoded(tiff_page(samples, layout)), expected, atol=1.01)


@pytest.mark.parametrize("kind", [0, ASSOCIATED, UNASSOCIATED])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("photometric", [MIN_IS_BLACK, MIN_IS_WHITE, RGB])
def test_transparency_is_laid_on_white(
    photometric: int, bits: int, separate: bool, kind: int
) -> None:
    count = CHANNELS[photometric]
    samples = ramp(bits, 4)[..., [*range(count), 3]]
    alpha = samples[..., -1:] / ((1 << bits) - 1)
    if kind == ASSOCIATED:
        dark = 1 - alpha if photometric == MIN_IS_WHITE else 0
        samples[..., :-1] = samples[..., :-1] * alpha + dark * ((1 << bits) - 1)
    layout = Layout(bits, photometric, separate=separate, tags={338: (kind,)})
    colour = shown(samples[..., :count], layout)
    white = (1 - alpha) * 255
    expected = {0: colour, ASSOCIATED: colour + white, UNASSOCIATED: colour * alpha + white}[kind]
    np.testing.assert_allclose(decoded(tiff_page(samples, layout)), expected, atol=2.01)


@pytest.mark.parametrize(
    ("samples", "layout", "reason"),
    [
        (ramp(16, 1), Layout(16, tags={339: (2,)}), "signed"),
        (ramp(8, 3), Layout(8, RGB, tags={339: (2, 2, 2)}), "signed"),
        (ramp(16, 1), Layout(16, tags={339: (3,)}), "floating-point"),
        (ramp(32, 1), Layout(32, tags={339: (3,)}), "floating-point"),
        (ramp(32, 1), Layout(32), "this has 32"),
        (ramp(32, 3), Layout(32, RGB, ">"), "this has 32"),
        (ramp(16, 3), Layout(16, RGB, tags={258: (5, 6, 5)}), "differ"),
        (ramp(1, 1), Layout(1, MASK), "mask of another"),
        (ramp(8, 4), Layout(8, CMYK, tags={332: (2,)}), "other inks"),
        (ramp(16, 3), Layout(16, 8), "other colours"),
        (ramp(8, 3), Layout(8, 9), "other colours"),
        (ramp(8, 1).repeat(9, 2), Layout(8), "9 channels"),
        (ramp(16, 1), Layout(16, 32803), "raw file"),
        (ramp(8, 3), Layout(8, RGB, tags={254: (1,), 330: (8,)}), "raw file"),
        (ramp(12, 1), Layout(12, predictor=2), "without a predictor"),
        (ramp(16, 1), Layout(16, predictor=3), "without a predictor"),
    ],
)
def test_what_is_not_decoded_is_refused_for_its_true_reason(
    samples: NDArray[Any], layout: Layout, reason: str
) -> None:
    with pytest.raises(UnsupportedImage, match=reason):
        decode(tiff_page(samples, replace(layout, predictor=1, tags=layout.tags | {
            317: (layout.predictor,)})), LIMITS)  # fmt: skip


@pytest.mark.parametrize("compression", [7, 34712, 50001, 50002, 4711])
def test_other_compressions_are_named(compression: int) -> None:
    layout = Layout(16, tags={259: (compression,)})
    with pytest.raises(UnsupportedImage, match=f"compression {compression}"):
        decode(tiff_page(ramp(16, 1), layout), LIMITS)


def test_lab_becomes_rgb() -> None:
    lab = np.stack([ramp(8, 1)[..., 0], *(ramp(8, 3)[..., 1:].transpose(2, 0, 1) // 4 + 96)], -1)
    stored = lab.astype(np.uint8)
    stored[..., 1:] ^= 128  # a and b are signed in the file
    values = np.stack([lab[..., 0] / 2.55, lab[..., 1] - 128, lab[..., 2] - 128], -1)
    expected = lab2rgb(values, "D65") * 255
    found = decoded(tiff_page(stored, Layout(8, 8)))
    assert np.abs(found - expected).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "L"])
def test_jpeg_inside_a_tiff_is_decoded(mode: str) -> None:
    image = Image.fromarray(photo(64, 48)).convert(mode)
    data = encoded(image, "TIFF", compression="jpeg", quality=95)
    assert np.abs(decoded(data).astype(int) - image.convert("RGB")).mean() < 3


def test_jpeg_without_an_end_inside_a_tiff_is_not_filled_with_grey() -> None:
    data = bytearray(encoded(photo(64, 48), "TIFF", compression="jpeg"))
    end = data.index(b"\xff\xd9")  # the tables behind the pixels have one, too
    data[end - 100 : end + 2] = bytes(102)
    with pytest.raises(CorruptImage, match="damaged"):
        decode(bytes(data), LIMITS)


def chroma_halved(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """YCbCr in data units of 2 x 2 pixels (TIFF 6.0, section 21), and what they stand for."""
    stored = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    squares = stored.reshape(24, 2, 32, 2, 3).swapaxes(1, 2)
    chroma = squares[..., 1:].mean((2, 3)).round().astype(np.uint8)
    units = np.concatenate([squares[..., 0].reshape(24, 32, 4), chroma], 2)
    large = np.concatenate([stored[..., :1], chroma.repeat(2, 0).repeat(2, 1)], 2)
    return units, np.asarray(Image.fromarray(large, "YCbCr").convert("RGB"))


OLD_PILLOW = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="refuses it")


@pytest.mark.parametrize("compression", [pytest.param(1, marks=OLD_PILLOW), 5, 8])
def test_luma_and_chroma_become_rgb(compression: int) -> None:
    whole = np.asarray(Image.fromarray(photo(64, 48)).convert("YCbCr"))
    layout = Layout(8, 6, compression=compression, tags={530: (1, 1)})
    found = decoded(tiff_page(whole, layout)).astype(int)
    assert np.abs(found - photo(64, 48)).max() < 5
    units, expected = chroma_halved(photo(64, 48))
    tags = {256: (64,), 257: (48,), 258: (8, 8, 8), 277: (3,), 278: (16,), 530: (2, 2)}
    halved = tiff_page(units, Layout(8, 6, compression=compression, rows=8, tags=tags))
    if compression == 1:
        with pytest.raises(UnsupportedImage, match="as RGB"):
            decode(halved, LIMITS)
    else:
        assert np.abs(decoded(halved).astype(int) - expected).max() < 5


NO_FAXES = pytest.mark.skipif(3 not in tifffile.TIFF.DECOMPRESSORS, reason="judge needs NumPy 2")


@NO_FAXES
@pytest.mark.parametrize("kind", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("invert", [False, True])
def test_faxes_are_decoded(kind: str, invert: bool) -> None:
    bits = Image.fromarray(photo(64, 48)[..., 0] > 128)
    options: dict[str, Any] = {"tiffinfo": {262: 0 if invert else 1}}
    file = io.BytesIO()
    bits.save(file, "TIFF", compression=kind, **options)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as judge:
        page = judge.pages[0]
        expected = page.asarray() ^ (int(page.photometric) == MIN_IS_WHITE)
    np.testing.assert_array_equal(decoded(file.getvalue())[..., 1], expected * 255)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_every_page_can_be_asked_for(order: str, big: bool) -> None:
    kinds = [(16, MIN_IS_WHITE), (8, RGB), (12, MIN_IS_BLACK)]
    pages = [
        (ramp(bits, CHANNELS[kind])[: 20 + 2 * bits % 7], Layout(bits, kind, order, big=big))
        for bits, kind in kinds
    ]
    data = tiff_file(pages)
    for number, (samples, layout) in enumerate(pages, 1):
        found = decode(data, LIMITS, page=number)
        assert found.pages == len(pages)
        expected = shown(np.resize(samples, (HEIGHT, WIDTH, samples.shape[2])), layout)
        np.testing.assert_allclose(found.image, expected[: len(samples)], atol=1.01)
    with pytest.raises(NoSuchPage, match="from 1 to 3; page 4 is not"):
        decode(data, LIMITS, page=4)


def test_a_chain_of_pages_that_turns_back_ends() -> None:
    data = bytearray(tiff_file([(ramp(8, 1), Layout())] * 2))
    data[-4:] = data[4:8]  # the last page is followed by the first
    assert decode(bytes(data), LIMITS).pages == 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_deep_photos_are_turned_upright_too(bits: int, orientation: int) -> None:
    samples = ramp(bits, 3)
    layout = Layout(bits, RGB, separate=True, tags={274: (orientation,)})
    upright = {
        1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
    }[orientation]  # fmt: skip
    found = decoded(tiff_page(samples, layout))
    np.testing.assert_allclose(found, upright(shown(samples, layout)), atol=1.01)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_cut_is_told_from_damage(bits: int) -> None:
    whole = tiff_page(ramp(bits, 1), Layout(bits, MIN_IS_WHITE, compression=8))
    # The directory stands behind the pixels.
    with pytest.raises(CorruptImage, match="cut off; send it again"):
        decode(whole[: len(whole) // 2], LIMITS)
    damaged = bytearray(whole)
    damaged[8:40] = bytes(32)
    with pytest.raises(CorruptImage, match=r"damaged; .* save it anew"):
        decode(bytes(damaged), LIMITS)


@pytest.mark.parametrize(
    "tags",
    [
        {278: (1,)},
        {256: (3000,), 257: (300,)},
        {322: (2**31,), 323: (2**31,), 324: (8,), 325: (8,)},
        {322: (0,), 323: (0,), 324: (8,), 325: (8,)},
        {278: (0,)},
        {256: (0,)},
        {257: ()},
        {258: (0,)},
        {277: (0,)},
        {277: (60_000,)},
        {273: (2**32 - 1,) * 4},
    ],
)
@pytest.mark.parametrize("photometric", [MIN_IS_BLACK, PALETTE])
def test_tags_that_contradict_each_other_are_refused(
    tags: dict[int, tuple[int, ...]], photometric: int
) -> None:
    data = tiff_page(ramp(12, 1), Layout(12, photometric, tags=tags))
    with pytest.raises((CorruptImage, UnsupportedImage)):
        decode(data, LIMITS)


def test_a_palette_that_ends_too_early_is_refused() -> None:
    data = tiff_page(ramp(12, 1), Layout(12, PALETTE, tags={320: (1, 2, 3) * 9}))
    with pytest.raises(CorruptImage, match="fewer colours than it uses"):
        decode(data, LIMITS)


def test_what_pillow_writes_is_read_as_before() -> None:
    np.testing.assert_array_equal(decoded(encoded(photo(), "TIFF")), photo())


def test_a_directory_of_more_entries_than_bytes_is_read_no_further_than_the_file() -> None:
    data = bytearray(tiff_page(ramp(8, 1), Layout(big=True)))
    (place,) = struct.unpack_from("<Q", data, 8)
    data[place : place + 8] = bytes([255] * 8)
    np.testing.assert_allclose(decoded(bytes(data)), shown(ramp(8, 1), Layout()), atol=1.01)
    with pytest.raises(NoSuchPage):
        decode(bytes(data), LIMITS, page=2)


def test_tags_that_name_the_whole_file_over_and_over_cost_nothing() -> None:
    huge = tuple(range(65_536))
    tags = {40_000 + index: huge for index in range(30)}
    layout = Layout(16, MIN_IS_WHITE, tags=tags)
    np.testing.assert_allclose(
        decoded(tiff_page(ramp(16, 1), layout)), shown(ramp(16, 1), layout), atol=1.01
    )


@pytest.mark.parametrize("tag", [0x0100, 0x0101])
def test_a_file_that_claims_no_pixels_is_refused_by_its_header(tag: int) -> None:
    data = bytearray(encoded(photo(8, 8), "TIFF"))
    # The directory's entries are of 12 bytes: tag, type, count, value.
    at = data.index(struct.pack("<HH", tag, 4))
    data[at + 8 : at + 12] = bytes(4)
    limits = ImageLimits(10**6, 10**4, 1)
    with pytest.raises(CorruptImage, match="claims to be"):
        probe(bytes(data), limits)
    with pytest.raises(CorruptImage):
        decode(bytes(data), limits)
