"""Photos as their files have them, transparency and colours: for answers that show them."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ppool.service.codecs.header import NO_LIMITS
from ppool.service.codecs.images import Photo, decode

RNG = np.random.default_rng(0)
RGBA = RNG.integers(0, 256, (30, 40, 4), np.uint8)
RGBA[:10, :, 3], RGBA[10:14, :, 3] = 0, 255
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def straight(data: bytes) -> Photo:
    """Decoded to be shown; the network sees the same photo as ever."""
    photo = decode(data, NO_LIMITS, keep={"straight"})
    np.testing.assert_array_equal(photo.image, decode(data, NO_LIMITS).image)
    return photo


def whole(data: bytes) -> NDArray[np.uint8]:
    return straight(data).whole["straight"]


def grey_profile(gamma: float) -> bytes:
    """An ICC profile, version 2, of grey levels with a gamma (ICC.1:2001-04, section 6.3.3)."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4) + round(gamma * 256).to_bytes(2) + bytes(2)
    return profile(b"mntrGRAYXYZ ", b"kTRC", curve)


def ink_profile(colours: NDArray[np.float64]) -> bytes:
    """Of a press whose solid inks, printed over each other, have these colours.

    Args:
        colours: L*, a* and b* of cyan, magenta, yellow and black, [2, 2, 2, 2, 3]; 1 is solid.
    """
    matrix = b"".join((65536 * one).to_bytes(4) for one in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    ramp = bytes(range(256))
    table = np.round(colours * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8).tobytes()
    content = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + table + 3 * ramp
    return profile(b"prtrCMYKLab ", b"A2B0", content)


def profile(spaces: bytes, tag: bytes, content: bytes) -> bytes:
    """An ICC profile of one tag, beside those that every one has."""
    white = b"XYZ " + bytes(4) + b"".join(round(v * 65536).to_bytes(4) for v in (0.9642, 1, 0.8249))
    text = b"desc" + bytes(4) + (5).to_bytes(4) + b"test\0" + bytes(78 + 1)
    copy = b"text" + bytes(4) + b"none"
    tags, place, body = b"", 128 + 4 + 4 * 12, b""
    for name, value in ((b"desc", text), (b"cprt", copy), (b"wtpt", white), (tag, content)):
        tags += name + (place + len(body)).to_bytes(4) + len(value).to_bytes(4)
        body += value + bytes(-len(value) % 4)
    head = bytes(4) + b"lcms" + bytes([2, 0x20, 0, 0]) + spaces + bytes(12) + b"acsp"
    head += bytes(28) + b"".join(round(v * 65536).to_bytes(4) for v in (0.9642, 1, 0.8249))
    whole = head + bytes(128 - len(head)) + (4).to_bytes(4) + tags + body
    return len(whole).to_bytes(4) + whole[4:]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparency_is_a_channel_and_colours_are_not_multiplied(kind: str) -> None:
    lossless = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}}.get(kind, {})
    data = saved(Image.fromarray(RGBA), kind, **lossless)
    found = whole(data)
    if kind == "AVIF":
        np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(data))))
    else:
        np.testing.assert_array_equal(found, RGBA)


def test_associated_transparency_of_a_tiff_is_divided_out() -> None:
    file = io.BytesIO()
    premultiplied = RGBA.copy()
    premultiplied[..., :3] = (RGBA[..., :3].astype(int) * RGBA[..., 3:] + 127) // 255
    tifffile.imwrite(file, premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    found = whole(file.getvalue())
    np.testing.assert_array_equal(found[..., 3], RGBA[..., 3])
    clear = RGBA[..., 3] > 128
    assert np.abs(found[clear].astype(int) - RGBA[clear]).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "P", "PA"])
def test_grey_and_palette_photos_keep_their_transparency(mode: str) -> None:
    if mode == "P":
        image = Image.fromarray(RNG.integers(0, 4, (30, 40), np.uint8))
        image.putpalette(RGBA[0, :4, :3].tobytes())
        data = saved(image, transparency=bytes([0, 80, 160, 255]))
    else:
        data = saved(Image.fromarray(RGBA).convert("LA"))
    np.testing.assert_array_equal(whole(data), Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.mark.parametrize("depth", [8, 16])
def test_the_one_transparent_colour_of_a_png_is_clear(depth: int) -> None:
    levels = np.arange(1200).reshape(30, 40) % 256
    image = Image.fromarray((levels * (257 if depth == 16 else 1)).astype(f"uint{depth}"))
    found = whole(saved(image, transparency=7 * (257 if depth == 16 else 1)))
    np.testing.assert_array_equal(found[..., 3], np.where(levels == 7, 0, 255))
    np.testing.assert_array_equal(found[..., 0], levels)


def test_an_opaque_photo_has_three_channels() -> None:
    image = Image.fromarray(RGBA[..., :3])
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        assert whole(saved(image, kind)).shape == (30, 40, 3)
    np.testing.assert_array_equal(whole(saved(image)), RGBA[..., :3])


def test_sixteen_bits_are_rounded_to_eight() -> None:
    deep = RNG.integers(0, 65536, (30, 40), np.uint16)
    expected = np.round(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(whole(saved(Image.fromarray(deep)))[..., 1], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(RGBA), exif=exif)
    turned = Image.open(io.BytesIO(data))
    from PIL import ImageOps

    np.testing.assert_array_equal(whole(data), ImageOps.exif_transpose(turned))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_the_profile_of_rgb_is_kept(kind: str) -> None:
    photo = straight(saved(Image.fromarray(RGBA[..., :3]), kind, icc_profile=SRGB))
    assert photo.profile == SRGB
    assert not straight(saved(Image.fromarray(RGBA[..., :3]), kind)).profile


def test_the_profile_of_a_deep_tiff_is_kept() -> None:
    file = io.BytesIO()
    deep = RGBA[..., :3].astype(np.uint16) * 257
    tifffile.imwrite(file, deep, photometric="rgb", iccprofile=SRGB)
    photo = straight(file.getvalue())
    assert photo.profile == SRGB
    np.testing.assert_array_equal(photo.whole["straight"], RGBA[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_levels_with_a_profile_become_srgb(kind: str) -> None:
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(8, 0))
    profile = grey_profile(1.0)
    photo = straight(
        saved(levels, kind, icc_profile=profile, **({"quality": 100} if kind == "JPEG" else {}))
    )
    assert not photo.profile
    # Linear light to sRGB (IEC 61966-2-1).
    light = photo.image[0, :, 0] / 255
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(photo.whole["straight"][0, :, 1] - 255 * srgb).max() <= 1.5


def srgb_of(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels of sRGB, [..., 3], of L*a*b* under D50 (CIE 15, IEC 61966-2-1, Bradford)."""
    f = (lab[..., :1] + 16) / 116 + lab[..., 1:] * (1 / 500, -1 / 200)
    f = np.stack((f[..., 0], (lab[..., 0] + 16) / 116, f[..., 1]), -1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * (0.9642, 1, 0.8249)
    light = xyz @ np.array(
        [
            [3.1338561, -0.9787684, 0.0719453],
            [-1.6168667, 1.9161415, -0.2289914],
            [-0.4906146, 0.0334540, 1.4052427],
        ]
    )
    light = light.clip(0, 1)
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    found: NDArray[np.float64] = 255 * curved
    return found


@pytest.mark.parametrize("kind", ["JPEG", "8", "16", "with opacity"])
def test_inks_with_a_profile_become_srgb(kind: str) -> None:
    """Solid inks of a press that prints red where others have cyan; TIFF of so many bits."""
    solid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1)
    tints = solid[..., :3] @ np.array([[-12, 24, 12], [-16, -20, 6], [-8, 4, 20]])
    lab = (np.array((100.0, 0, 0)) + tints) * (1 - solid[..., 3:])
    patches = (255 * solid.reshape(4, 4, 4)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    profile = ink_profile(lab)
    if kind == "JPEG":
        data = saved(Image.fromarray(patches, "CMYK"), kind, icc_profile=profile, quality=100)
    else:
        file, options = io.BytesIO(), {"photometric": "separated", "iccprofile": profile}
        levels = patches * np.uint16(257) if kind == "16" else patches
        if kind == "with opacity":
            levels = np.dstack((levels, np.full((64, 64), 200, np.uint8)))
            options["extrasamples"] = ["unassalpha"]
        tifffile.imwrite(file, levels, **options)
        data = file.getvalue()
    photo = straight(data)
    assert not photo.profile
    found = photo.whole["straight"][8::16, 8::16].astype(float)
    if kind == "with opacity":
        assert (found[..., 3] == 200).all()
    truth = srgb_of(lab.reshape(4, 4, 3))
    assert np.abs(found[..., :3] - truth).max() <= 3
    assert np.ptp(truth, axis=(0, 1)).min() > 100
    # And not the inks of which nothing is known.
    assert np.abs(found[..., :3] - photo.image[8::16, 8::16]).max() > 60


def test_inks_without_a_profile_are_those_that_the_mask_is_of() -> None:
    inks = Image.fromarray(RGBA[..., :3]).convert("CMYK")
    photo = straight(saved(inks, "JPEG"))
    np.testing.assert_array_equal(photo.whole["straight"], photo.image)


@pytest.mark.parametrize("profile", [b"", b"no profile at all", SRGB[:200], bytes(128)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_damaged_profile_is_no_reason_to_refuse(kind: str, profile: bytes) -> None:
    photo = straight(saved(Image.fromarray(RGBA[..., :3]), kind, icc_profile=profile))
    assert photo.whole["straight"].shape == (30, 40, 3)
