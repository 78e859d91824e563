"""PNG files, read back by Pillow."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from PIL import Image

from ppool.service.codecs.png import png

sides = st.integers(1, 40)


@settings(deadline=None)
@given(
    st.one_of(st.tuples(sides, sides), st.tuples(sides, sides, st.sampled_from((3, 4)))).flatmap(
        lambda shape: st_numpy.arrays(np.uint8, shape)
    )
)
def test_pixels_come_back_as_they_were(pixels: NDArray[np.uint8]) -> None:
    image = Image.open(io.BytesIO(png(pixels)))
    image.verify()
    image = Image.open(io.BytesIO(png(pixels)))
    mode = "L" if pixels.ndim == 2 else {3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    assert (image.format, image.mode) == ("PNG", mode)
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("classes", [1, 2, 17, 256])
def test_an_indexed_file_keeps_indices_and_colours(classes: int) -> None:
    rng = np.random.default_rng(classes)
    mask = rng.integers(0, classes, (9, 14), np.uint8)
    palette = rng.integers(0, 256, (classes, 3), np.uint8)
    image = Image.open(io.BytesIO(png(mask, palette.tobytes())))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette[mask])


def test_a_view_that_is_not_contiguous_is_written_as_seen() -> None:
    pixels = np.arange(120, dtype=np.uint8).reshape(10, 12)[::2, ::-3]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)
