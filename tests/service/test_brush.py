"""Label Studio's run lengths, against a decoder that reads them bit by bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from ppool.service.codecs.brush import brush_rle

planes = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda shape: st_numpy.arrays(np.bool_, shape)
)


def decoded(content: bytes) -> NDArray[np.uint8]:
    """The values, as `@thi.ng/rle-pack` reads them."""
    bits = "".join(f"{byte:08b}" for byte in content)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = list[int]()
    while len(values) < total:
        repeated = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(word)] * count if repeated else [read(word) for _ in range(count)]
    assert len(values) == total
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


@given(planes)
def test_each_pixel_comes_back_in_four_channels(plane: NDArray[np.bool_]) -> None:
    found = decoded(brush_rle(plane)).reshape(*plane.shape, 4)
    assert (found == plane[..., None] * np.uint8(255)).all()


@pytest.mark.parametrize("pixels", [1, 2, 4, 5, 63, 64, 65, 16383, 16384, 16385, 50000])
def test_runs_of_all_lengths(pixels: int) -> None:
    plane = np.array([[False] + [True] * pixels + [False] * 3])
    found = decoded(brush_rle(plane)).reshape(-1, 4)
    assert (found == plane[0][:, None] * np.uint8(255)).all()
