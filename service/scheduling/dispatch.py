"""Between the queue and the workers: who runs which batch, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ppool.service.codecs.answers import Encoded, Stage
from ppool.service.codecs.errors import CodecError
from ppool.service.codecs.images import ImageLimits
from ppool.service.http.errors import DeadlinePassed, InternalError, NotReady, ServiceError
from ppool.service.metrics import BucketState, Metrics
from ppool.service.scheduling.batcher import Batch, Batcher, Limits, Ticket
from ppool.service.scheduling.costs import Costs
from ppool.service.settings import Settings
from ppool.service.workers.fleet import Fleet, Served
from ppool.service.workers.messages import Run, Task
from ppool.service.workers.supervision import Worker, WorkerLost

__all__ = ["Dispatcher", "Item", "Journey", "Key"]

# A photo that was in this many crashes may well be their cause.
_MAX_ATTEMPTS = 3
# A worker this close to the end of its batch is given the next one. It would stand idle otherwise
# until the answer has come here and the next photo gone there, which took about 1 of 9 ms.
_NEARLY_SECONDS = 0.02

_logger = logging.getLogger("ppool.service")


@dataclass
class Journey:
    """How far one image has come."""

    stage: Stage = "receive"


class Key(NamedTuple):
    """What the images of one batch have in common."""

    handle: int
    model: str
    height: int
    width: int
    alpha: bool
    tile: bool = False


@dataclass(eq=False)
class Item:
    """One image: what to do, for whom, and how often that was tried; ``content`` is in pixels."""

    task: Task
    served: Served
    content: int
    journey: Journey
    result: asyncio.Future[Encoded]
    attempts: int = 0
    ticket: Ticket[Key, Item] | None = field(default=None, repr=False)


@dataclass(eq=False)
class _Given:
    """A batch at a worker since ``start``; not ``running`` while another is before it there.

    ``alone`` if there was no other, neither under way nor waiting, and it gets more threads.
    """

    worker: Worker
    batch: Batch[Key, Item]
    start: float
    running: bool
    alone: bool


class Dispatcher:
    """Queues images and hands them to the workers. Everything happens on one event loop."""

    def __init__(
        self, fleet: Fleet, settings: Settings, limits: ImageLimits, metrics: Metrics
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._limits = limits
        self._metrics = metrics
        self._costs: Costs[Key] = Costs(_cost_size)
        self._given: list[_Given] = []
        self._release: asyncio.TimerHandle | None = None
        self.renew()

    def renew(self) -> None:
        """Start over with an empty queue, for the batch size of the fleet's plan."""
        settings, lanes = self._settings, max(self._fleet.lanes, 1)
        limits = Limits(settings.queue_images, settings.queue_bytes, self._fleet.plan.batch)
        self._batcher: Batcher[Key, Item] = Batcher(limits, self._costs, time.monotonic, lanes)

    def learn(self, served: Served, shape: tuple[int, int], images: int, seconds: float) -> None:
        """Note what a batch took while warming up."""
        key = Key(served.handle, served.model.name, *shape, alpha=False)
        self._costs.observe(key, images, seconds)

    def check(self, deadline: float) -> None:
        """Refuse what :meth:`push` would refuse whatever the image.

        Raises:
            QueueRefusal: as :meth:`push`.
        """
        self._batcher.check(deadline)

    def push(self, key: Key, item: Item, size: int, deadline: float) -> None:
        """Queue an image of ``size`` decoded bytes; its ``result`` is set in the end.

        Raises:
            QueueRefusal: when too much waits, or the deadline would pass first.
        """
        item.ticket = self._batcher.push(key, item, size=size, deadline=deadline)

    def cancel(self, item: Item) -> None:
        """Take an image out of the queue, if it still waits."""
        if item.ticket is not None:
            self._batcher.cancel(item.ticket)

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""
        return self._batcher.wait_seconds()

    def buckets(self) -> Iterable[BucketState]:
        """What waits."""
        found: dict[tuple[str, str], tuple[int, float]] = {}
        for key, depth, age in self._batcher.waiting():
            place = key.model, f"{key.width}x{key.height}"
            # With alpha and without are two buckets, but one series.
            others, oldest = found.get(place, (0, 0.0))
            found[place] = depth + others, max(age, oldest)
        for place, state in found.items():
            yield BucketState(*place, *state)

    def workers_changed(self) -> None:
        """Go on with the workers that are up now."""
        self._batcher.lanes = max(self._fleet.lanes, 1)
        self.dispatch()

    def dispatch(self) -> None:
        """Give a batch to every worker that is free or nearly so."""
        while worker := self._fleet.free() or self._nearly_free():
            ahead = worker.busy == worker.lanes
            batch = self._batcher.take(ahead=ahead)
            if batch is None:
                break
            for ticket in batch.expired:
                _fail(ticket.item, DeadlinePassed("queue"))
            if batch.tickets:
                alone = (
                    not self._given
                    and not len(self._batcher)
                    and self._fleet.alone_threads(worker) > 0
                )
                self._give(_Given(worker, batch, time.monotonic(), not ahead, alone))
        if self._release is not None:
            self._release.cancel()
            self._release = None
        # Where no worker is free, the next one to become so looks again.
        if self._fleet.free() and (moment := self._batcher.release_at()) is not None:
            self._release = asyncio.get_running_loop().call_later(
                moment - time.monotonic(), self.dispatch
            )

    def _nearly_free(self) -> Worker | None:
        """The worker that will be done next, and soon, and has nothing to do after that.

        Not where batches pay: the longer one waits, the fuller it gets.
        """
        if self._fleet.plan.batch > 1:
            return None
        now = time.monotonic()
        ends = {
            given.worker: end
            for given in self._given
            if given.worker.up
            and given.worker.busy == given.worker.lanes == 1
            and (end := self._batcher.ends(given.batch)) is not None
            # What should be done long ago may well be stuck.
            and abs(end - now) < _NEARLY_SECONDS
        }
        return min(ends, key=ends.__getitem__, default=None)

    def _give(self, given: _Given) -> None:
        tickets = given.batch.tickets
        for ticket in tickets:
            ticket.item.journey.stage = "infer" if given.running else "queue"
        tasks = tuple(ticket.item.task for ticket in tickets)
        given.worker.busy += 1
        self._given.append(given)
        reply = given.worker.send(Run(tickets[0].key.handle, tasks, self._limits, given.alone))
        reply.add_done_callback(partial(self._answered, given))

    def _answered(self, given: _Given, reply: asyncio.Future[Any]) -> None:
        given.worker.busy -= 1
        self._given.remove(given)
        batch, error, now = given.batch, reply.exception(), time.monotonic()
        if not isinstance(error, WorkerLost):
            self._begin_next(given.worker, now)
        if error is None:
            # With all cores to itself it says nothing of the time that it takes among others.
            self._batcher.done(batch, None if given.alone else now - given.start)
            self._deliver(batch, given.start, reply.result())
        else:
            self._batcher.done(batch, None)
            if not isinstance(error, WorkerLost):
                _logger.error("inference failed: %s", error)
            for ticket in batch.tickets:
                if isinstance(error, WorkerLost) and not ticket.item.result.done():
                    self._retry(ticket, suspect=given.running)
                else:
                    _fail(ticket.item, InternalError())
        self.dispatch()

    def _begin_next(self, worker: Worker, now: float) -> None:
        """Note that ``worker`` goes on with what it was given ahead."""
        for given in self._given:
            if given.worker is worker and not given.running:
                given.start, given.running = now, True
                self._batcher.begin(given.batch)
                for ticket in given.batch.tickets:
                    ticket.item.journey.stage = "infer"

    def _retry(self, ticket: Ticket[Key, Item], *, suspect: bool) -> None:
        """Try again what a worker died with; ``suspect`` if it was at work on it."""
        item = ticket.item
        item.attempts += suspect
        if item.attempts == _MAX_ATTEMPTS:
            _logger.error("%d workers died of the same photo", item.attempts)
            _fail(item, InternalError())
        elif item.served.handle not in self._fleet.handles():
            # Its model was swapped meanwhile, so a new worker would not know it.
            _fail(item, NotReady("The model was replaced meanwhile. Send the image again."))
        else:
            item.journey.stage = "queue"
            item.ticket = self._batcher.retry(ticket, lone=suspect or ticket.lone)

    def _deliver(
        self,
        batch: Batch[Key, Item],
        start: float,
        results: list[Encoded | CodecError | ServiceError],
    ) -> None:
        key = batch.tickets[0].key
        images = len(batch.tickets)
        content = sum(ticket.item.content for ticket in batch.tickets)
        self._metrics.batch_size.labels(key.model).observe(images)
        self._metrics.batch_fill.labels(key.model).observe(images / self._fleet.plan.batch)
        self._metrics.pad_waste.labels(key.model).observe(
            1 - content / (images * key.height * key.width)
        )
        for ticket, result in zip(batch.tickets, results, strict=True):
            if isinstance(result, (CodecError, ServiceError)):
                _fail(ticket.item, result)
            elif not ticket.item.result.done():
                result.seconds["queue"] = start - ticket.queued
                ticket.item.result.set_result(result)


def _cost_size(key: Key) -> tuple[Hashable, float]:
    return (key.handle, key.alpha, key.tile), float(key.height * key.width)


def _fail(item: Item, error: CodecError | ServiceError) -> None:
    if not item.result.done():
        item.result.set_exception(error)
