"""A batch in one worker: memory that runs out, and one photo that fails."""

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ppool.service.codecs.answers import NPZ, PNG, Answer, Encoded
from ppool.service.codecs.errors import CorruptImage
from ppool.service.codecs.images import ImageLimits
from ppool.service.http.errors import InternalError, Overloaded
from ppool.service.workers import inference, staging
from ppool.service.workers.inference import Segmenter
from ppool.service.workers.messages import Task
from ppool.service.workers.staging import Staging
from tests.service.harness import Gate, encoded, photo

LIMITS = ImageLimits(max_pixels=10**6, max_side_pixels=10**4, max_frames=1)
MASK = Answer(PNG, "none", overlay=False, rle=False)


def tasks(count: int) -> list[Task]:
    return [Task("image", encoded(photo(seed=seed)), MASK) for seed in range(count)]


def contents(results: Sequence[Any]) -> list[Mapping[str, bytes]]:
    assert all(isinstance(result, Encoded) for result in results)
    return [result.files for result in results]


class SmallDevice(Gate):
    """Has memory for ``most`` images at a time."""

    most = 2

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if len(feeds["image"]) > self.most:
            self.sizes.append(-len(feeds["image"]))
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")
        return super().run(outputs, feeds)


def test_out_of_memory_halves_the_batch_and_changes_no_mask(segmenter: Segmenter) -> None:
    device = SmallDevice(segmenter.session)
    small = dataclasses.replace(segmenter, session=device)
    assert contents(small.segment(tasks(7), LIMITS)) == contents(
        [segmenter.segment([task], LIMITS)[0] for task in tasks(7)]
    )
    assert device.sizes == [-7, -3, 1, 2, -4, 2, 2]


def test_one_image_too_many_for_the_device_is_to_come_back_later(segmenter: Segmenter) -> None:
    device = SmallDevice(segmenter.session)
    device.most = 0
    small = dataclasses.replace(segmenter, session=device)
    assert [type(result) for result in small.segment(tasks(2), LIMITS)] == [Overloaded] * 2


def test_a_broken_photo_costs_its_neighbours_nothing(segmenter: Segmenter) -> None:
    batch = tasks(3)
    batch[1] = Task("image", batch[1].data[:60], MASK)
    first, broken, last = segmenter.segment(batch, LIMITS)
    assert isinstance(broken, CorruptImage)
    whole = segmenter.segment(tasks(3), LIMITS)
    assert contents([first, last]) == contents([whole[0], whole[2]])


def test_a_photo_that_fails_unforeseen_fails_alone(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inference.pad

    def fussy(image: NDArray[np.uint8], policy: Any) -> NDArray[np.uint8]:
        if image[0, 0, 0] == 1:
            raise RuntimeError
        padded: NDArray[np.uint8] = real(image, policy)
        return padded

    monkeypatch.setattr(inference, "pad", fussy)
    odd = Task("image", encoded(np.ones((40, 60, 3), np.uint8)), MASK)
    first, failed, last = segmenter.segment([tasks(1)[0], odd, tasks(2)[1]], LIMITS)
    assert isinstance(failed, InternalError)
    assert contents([first, last]) == contents(segmenter.segment(tasks(2), LIMITS))


def test_alpha_is_cropped_to_the_photo(segmenter: Segmenter) -> None:
    answer = Answer(NPZ, "full", overlay=False, rle=False)
    (result,) = segmenter.segment([Task("image", encoded(photo(50, 37)), answer)], LIMITS)
    assert isinstance(result, Encoded)
    assert set(result.seconds) == {"decode", "infer", "encode"}


def host_memory(address: Any, size: Any, flags: int) -> int:
    """What ``cudaHostAlloc`` does, with memory that every machine has."""
    assert flags == 0
    LOCKED.append(ctypes.create_string_buffer(size.value))
    address._obj.value = ctypes.addressof(LOCKED[-1])
    return 0


LOCKED: list[Any] = []


@pytest.mark.parametrize(
    ("runtime", "locked"),
    [
        (None, 0),
        (SimpleNamespace(cudaHostAlloc=lambda *_: 2), 0),
        (SimpleNamespace(cudaHostAlloc=host_memory), 2),
    ],
    ids=["no CUDA", "none left", "page-locked"],
)
def test_batches_staged_for_a_gpu_get_the_same_masks(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, runtime: Any, locked: int
) -> None:
    LOCKED.clear()
    monkeypatch.setattr(staging, "_runtime", lambda: runtime)
    staged = dataclasses.replace(segmenter, staging=Staging())
    for count in (1, 5, 2, 5):
        expected = contents(segmenter.segment(tasks(count), LIMITS))
        assert contents(staged.segment(tasks(count), LIMITS)) == expected
    # For one image and for five, each time rounded up to a power of two bytes.
    assert [len(memory) for memory in LOCKED] == [16384, 65536][:locked]


def test_threads_do_not_share_a_staged_batch() -> None:
    shared = Staging()
    images = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2)]
    with ThreadPoolExecutor(1) as other:
        first = shared.stack(images[:1])
        second = other.submit(shared.stack, images[1:]).result()
    assert (first == 1).all()
    assert (second == 2).all()
