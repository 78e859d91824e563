"""From the bytes of a photo to its mask: decode and pad, wait for a worker, crop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ppool.metadata import InputPolicy
from service.batching import QueueFull, batch_ladder
from service.errors import NotReady, Overloaded, UnknownModel
from service.images import ImageLimits, decode
from service.metrics import BucketState, Metrics, WorkerState
from service.models import Model
from service.settings import Settings, usable_cores
from service.shapes import pad, padded_shape
from service.workers import Job, Journey, Workers, infer

__all__ = ["Engine", "Segmentation"]

R = TypeVar("R")

_WARM_SIDE = 256
_MAX_RETRY_SECONDS = 30


@dataclass(frozen=True)
class Segmentation:
    """What the network found in one photo, at the network's resolution.

    Attributes:
        model: The model that found it.
        width: Of the upright photo, in pixels.
        height: Of the upright photo, in pixels.
        mask: Class ids, uint8 [h, w]; the whole photo, reduced to the model's input policy.
        alpha: Pooling exponents by stage name, float32 [C, h, w]; empty unless asked for.
    """

    model: Model
    width: int
    height: int
    mask: NDArray[np.uint8]
    alpha: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class _Prepared:
    padded: NDArray[np.uint8]
    content: tuple[int, int]
    width: int
    height: int


class Engine:
    """Segments photos with the loaded models.

    ``phase`` goes from ``starting`` over ``ready`` to ``draining``.
    """

    def __init__(self, models: Mapping[str, Model], settings: Settings, metrics: Metrics) -> None:
        if not models:
            raise ValueError("models: expected at least one, got none")
        self.models = models
        self.settings = settings
        self.metrics = metrics
        self.phase: Literal["starting", "ready", "draining"] = "starting"
        self.limits = ImageLimits(
            settings.max_pixels, settings.max_side_pixels, settings.max_frames
        )
        self._workers = Workers(
            count=settings.workers,
            capacity=settings.queue_images,
            max_batch_size=settings.max_batch_size,
            metrics=metrics,
        )
        # Two pools, so that finished masks never queue behind photos that have yet to be decoded.
        self._decoders = ThreadPoolExecutor(usable_cores(), "decode")
        self._encoders = ThreadPoolExecutor(usable_cores(), "encode")
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.watch(self)

    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.phase == "ready"

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""
        return self._workers.backlog_seconds

    def buckets(self) -> list[BucketState]:
        """What waits, for the metrics."""
        return self._workers.buckets()

    def workers(self) -> list[WorkerState]:
        """Who works, for the metrics."""
        return self._workers.states()

    async def start(self) -> None:
        """Start the workers and run every model once, then be ready."""
        self._workers.start()
        await asyncio.to_thread(self._warm)
        if self.phase == "starting":
            self.phase = "ready"

    async def stop(self) -> None:
        """Finish what was accepted and release the threads."""
        self.phase = "draining"
        await self._idle.wait()
        await asyncio.to_thread(self._workers.close)
        self._decoders.shutdown()
        self._encoders.shutdown()

    def model(self, name: str | None) -> Model:
        """The model called ``name``; the first one for ``None``.

        Raises:
            UnknownModel: if there is none of that name.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise UnknownModel(f"No model is called {name!r}; loaded: {known}.")
        return self.models[name]

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Hold a place for one request, before anything of it is read.

        Raises:
            NotReady: before the first model is warm.
            Overloaded: if all places are taken, or no image could wait for a worker.
        """
        if self.phase == "starting":
            raise NotReady("The model is still warming up. Retry in a second.")
        if self._in_flight >= self.settings.max_requests:
            raise self._overloaded("requests")
        if self._workers.full:
            raise self._overloaded("queue")
        self._in_flight += 1
        self._idle.clear()
        self.metrics.in_flight.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.dec()
            if not self._in_flight:
                self._idle.set()

    async def segment(
        self, data: bytes, model: Model, journey: Journey, *, alpha: bool, deadline: float
    ) -> Segmentation:
        """Segment one photo file; cancelling takes it out of the queue.

        Args:
            data: The photo file.
            model: Which model to use.
            journey: Notes the stage reached and the seconds spent.
            alpha: Whether to compute the alpha maps too. The mask is the same either way.
            deadline: In seconds of ``time.monotonic``; not run after it.

        Raises:
            ServiceError: of the class that says what went wrong.
        """
        policy = model.metadata.input
        journey.stage, start = "decode", time.monotonic()
        prepared = await self._in(self._decoders, lambda: _prepare(data, self.limits, policy))
        journey.seconds["decode"] = time.monotonic() - start
        stages = model.metadata.stages if alpha else ()
        height, width = prepared.content
        job = Job(model, prepared.padded, height * width, journey)
        try:
            ticket = self._workers.submit(job, ("mask", *(s.output for s in stages)), deadline)
        except QueueFull:
            raise self._overloaded("queue") from None
        try:
            mask, *alphas = await asyncio.wrap_future(job.result)
        finally:
            self._workers.cancel(ticket)
        cropped = {
            stage.name: values[:, : -(-height // stage.stride), : -(-width // stage.stride)]
            for stage, values in zip(stages, alphas, strict=True)
        }
        return Segmentation(model, prepared.width, prepared.height, mask[:height, :width], cropped)

    async def encode(self, work: Callable[[], R]) -> R:
        """Run ``work`` on an encoder thread."""
        return await self._in(self._encoders, work)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _overloaded(self, reason: str) -> Overloaded:
        self.metrics.refused.labels(reason).inc()
        seconds = math.ceil(self._workers.backlog_seconds)
        return Overloaded(reason, min(max(seconds, 1), _MAX_RETRY_SECONDS))

    def _warm(self) -> None:
        for model in self.models.values():
            policy = model.metadata.input
            side = min(_WARM_SIDE, policy.max_side)
            pixels = np.zeros((*padded_shape(side, side, policy), 3), np.uint8)
            job = Job(model, pixels, pixels.size // 3, Journey())
            outputs = ("mask", *(stage.output for stage in model.metadata.stages))
            for size in batch_ladder(self.settings.max_batch_size):
                infer([job] * size, outputs)


def _prepare(data: bytes, limits: ImageLimits, policy: InputPolicy) -> _Prepared:
    photo = decode(data, limits, policy)
    pixels: NDArray[Any] = np.asarray(photo.image)
    height, width = pixels.shape[:2]
    return _Prepared(pad(pixels, policy), (height, width), photo.width, photo.height)
