"""Photos resized by native code, against Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppool._pixels import Filter, resized_pixels
from tests.native.entries import needs_library

pytestmark = needs_library

SIDES = st.one_of(st.integers(1, 12), st.integers(1, 300))


def check(size: tuple[int, int], wanted: tuple[int, int], kind: Filter, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    if seed % 2:
        noise = (noise > 127) * np.uint8(255)  # beyond which bicubic goes
    judge = Image.fromarray(noise).resize(wanted[::-1], Image.Resampling[kind.upper()])
    found = resized_pixels(noise, *wanted, kind)
    assert found is not None
    np.testing.assert_array_equal(found, judge, err_msg=f"{size} {wanted} {kind} {seed}")


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(SIDES, SIDES),
    wanted=st.tuples(SIDES, SIDES),
    kind=st.sampled_from(("bilinear", "bicubic")),
    seed=st.integers(0, 9),
)
def test_every_pixel_is_that_of_pillow(
    size: tuple[int, int], wanted: tuple[int, int], kind: Filter, seed: int
) -> None:
    check(size, wanted, kind, seed)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((2000, 1500), (512, 700)),
        ((4000, 1200), (1, 1)),
        ((300, 4000), (333, 1999)),
        ((3, 5000), (5000, 3)),
    ],
)
def test_large_photos_are_those_of_pillow(
    size: tuple[int, int], wanted: tuple[int, int], kind: Filter
) -> None:
    check(size, wanted, kind, 0)


def test_a_photo_that_does_not_lie_in_one_piece_is_the_same() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    mirrored = noise[::-1, ::2, ::-1]
    judge = Image.fromarray(np.ascontiguousarray(mirrored)).resize((17, 23), 2)
    np.testing.assert_array_equal(resized_pixels(mirrored, 23, 17, "bilinear"), judge)
