"""What the routes speak to: admission, the models, and the phases of the service."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from ppool.feeding import padded_shape, tiled_shape
from ppool.service.codecs.answers import Encoded
from ppool.service.codecs.images import ImageLimits, probe
from ppool.service.http.errors import NotReady, Overloaded, UnknownModel
from ppool.service.metrics import BucketState, Build, Metrics, WorkerState
from ppool.service.scheduling.batcher import QueueRefusal
from ppool.service.scheduling.dispatch import Dispatcher, Item, Journey, Key
from ppool.service.settings import Settings
from ppool.service.workers.fleet import Fleet, Served
from ppool.service.workers.launch import Launch, launch_process
from ppool.service.workers.messages import Task

__all__ = ["Engine"]

_logger = logging.getLogger("ppool.service")

Phase = Literal["starting", "ready", "draining"]

_MAX_RETRY_SECONDS = 30
# Reading the header of a larger file goes to a thread: a hostile one can take a while.
_PROBE_INLINE_BYTES = 128 * 1024

_VERSION = version("ppool")


class Engine:
    """Segments photos with the loaded models. Everything happens on one event loop.

    ``phase`` goes from ``starting`` over ``ready`` to ``draining``.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, launch: Launch = launch_process
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.phase: Phase = "starting"
        self.limits = ImageLimits(
            settings.max_pixels, settings.max_side_pixels, settings.max_frames
        )
        self.fleet = Fleet(settings, launch, self._workers_changed, self._learned, metrics)
        self._dispatcher = Dispatcher(self.fleet, settings, self.limits, metrics)
        self._in_flight = 0
        self._body_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._polling: asyncio.Task[None] | None = None
        metrics.watch(self)

    @property
    def status(self) -> Literal["starting", "ready", "draining", "no-worker"]:
        """The phase, or ``no-worker`` while none is up in the phase ``ready``."""
        return "no-worker" if self.phase == "ready" and not self.fleet.lanes else self.phase

    async def start(self) -> None:
        """Start the workers and load, measure and warm up every model; then be ready.

        Raises:
            ValueError: if a model cannot be served; the message says why.
        """
        await self.fleet.start()
        self._dispatcher.renew()
        if self.settings.reload_seconds:
            self._polling = asyncio.create_task(self._poll())
        if self.phase == "starting":
            self.phase = "ready"

    async def stop(self) -> None:
        """Finish what was accepted and end the workers."""
        self.phase = "draining"
        await self._idle.wait()
        if self._polling is not None:
            self._polling.cancel()
        await self.fleet.close()

    def served(self, name: str | None) -> Served:
        """The model called ``name``; the first one for ``None``.

        Raises:
            NotReady: before the models are warm.
            UnknownModel: if there is none of that name.
        """
        models = self.fleet.models
        if self.phase == "starting" or not models:
            raise NotReady("The model is still warming up. Retry in a second.")
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            known = ", ".join(models)
            raise UnknownModel(f"No model is called {name!r}; loaded: {known}.")
        return models[name]

    def describe(self, served: Served) -> dict[str, Any]:
        """The body of ``GET /models/{name}``."""
        fleet = self.fleet
        return {
            **served.model.describe(),
            "serving": {
                "devices": self.settings.devices,
                "workers": fleet.plan.workers,
                "threads": fleet.plan.threads,
                "max_batch_size": fleet.plan.batch,
                "measured": [
                    {
                        "workers": cell.plan.workers,
                        "threads": cell.plan.threads,
                        "batch": cell.plan.batch,
                        "images_per_second": round(cell.images_per_second, 1),
                    }
                    for cell in fleet.cells
                ],
            },
        }

    def announce(self, served: Served) -> str:
        """One line on a model and how it is run, for the log."""
        model, plan = served.model, self.fleet.plan
        classes = ", ".join(label.name for label in model.metadata.classes)
        return (
            f"model {model.name} ({model.file}): {classes}; {model.kernels} kernels on "
            f"{model.provider}, {plan.workers} workers x {plan.threads} threads, "
            f"batches up to {plan.batch}"
        )

    @contextmanager
    def admission(self, served: Served, deadline: float) -> Iterator[Callable[[int], None]]:
        """Hold a place for one request, before anything of it is read, and its model loaded.

        Under overload most requests end here, so that refusing them takes little from the others.

        Args:
            served: Stays loaded until the end, though a newer file may take its place meanwhile.
            deadline: In seconds of ``time.monotonic``.

        Yields:
            What to call with the number of bytes whenever some of the body have come. They count
            until the end; it raises ``Overloaded`` when all requests together hold too many.

        Raises:
            Overloaded: if all places are taken, or no image could wait for a worker.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._body_bytes += size
            # A lone body larger than the limit must still be served.
            if self._body_bytes > max(self.settings.queue_bytes, held):
                raise self._overloaded("bytes", self.queue_seconds())

        if self._in_flight >= self.settings.max_requests:
            raise self._overloaded("requests", self.queue_seconds())
        self._admit(partial(self._dispatcher.check, deadline))
        self._in_flight += 1
        self._idle.clear()
        self.metrics.in_flight.inc()
        self.fleet.acquire(served)
        try:
            yield hold
        finally:
            self._body_bytes -= held
            self.fleet.release(served)
            self._in_flight -= 1
            self.metrics.in_flight.dec()
            if not self._in_flight:
                self._idle.set()

    async def segment(
        self, task: Task, served: Served, journey: Journey, deadline: float
    ) -> Encoded:
        """Segment one photo file and encode the answer; cancelling takes it out of the queue.

        Args:
            task: The photo and the answer wanted.
            served: Which model to use; it is that of the request's :meth:`admission`.
            journey: Notes the stage reached.
            deadline: In seconds of ``time.monotonic``; not run after it.

        Raises:
            CodecError, ServiceError: of the class that says what went wrong.
        """
        if len(task.data) > _PROBE_INLINE_BYTES:
            width, height = await asyncio.to_thread(probe, task.data, self.limits)
        else:
            width, height = probe(task.data, self.limits)
        policy = served.model.metadata.input
        tile = task.answer.tile
        inner = (height, width) if tile else policy.reduced(height, width)
        padded = tiled_shape if tile else padded_shape
        key = Key(
            served.handle,
            served.model.name,
            *padded(*inner, policy),
            alpha=task.answer.alpha != "none",
            tile=tile,
        )
        result: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()
        item = Item(task, served, inner[0] * inner[1], journey, result)
        self._admit(partial(self._dispatcher.push, key, item, 3 * width * height, deadline))
        journey.stage = "queue"
        try:
            self._dispatcher.dispatch()
            return await result
        finally:
            self._dispatcher.cancel(item)

    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.status == "ready"

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""
        return self._dispatcher.queue_seconds()

    def buckets(self) -> Iterable[BucketState]:
        """What waits, for the metrics."""
        return self._dispatcher.buckets()

    def workers(self) -> Iterable[WorkerState]:
        """Who works, for the metrics."""
        for worker in self.fleet.workers:
            yield WorkerState(
                worker.name, worker.device, worker.up, worker.restarts, worker.memory_bytes()
            )

    def builds(self) -> Iterable[Build]:
        """What is served, for the metrics."""
        for name, served in self.fleet.models.items():
            yield Build(_VERSION, name, served.model.kernels, served.model.provider)

    def _workers_changed(self) -> None:
        self._dispatcher.workers_changed()

    def _learned(self, served: Served, shape: tuple[int, int], images: int, seconds: float) -> None:
        self._dispatcher.learn(served, shape, images, seconds)

    def _admit(self, ask: Callable[[], None]) -> None:
        try:
            ask()
        except QueueRefusal as refusal:
            raise self._overloaded(refusal.reason, refusal.retry_seconds) from None

    def _overloaded(self, reason: str, seconds: float) -> Overloaded:
        self.metrics.refused.labels(reason).inc()
        return Overloaded(reason, min(max(math.ceil(seconds), 1), _MAX_RETRY_SECONDS))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            try:
                await self.fleet.reload()
            except Exception:  # or it would be the last time that anyone looked
                _logger.exception("reload failed")
