"""COCO run lengths and content negotiation, against slow and obvious versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from ppool.service.codecs.rle import coco_rle
from ppool.service.http.negotiation import choose


def decode_rle(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """The published decoder, value by value."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            character = ord(text[position]) - 48
            value |= (character & 0x1F) << shift
            more = bool(character & 0x20)
            position, shift = position + 1, shift + 5
            if not more and character & 0x10:
                value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


masks = st_numpy.arrays(
    np.uint8,
    st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.integers(0, 3),
)


@given(masks)
def test_every_class_decodes_to_where_it_is(mask: NDArray[np.uint8]) -> None:
    strings = coco_rle(mask)
    assert sorted(strings) == np.unique(mask).tolist()
    for label, text in strings.items():
        np.testing.assert_array_equal(decode_rle(text, *mask.shape), mask == label)


def test_long_runs_and_long_differences_decode() -> None:
    mask = np.zeros((3000, 1000), np.uint8)
    mask[10:2990, 100:103] = 1
    mask[5, 900] = 1
    np.testing.assert_array_equal(decode_rle(coco_rle(mask)[1], *mask.shape), mask == 1)


def test_the_string_of_a_known_mask() -> None:
    """By hand: columns 0 0, 1 1; zeros come first; a small count is the character 48 + count."""
    assert coco_rle(np.array([[0, 1], [0, 1]], np.uint8)) == {0: "022", 1: "22"}


OFFERS = ("image/png", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "image/png"),
        ("", "image/png"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/*", "application/json"),
        ("image/*;q=0.4, application/json;q=0.5", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("text/html, */*;q=0.1", "image/png"),
        ("application/json;charset=utf-8", "application/json"),
        ("text/html", None),
        ("image/png;q=0", None),
        ("image/png;q=lots", None),
        (";;,,;", None),
    ],
)
def test_the_best_offer_is_chosen(accept: str, chosen: str | None) -> None:
    assert choose(accept, OFFERS) == chosen


def test_without_offers_nothing_is_chosen() -> None:
    assert choose("*/*", ()) is None
