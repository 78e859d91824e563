"""From a request to its masks: admission, the queue, and the workers that empty it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, TypeVar

from service.answers import Encoded, Stage
from service.batching import Batch, Batcher, Limits, QueueRefusal, Ticket
from service.costs import Costs
from service.errors import (
    DeadlinePassed,
    InternalError,
    NotReady,
    Overloaded,
    ServiceError,
    UnknownModel,
)
from service.fleet import Fleet, Served
from service.images import ImageLimits, probe
from service.metrics import BucketState, Build, Metrics, WorkerState
from service.protocol import Run, Task
from service.settings import Settings
from service.shapes import padded_shape, tiled_shape
from service.workers import Launch, Worker, WorkerLost, launch_process

__all__ = ["Engine", "Journey"]

Phase = Literal["starting", "ready", "draining"]

R = TypeVar("R")

_MAX_RETRY_SECONDS = 30
# A photo that was in this many crashes may well be their cause.
_MAX_ATTEMPTS = 3
# Reading the header of a larger file goes to a thread: a hostile one can take a while.
_PROBE_INLINE_BYTES = 128 * 1024

_VERSION = version("ppool")

_logger = logging.getLogger("ppool.service")


@dataclass
class Journey:
    """How far one image has come."""

    stage: Stage = "receive"


class _Key(NamedTuple):
    """What the images of one batch have in common."""

    handle: int
    model: str
    height: int
    width: int
    alpha: bool
    tile: bool = False


@dataclass(eq=False)
class _Item:
    """One image: what to do, for whom, and how often that was tried."""

    task: Task
    served: Served
    content: int
    journey: Journey
    result: asyncio.Future[Encoded]
    attempts: int = 0
    ticket: Ticket[_Key, _Item] | None = field(default=None, repr=False)


_Batch = Batch[_Key, _Item]


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
        self._costs: Costs[_Key] = Costs(_cost_size)
        self.fleet = Fleet(settings, launch, self._workers_changed, self._learned, metrics)
        self._batcher = self._new_batcher()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._release: asyncio.TimerHandle | None = None
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
        self._batcher = self._new_batcher()
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
        if self.phase == "starting":
            raise NotReady("The model is still warming up. Retry in a second.")
        models = self.fleet.models
        if name is None and models:
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
    def admission(self, deadline: float) -> Iterator[None]:
        """Hold a place for one request, before anything of it is read.

        Under overload most requests end here, so that refusing them takes little from the others.

        Args:
            deadline: In seconds of ``time.monotonic``.

        Raises:
            Overloaded: if all places are taken, or no image could wait for a worker.
        """
        if self._in_flight >= self.settings.max_requests:
            raise self._overloaded("requests", self.queue_seconds())
        self._admit(partial(self._batcher.check, deadline))
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
        self, task: Task, served: Served, journey: Journey, deadline: float
    ) -> Encoded:
        """Segment one photo file and encode the answer; cancelling takes it out of the queue.

        Args:
            task: The photo and the answer wanted.
            served: Which model to use.
            journey: Notes the stage reached.
            deadline: In seconds of ``time.monotonic``; not run after it.

        Raises:
            ServiceError: of the class that says what went wrong.
        """
        if len(task.data) > _PROBE_INLINE_BYTES:
            width, height = await asyncio.to_thread(probe, task.data, self.limits)
        else:
            width, height = probe(task.data, self.limits)
        policy = served.model.metadata.input
        tile = task.answer.tile
        inner = (height, width) if tile else policy.reduced(height, width)
        padded = tiled_shape if tile else padded_shape
        key = _Key(
            served.handle,
            served.model.name,
            *padded(*inner, policy),
            alpha=task.answer.alpha != "none",
            tile=tile,
        )
        result: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()
        item = _Item(task, served, inner[0] * inner[1], journey, result)
        push = partial(self._batcher.push, key, item, size=3 * width * height, deadline=deadline)
        item.ticket = self._admit(push)
        journey.stage = "queue"
        self.fleet.acquire(served)
        try:
            self._dispatch()
            return await result
        finally:
            self._batcher.cancel(item.ticket)
            self.fleet.release(served)

    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.status == "ready"

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""
        return self._batcher.wait_seconds()

    def buckets(self) -> Iterable[BucketState]:
        """What waits, for the metrics."""
        for key, depth, age in self._batcher.waiting():
            yield BucketState(key.model, f"{key.width}x{key.height}", depth, age)

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

    def _dispatch(self) -> None:
        """Give every free worker a batch."""
        while (worker := self.fleet.free()) and (batch := self._batcher.take()):
            for ticket in batch.expired:
                _fail(ticket.item, DeadlinePassed("queue"))
            if batch.tickets:
                self._give(worker, batch)
        if self._release is not None:
            self._release.cancel()
            self._release = None
        # Where no worker is free, the next one to become so looks again.
        if self.fleet.free() and (moment := self._batcher.release_at()) is not None:
            self._release = asyncio.get_running_loop().call_later(
                moment - time.monotonic(), self._dispatch
            )

    def _give(self, worker: Worker, batch: _Batch) -> None:
        now = time.monotonic()
        for ticket in batch.tickets:
            ticket.item.journey.stage = "infer"
        tasks = tuple(ticket.item.task for ticket in batch.tickets)
        worker.busy += 1
        reply = worker.send(Run(batch.tickets[0].key.handle, tasks, self.limits))
        reply.add_done_callback(partial(self._answered, worker, batch, now))

    def _answered(
        self, worker: Worker, batch: _Batch, start: float, reply: asyncio.Future[Any]
    ) -> None:
        worker.busy -= 1
        error = reply.exception()
        if error is None:
            self._batcher.done(batch, time.monotonic() - start)
            self._deliver(batch, start, reply.result())
        else:
            self._batcher.done(batch, None)
            if not isinstance(error, WorkerLost):
                _logger.error("inference failed: %s", error)
            for ticket in batch.tickets:
                if isinstance(error, WorkerLost) and not ticket.item.result.done():
                    self._retry(ticket)
                else:
                    _fail(ticket.item, InternalError())
        self._dispatch()

    def _retry(self, ticket: Ticket[_Key, _Item]) -> None:
        item = ticket.item
        item.attempts += 1
        if item.attempts == _MAX_ATTEMPTS:
            _logger.error("%d workers died of the same photo", item.attempts)
            _fail(item, InternalError())
        elif item.served.handle not in self.fleet.handles():
            # Its model was swapped meanwhile, so a new worker would not know it.
            _fail(item, NotReady("The model was replaced meanwhile. Send the image again."))
        else:
            item.journey.stage = "queue"
            item.ticket = self._batcher.retry(ticket)

    def _deliver(self, batch: _Batch, start: float, results: list[Encoded | ServiceError]) -> None:
        key = batch.tickets[0].key
        images = len(batch.tickets)
        content = sum(ticket.item.content for ticket in batch.tickets)
        self.metrics.batch_size.labels(key.model).observe(images)
        self.metrics.batch_fill.labels(key.model).observe(images / self.fleet.plan.batch)
        self.metrics.pad_waste.labels(key.model).observe(
            1 - content / (images * key.height * key.width)
        )
        for ticket, result in zip(batch.tickets, results, strict=True):
            if isinstance(result, ServiceError):
                _fail(ticket.item, result)
            elif not ticket.item.result.done():
                result.seconds["queue"] = start - ticket.queued
                ticket.item.result.set_result(result)

    def _new_batcher(self) -> Batcher[_Key, _Item]:
        settings = self.settings
        limits = Limits(settings.queue_images, settings.queue_bytes, self.fleet.plan.batch)
        return Batcher(limits, self._costs, time.monotonic, max(self.fleet.lanes, 1))

    def _workers_changed(self) -> None:
        self._batcher.lanes = max(self.fleet.lanes, 1)
        self._dispatch()

    def _learned(self, served: Served, shape: tuple[int, int], images: int, seconds: float) -> None:
        key = _Key(served.handle, served.model.name, *shape, alpha=False)
        self._costs.observe(key, images, seconds)

    def _admit(self, ask: Callable[[], R]) -> R:
        try:
            return ask()
        except QueueRefusal as refusal:
            raise self._overloaded(refusal.reason, refusal.retry_seconds) from None

    def _overloaded(self, reason: str, seconds: float) -> Overloaded:
        self.metrics.refused.labels(reason).inc()
        return Overloaded(reason, min(max(math.ceil(seconds), 1), _MAX_RETRY_SECONDS))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            await self.fleet.reload()


def _cost_size(key: _Key) -> tuple[Hashable, float]:
    return (key.handle, key.alpha, key.tile), float(key.height * key.width)


def _fail(item: _Item, error: ServiceError) -> None:
    if not item.result.done():
        item.result.set_exception(error)
