"""A model in this process: photo files in, encoded masks out, a batch at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppool.feeding import Feed, feed, resized_labels
from ppool.metadata import Stage
from ppool.runtime import LOGITS, MASK_SIZE, RunOptions, Session, make_session
from ppool.service.answers import Answer, Encoded
from ppool.service.codecs.encoding import Segmentation, encode
from ppool.service.codecs.header import ImageLimits
from ppool.service.codecs.images import Photo, decode
from ppool.service.codecs.probability import Maps, ScoreReader, read_scores
from ppool.service.codecs.tiles import segment_tiles
from ppool.service.errors import (
    CannotTell,
    CannotTile,
    CodecError,
    DeviceFull,
    Fault,
    InferenceFailed,
)
from ppool.service.models import Model
from ppool.service.timing import StageSeconds
from ppool.service.workers.devices import why_no_gpu
from ppool.service.workers.messages import Task
from ppool.service.workers.outputs import check_outputs
from ppool.service.workers.snapshot import ModelFile, Snapshot

__all__ = ["Outcome", "Segmenter", "Stop", "load_model", "load_segmenter"]

# Of one photo: its share of the answer, or why there is none.
Outcome = Encoded | Fault

_logger = logging.getLogger("ppool.service")


class Stopped(Exception):  # noqa: N818 - an outcome
    """Nobody waits for this any more."""


class Stop:
    """Ends what one thread infers from another, at the next operator.

    Attributes:
        options: Of every run that it is to end.
    """

    def __init__(self) -> None:
        self.options = RunOptions()

    def set(self) -> None:
        """End it."""
        self.options.terminate = True

    def check(self) -> None:
        """Go no further.

        Raises:
            Stopped: once it was set.
        """
        if self.options.terminate:
            raise Stopped


@dataclass(frozen=True)
class Segmenter:
    """A loaded model, and how it segments photos.

    Attributes:
        model: What is known of it.
        session: Runs it.
    """

    model: Model
    session: Session

    def segment(
        self, tasks: Sequence[Task], limits: ImageLimits, stop: Stop | None = None
    ) -> list[Outcome]:
        """Decode, segment as one batch and encode; an error stands for a photo that failed.

        All tasks ask for the same outputs, and their photos are padded to the same shape. Once
        ``stop`` is set, what is left of them is given up.
        """
        stop = stop or Stop()
        try:
            return self._segment(tasks, limits, stop)
        except Exception as error:
            if stop.options.terminate:
                return [InferenceFailed()] * len(tasks)
            if len(tasks) > 1:
                # One of them is to blame; the others are to have their masks.
                return [self.segment((task,), limits, stop)[0] for task in tasks]
            if isinstance(error, Fault):
                return [error]
            _logger.exception("inference failed")
            return [InferenceFailed()]

    def _segment(self, tasks: Sequence[Task], limits: ImageLimits, stop: Stop) -> list[Outcome]:
        if tasks[0].answer.tile:
            return [self._segment_tiles(task, limits, stop) for task in tasks]
        photos = [self._decode(task, limits, stop) for task in tasks]
        feeds = [photo.feed for photo in photos if isinstance(photo, _Photo)]
        answer = tasks[0].answer
        stages = self.model.stages if answer.alpha != "none" else ()
        needed = self.model.offers_scores and answer.maps.needs_scores(self.model.head)
        scores = (LOGITS,) if needed else ()
        outputs = ("mask", *(stage.output for stage in stages), *scores)
        start = time.monotonic()
        rows = self._rows(outputs, feeds, stop)
        seconds = time.monotonic() - start
        results: list[Outcome] = []
        for task, photo in zip(tasks, photos, strict=True):
            stop.check()
            if isinstance(photo, _Photo):
                results.append(self._encode(task, photo, stages, next(rows), seconds))
            else:
                results.append(photo)
        return results

    def _rows(
        self, outputs: tuple[str, ...], feeds: Sequence[Feed], stop: Stop
    ) -> Iterator[tuple[NDArray[Any], ...]]:
        """The outputs for each photo; those whose masks are of one size share a batch."""
        alike: dict[tuple[int, int] | None, list[int]] = {}
        for index, entry in enumerate(feeds):
            key = entry.whole if self.session.sized(*entry.whole) else None
            alike.setdefault(key, []).append(index)
        rows: dict[int, tuple[NDArray[Any], ...]] = {}
        for size, members in alike.items():
            padded = [feeds[index].image for index in members]
            images = np.stack(padded) if len(padded) > 1 else padded[0][None]
            arrays = self._infer(outputs, images, stop, self.session.sized(*size) if size else {})
            rows |= zip(members, zip(*arrays, strict=True), strict=True)
        return iter([rows[index] for index in range(len(feeds))])

    def _segment_tiles(self, task: Task, limits: ImageLimits, stop: Stop) -> Outcome:
        if not self.session.offers_tiles:
            return CannotTile("This model cannot do mode=tile: its file offers no logits to blend.")
        if reason := self._why_no_scores(task.answer):
            return CannotTell(reason)
        start = time.monotonic()
        try:
            photo = decode(task.data, limits, page=task.answer.page, keep=task.answer.keeps)
        except CodecError as error:
            return error
        decoded = time.monotonic()
        about, wanted = self.model, task.answer.maps
        size = photo.height, photo.width
        try:
            reader = ScoreReader(about, wanted, size, blended=True) if wanted.count else None
        except CodecError as error:
            return error
        mask = segment_tiles(
            photo.image,
            about.input,
            # Labels are made of what is blended; the file's own would be for nothing.
            lambda window: self._infer((LOGITS,), window[None], stop, self.session.sized(1, 1))[0][
                0
            ],
            reader,
            at_once=self._windows_at_once,
        )
        inferred = time.monotonic()
        found = Segmentation(
            self.model,
            photo.width,
            photo.height,
            mask,
            {},
            photo.pages,
            photo.whole,
            photo.profile,
            reader.maps if reader else Maps(),
        )
        result = encode(found, task.name, task.answer)
        seconds = StageSeconds(
            decode=decoded - start, infer=inferred - decoded, encode=time.monotonic() - inferred
        )
        return replace(result, seconds=seconds)

    @property
    def _windows_at_once(self) -> int:
        """Two where that keeps several threads busier; on a GPU it would only take more memory."""
        on_cpu = self.model.provider == "CPUExecutionProvider"
        return 2 if on_cpu and self.session.threads != 1 else 1

    def verify(self, height: int, width: int) -> None:
        """Run noise, and compare every output with what the file says of it.

        Raises:
            ValueError: if one is not that; the message says which.
        """
        stages = (stage.output for stage in self.model.stages)
        logits = (LOGITS,) if self.model.offers_scores else ()
        # Not NumPy's generators, which every worker would load for this alone.
        pixels = Random(0).randbytes(height * width * 3)  # noqa: S311 - no secret
        noise = np.frombuffer(pixels, np.uint8).reshape(1, height, width, 3)
        self._try(("mask", *stages, *logits), noise)

    def probe(self, height: int, width: int, batch: int, seconds: float) -> tuple[float, float]:
        """Run batches of grey images for ``seconds``, and at least once.

        Returns:
            Seconds of the fastest batch, and images a second.

        Raises:
            ValueError: if they cannot be run; the message says why.
        """
        images = np.full((batch, height, width, 3), 127, np.uint8)
        start = before = time.monotonic()
        fastest, runs = float("inf"), 0
        while not runs or before - start < seconds:
            self._try(("mask",), images)
            now = time.monotonic()
            fastest, before, runs = min(fastest, now - before), now, runs + 1
        # Alpha maps and batches may never need theirs again, and who rests needs none.
        self.session.release(images[:1])
        return fastest, runs * batch / (before - start)

    def _try(self, outputs: tuple[str, ...], images: NDArray[np.uint8]) -> None:
        try:
            self._infer(outputs, images, Stop())
        except Exception as error:  # ONNX Runtime has a dozen unrelated exception types
            count, height, width, _ = images.shape
            reason = "the device has no memory" if isinstance(error, DeviceFull) else str(error)
            raise ValueError(
                f"model: {self.model.file!r} cannot run {count} x {height} x {width}: {reason}"
            ) from error

    def _decode(self, task: Task, limits: ImageLimits, stop: Stop) -> _Photo | CodecError:
        stop.check()
        if reason := self._why_no_scores(task.answer):
            return CannotTell(reason)
        start = time.monotonic()
        policy = self.model.input
        try:
            photo = decode(
                task.data,
                limits,
                policy,
                task.answer.page,
                keep=task.answer.keeps,
            )
        except CodecError as error:
            return error
        fed = feed(photo.image, policy, (photo.height, photo.width))
        return _Photo(fed, photo, time.monotonic() - start)

    def _why_no_scores(self, answer: Answer) -> str:
        """Why the answer cannot be had of this model; empty if it can."""
        reason = self.model.why_no_probability
        if answer.maps.probability is None and self.model.offers_scores:
            return ""  # planes need no more than the scores
        return reason if answer.maps.needs_scores(self.model.head) else ""

    def _encode(
        self,
        task: Task,
        photo: _Photo,
        stages: Sequence[Stage],
        arrays: tuple[NDArray[Any], ...],
        infer_seconds: float,
    ) -> Encoded:
        mask, *rest = arrays
        cropped = {
            stage.name: photo.feed.cropped(values, stage.stride)
            for stage, values in zip(stages, rest, strict=False)
        }
        height, width = photo.feed.photo
        start = time.monotonic()
        labels, maps = photo.feed.of_photo(mask), Maps()
        if task.answer.maps.count:
            labels = resized_labels(labels, height, width)
            reader = ScoreReader(self.model, task.answer.maps, (height, width), blended=False)
            scores = rest[-1] if len(rest) > len(stages) else None
            maps = read_scores(scores, labels, photo.feed.whole, reader)
        found = Segmentation(
            self.model,
            width,
            height,
            labels,
            cropped,
            photo.decoded.pages,
            photo.decoded.whole,
            photo.decoded.profile,
            maps,
        )
        result = encode(found, task.name, task.answer)
        seconds = StageSeconds(
            decode=photo.seconds, infer=infer_seconds, encode=time.monotonic() - start
        )
        return replace(result, seconds=seconds)

    def _infer(
        self,
        outputs: tuple[str, ...],
        images: NDArray[np.uint8],
        stop: Stop,
        sized: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> list[NDArray[Any]]:
        """The outputs for ``images``; out of device memory, those of each half in turn."""
        stop.check()
        count = len(images)
        try:
            arrays = self.session.run(outputs, {"image": images, **sized}, options=stop.options)
        except Exception as error:
            if not _out_of_memory(error):
                raise
            if count == 1:
                raise DeviceFull from error
            halves = (
                self._infer(outputs, images[: count // 2], stop, sized),
                self._infer(outputs, images[count // 2 :], stop, sized),
            )
            return [np.concatenate(pair) for pair in zip(*halves, strict=True)]
        size = tuple(map(int, sized.get(MASK_SIZE, images.shape[1:3])))
        check_outputs(self.model, images.shape, size, dict(zip(outputs, arrays, strict=True)))
        return arrays


@dataclass(frozen=True)
class _Photo:
    feed: Feed
    decoded: Photo
    seconds: float


def load_segmenter(path: Path, *, name: str | None = None, threads: int = 1) -> Segmenter:
    """Load an ONNX file written by ``ppool export``, to run on the CPU.

    Raises:
        ValueError: if it cannot be served; the message says why.
    """
    try:
        snapshot = Snapshot(path)
    except OSError as error:
        raise ValueError(f"model: cannot read {str(path)!r}: {error.strerror or error}") from error
    try:
        return load_model(snapshot.file, name=name, threads=threads)
    finally:
        snapshot.close()


def load_model(
    file: ModelFile, *, name: str | None = None, threads: int = 1, providers: tuple[str, ...] = ()
) -> Segmenter:
    """Load a model from the bytes that were read of its file.

    Args:
        file: Where they are.
        name: What the model is called; ``None`` for its own name.
        threads: Inside one inference.
        providers: ONNX Runtime execution providers, best first; empty is the CPU.

    Raises:
        ValueError: if it cannot be served; the message says why.
    """
    try:
        session = make_session(file.location, intra_op_threads=threads, providers=providers or None)
    except Exception as error:  # ONNX Runtime has a dozen unrelated exception types
        reason = str(error).replace(str(file.location), file.path.name)
        raise ValueError(f"model: {str(file.path)!r} cannot be served: {reason}") from error
    provider = str(session.session.get_providers()[0])
    if providers and provider != providers[0]:
        raise ValueError(f"setting devices (PPOOL_DEVICES): no GPU can be used: {why_no_gpu()}")
    model = session.metadata.into(
        Model,
        name=name or session.metadata.name,
        file=file.path.name,
        sha256=file.sha256,
        provider=provider,
        kernels=session.kernels,
        kernels_reason=session.reason,
        modes=("resize", "tile") if session.offers_tiles else ("resize",),
        offers_scores=session.offers_logits,
    )
    return Segmenter(model, session)


def _out_of_memory(error: Exception) -> bool:
    # The words of CUDA and of ONNX Runtime's arenas; there is no exception type for it.
    text = str(error).lower()
    return "out of memory" in text or "failed to allocate memory" in text
