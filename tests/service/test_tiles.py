"""Large photos in windows: the same mask as in one piece, wherever the network sees no seam."""

from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppool.metadata import InputPolicy
from ppool.reference import resize_argmax_reference
from ppool.service.codecs.tiles import segment_tiles
from ppool.service.errors import CannotTile
from tests.service.harness import photo

CLASSES = 4


def pooled(image: NDArray[np.uint8], stride: int) -> NDArray[np.float32]:
    """A network that sees exactly ``stride`` pixels each way: logits by the mean of each cell."""
    height, width = (size // stride for size in image.shape[:2])
    cells = image[: height * stride, : width * stride].astype(np.float32) / 255
    means = cells.reshape(height, stride, width, stride, 3).mean((1, 3))
    return np.stack([np.cos(k + 7 * means.sum(2)) for k in range(CLASSES)]).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    stride=st.sampled_from([1, 2, 4]),
    multiple=st.sampled_from([1, 4, 8]),
)
def test_a_network_that_sees_no_seam_gives_the_mask_of_the_whole(
    height: int, width: int, stride: int, multiple: int
) -> None:
    image = photo(width, height, seed=height)
    policy = InputPolicy(max_side=32, multiple=multiple * stride)
    mask = segment_tiles(image, policy, lambda window: pooled(window, stride))
    bottom, right = (-side % (multiple * stride) + 32 for side in (height, width))
    padded = np.pad(image, ((0, bottom), (0, right), (0, 0)), "edge")
    logits = pooled(padded, stride)
    whole = resize_argmax_reference(logits[None], np.array(logits.shape[1:]) * stride)[0]
    assert mask.shape == (height, width)
    # At the far edges the two interpolate with different padding.
    inner = np.s_[: max(height - stride, 0), : max(width - stride, 0)]
    # Float32 and float64 may break a tie differently.
    assert np.count_nonzero((mask != whole[:height, :width])[inner]) <= 0.002 * mask.size


def test_windows_overlap_and_have_the_policys_size() -> None:
    seen: list[tuple[int, ...]] = []

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(window.shape)
        return pooled(window, 4)

    segment_tiles(photo(200, 90), InputPolicy.fixed(height=48, width=64), network)
    assert set(seen) == {(48, 64, 3)}
    assert len(seen) == 3 * 4


def test_a_photo_smaller_than_a_window_is_one_window() -> None:
    seen: list[Any] = []

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(window.shape)
        return pooled(window, 2)

    assert segment_tiles(photo(30, 17), InputPolicy(64, 8), network).shape == (17, 30)
    assert seen == [(24, 32, 3)]


def test_a_seam_is_crossed_gradually() -> None:
    """A network that disagrees with itself between two windows: the change lies in the overlap."""
    answers = iter((1.0, -1.0))

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        plane = np.full(window.shape[:2], next(answers), np.float32)
        return np.stack((plane, -plane))

    mask = segment_tiles(photo(112, 64), InputPolicy(64, 16), network)
    assert (mask[:, :48] == 0).all()
    assert (mask[:, 64:] == 1).all()
    assert (mask[:, 55] == 0).all()
    assert (mask[:, 57] == 1).all()


def test_logits_off_the_pixel_grid_are_refused() -> None:
    with pytest.raises(CannotTile, match="grid of whole pixels"):
        segment_tiles(photo(40, 40), InputPolicy(32, 1), lambda _: np.zeros((2, 5, 5), np.float32))


def test_windows_of_one_colour_are_asked_of_the_network_once() -> None:
    """And the mask is what it would be if all were."""
    image = np.full((200, 260, 3), 255, np.uint8)
    image[90:94, 100:104] = 0
    image[180:, 250:] = 7  # a colour, but in no window alone
    seen: list[NDArray[np.uint8]] = []

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(window)
        # Edges of a window look different, as they do where a network pads.
        return pooled(np.pad(window, ((4, 4), (4, 4), (0, 0))), 4)[:, 1:-1, 1:-1]

    mask = segment_tiles(image, InputPolicy(64, 4), network)
    assert sum(int(window.min()) == 255 for window in seen) == 1
    assert len(seen) == 1 + sum(int(window.min()) < 255 for window in seen)
    assert (mask == segment_tiles(_speckled(image), InputPolicy(64, 4), network)).all()


def _speckled(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Differs everywhere by so little that no label does."""
    dots = (np.indices(image.shape[:2]).sum(0) % 2).astype(np.uint8)
    return np.where(image == 255, image - dots[..., None], image)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 700), width=st.integers(1, 700), multiple=st.sampled_from([1, 8, 32]))
def test_windows_are_no_longer_than_so_many_must_be(height: int, width: int, multiple: int) -> None:
    """They cover the photo with an overlap of a quarter of the longest, and little more."""
    cover = np.zeros(1000, int)
    seen: list[tuple[int, int]] = []

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append((int(window[0, 0, 0]) * 256 + int(window[0, 0, 1]), window.shape[1]))
        return pooled(window, 1)

    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.divmod(np.arange(width), 256)
    image[..., 2] = (np.arange(height) % 251)[:, None]
    segment_tiles(image, InputPolicy(128, multiple), network)
    windows = set(seen)
    for start, length in windows:
        cover[start : start + length] += 1
    assert cover[:width].min() == 1
    assert len(windows) == max(1, -(-(width - 32) // (128 - 32)))
    needed = width + (len(windows) - 1) * 32
    assert sum(length for _, length in windows) < needed + len(windows) * multiple


def test_of_large_windows_a_smaller_share_overlaps() -> None:
    seen: list[tuple[int, ...]] = []

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(window.shape[:2])
        return pooled(window, 32)

    segment_tiles(photo(2848, 32), InputPolicy(1536, 32), network)
    # Three of 1216 pixels would have a quarter of the longest in common.
    assert seen == [(32, 1472)] * 2
    segment_tiles(photo(4160, 32), InputPolicy(4096, 32), network)
    assert seen[2:] == [(32, 1472)] * 3


def test_two_windows_at_once_give_the_same_mask() -> None:
    image = photo(200, 150).copy()
    image[100:, 100:] = 9  # some windows are of one colour
    both, seen = Barrier(2), []

    def network(window: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(window.shape)
        # After the first, which is asked for alone, they come in pairs.
        if 1 < len(seen) <= 3:
            both.wait(30)
        return pooled(window, 4)

    policy = InputPolicy(64, 16)
    mask = segment_tiles(image, policy, network, at_once=2)
    assert not both.broken
    assert (mask == segment_tiles(image, policy, lambda window: pooled(window, 4))).all()


def test_labels_are_the_first_largest() -> None:
    """Of more classes than a byte holds, and where several are as large."""
    logits = np.random.default_rng(0).integers(0, 9, (300, 6, 5)).astype(np.float32)
    mask = segment_tiles(
        np.zeros((6, 5, 3), np.uint8), InputPolicy(6, 1), lambda _: logits[:, :, :5]
    )
    assert mask.dtype == np.uint16
    assert (mask == logits.argmax(0)).all()
