"""Overlays and cut-outs, against Pillow's own composition, and their files, read by Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ppool.service.codecs import pictures
from ppool.service.codecs.pictures import Format, blended, cut_out, picture
from ppool.service.errors import TooLarge

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PALETTE = bytes(range(10, 19))


def images(channels: tuple[int, ...]) -> st.SearchStrategy[NDArray[np.uint8]]:
    shapes = st.tuples(st.integers(1, 140), st.integers(1, 9), st.sampled_from(channels))
    return shapes.flatmap(lambda shape: st_numpy.arrays(np.uint8, shape))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@settings(deadline=None)
@given(images((3, 4)), st.data())
def test_a_cut_out_is_what_pillow_puts_together(
    photo: NDArray[np.uint8], data: st.DataObject
) -> None:
    alpha = data.draw(st_numpy.arrays(np.uint8, photo.shape[:2]))
    expected = Image.fromarray(photo).convert("RGBA")
    opaque, clear = expected.getchannel("A"), Image.new("L", expected.size)
    expected.putalpha(Image.composite(opaque, clear, Image.fromarray(alpha)))
    found = Image.fromarray(cut_out(photo, alpha))
    np.testing.assert_array_equal(found.getchannel("A"), expected.getchannel("A"))
    shows = np.asarray(expected)[..., 3] > 0
    np.testing.assert_array_equal(np.asarray(found)[shows], np.asarray(expected)[shows])
    assert not np.asarray(found)[~shows].any()


def test_on_black_it_looks_as_the_cut_out_of_rembg() -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    mask = Image.fromarray(rng.integers(0, 2, (40, 50), np.uint8) * np.uint8(255))
    # rembg.bg.naive_cutout
    theirs = Image.composite(photo, Image.new("RGBA", photo.size, 0), mask)
    ours = Image.fromarray(cut_out(np.asarray(photo), np.asarray(mask)))
    black = Image.new("RGBA", photo.size, "black")
    np.testing.assert_array_equal(
        Image.alpha_composite(black, ours), Image.alpha_composite(black, theirs)
    )


@settings(deadline=None)
@given(images((3,)), st.data())
def test_an_overlay_is_half_the_photo_and_half_the_colours_of_its_classes(
    photo: NDArray[np.uint8], data: st.DataObject
) -> None:
    mask = data.draw(st_numpy.arrays(np.uint8, photo.shape[:2], elements=st.integers(0, 2)))
    drawn = data.draw(st.booleans())
    colours = Image.fromarray(np.frombuffer(PALETTE, np.uint8).reshape(-1, 3)[mask])
    expected = np.array(Image.blend(Image.fromarray(photo), colours, 0.5))
    labels = mask.astype(np.uint16) if drawn else mask
    if drawn:  # of no class
        labels[mask == 2] = 65535
        expected[mask == 2] = photo[mask == 2]
    np.testing.assert_array_equal(blended(photo, labels, PALETTE), expected)


@pytest.mark.parametrize(
    ("kind", "mode", "most"),
    [
        ("png", "RGB", 0),
        ("png", "RGBA", 0),
        ("jpeg", "RGB", 3),
        ("webp", "RGB", 4),
        ("webp", "RGBA", 4),
    ],
)
def test_every_file_shows_the_picture(kind: Format, mode: str, most: float) -> None:
    rows, columns = np.mgrid[:90, :130]
    smooth = np.stack((rows, columns, rows + columns, 255 - rows), 2).astype(np.uint8)
    pixels = np.ascontiguousarray(smooth[..., : len(mode)])
    image = opened(picture(pixels, kind))
    assert (image.format, image.mode) == (kind.upper(), mode)
    difference = np.abs(np.asarray(image).astype(int) - pixels)
    assert difference.mean() <= most
    assert mode == "RGB" or not difference[..., 3].any()


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_profile_goes_with_the_pixels(kind: Format) -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    assert opened(picture(pixels, kind, PROFILE)).info["icc_profile"] == PROFILE
    assert not opened(picture(pixels, kind)).info.get("icc_profile")


def test_a_webp_that_the_format_has_no_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_WEBP_SIDE", 8)
    with pytest.raises(TooLarge, match=r"^Ask for PNG: .* at most 8 pixels"):
        picture(np.zeros((9, 3, 3), np.uint8), "webp")
    assert opened(picture(np.zeros((8, 3, 3), np.uint8), "webp")).size == (3, 8)
