"""A batch in one worker: memory that runs out, and one photo that fails."""

import dataclasses
from collections.abc import Mapping, Sequence
from threading import Barrier, Lock
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ppool.service.answers import Answer, Encoded
from ppool.service.codecs.header import ImageLimits
from ppool.service.errors import CorruptImage, DeviceFull, InferenceFailed
from ppool.service.workers.inference import Segmenter
from ppool.service.workers.messages import Task
from tests.service.harness import Gate, encoded, photo

LIMITS = ImageLimits(max_pixels=10**6, max_side_pixels=10**4, max_frames=1)
MASK = Answer(("mask",))


def tasks(count: int) -> list[Task]:
    return [Task("image", encoded(photo(seed=seed)), MASK) for seed in range(count)]


def contents(results: Sequence[Any]) -> list[Mapping[str, bytes]]:
    assert all(isinstance(result, Encoded) for result in results)
    return [result.files for result in results]


class SmallDevice(Gate):
    """Has memory for ``most`` images at a time."""

    most = 2

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], **options: Any
    ) -> list[NDArray[Any]]:
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
    assert [type(result) for result in small.segment(tasks(2), LIMITS)] == [DeviceFull] * 2


def test_a_broken_photo_costs_its_neighbours_nothing(segmenter: Segmenter) -> None:
    batch = tasks(3)
    batch[1] = Task("image", batch[1].data[:60], MASK)
    first, broken, last = segmenter.segment(batch, LIMITS)
    assert isinstance(broken, CorruptImage)
    whole = segmenter.segment(tasks(3), LIMITS)
    assert contents([first, last]) == contents([whole[0], whole[2]])


class Fussy(Gate):
    """Cannot bear a photo of ones."""

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], **options: Any
    ) -> list[NDArray[Any]]:
        if (feeds["image"] == 1).all(axis=(1, 2, 3)).any():
            raise RuntimeError
        return super().run(outputs, feeds)


def test_a_photo_that_fails_unforeseen_fails_alone(segmenter: Segmenter) -> None:
    fussy = dataclasses.replace(segmenter, session=Fussy(segmenter.session))
    odd = Task("image", encoded(np.ones((40, 60, 3), np.uint8)), MASK)
    first, failed, last = fussy.segment([tasks(1)[0], odd, tasks(2)[1]], LIMITS)
    assert isinstance(failed, InferenceFailed)
    assert contents([first, last]) == contents(segmenter.segment(tasks(2), LIMITS))


def test_alpha_is_cropped_to_the_photo(segmenter: Segmenter) -> None:
    answer = Answer(("arrays",), "full")
    (result,) = segmenter.segment([Task("image", encoded(photo(50, 37)), answer)], LIMITS)
    assert isinstance(result, Encoded)
    assert result.seconds.queue == 0
    assert min(result.seconds.decode, result.seconds.infer, result.seconds.encode) > 0


class Windows(Gate):
    """Gives logits, and tells how many windows it was given at a time."""

    offers_tiles = True

    def __init__(self, session: Any, threads: int) -> None:
        super().__init__(session)
        self.threads = threads
        self.most = self._now = 0
        self._lock = Lock()
        self._pair = Barrier(2)

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], **options: Any
    ) -> list[NDArray[Any]]:
        with self._lock:
            self.sizes.append(len(feeds["image"]))
            self._now += 1
            number = len(self.sizes)
        # The first is asked for alone, and tells the stride.
        if self.threads > 1 and number in (2, 3):
            self._pair.wait(30)
        with self._lock:
            self.most, self._now = max(self.most, self._now), self._now - 1
        return [np.moveaxis(feeds["image"], 3, 1).astype(np.float32)]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_of_several_threads_is_given_two_windows_at_once(
    segmenter: Segmenter, threads: int
) -> None:
    session, model = Windows(segmenter.session, threads), segmenter.model
    image = photo(4 * model.input.max_side, model.input.max_side)
    task = Task("image", encoded(image), Answer(("mask",), tile=True))
    (result,) = dataclasses.replace(segmenter, session=session).segment([task], LIMITS)
    assert isinstance(result, Encoded)
    assert len(session.sizes) > 3
    assert session.most == threads
