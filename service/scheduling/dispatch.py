"""Between the queue and the workers: who runs which batch, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from ppool.service.errors import Abandoned, Refused, Replaced, TooLate, WorkerLost
from ppool.service.metrics import BucketState, Metrics
from ppool.service.scheduling.batcher import Batch, Batcher, Limits, Ticket
from ppool.service.scheduling.costs import Costs
from ppool.service.settings import Settings
from ppool.service.timing import Progress
from ppool.service.workers.messages import Run, Task
from ppool.service.workers.pool import WorkerPool
from ppool.service.workers.supervision import Worker

__all__ = ["Dispatcher", "Done", "Item", "Key"]

# A photo that was in this many crashes may well be their cause.
_MAX_ATTEMPTS = 3

# The worst credible time of a batch. On a machine that others keep busy it may take many times what
# was learned; reading and writing the largest photos takes seconds besides.
_LEAST_SECONDS, _TIMES, _BYTES_A_SECOND = 10.0, 20.0, 5e6
# What nobody waits for any more is stopped at the next operator; one that takes longer is stuck.
_GRACE_SECONDS = 5.0

_logger = logging.getLogger("ppool.service")


class Key(NamedTuple):
    """What the images of one batch have in common."""

    handle: int
    model: str
    height: int
    width: int
    alpha: bool
    tile: bool = False
    scores: bool = False


class Done(NamedTuple):
    """What a worker answered for one image, and the seconds that it had waited before."""

    answer: Any
    queue_seconds: float


class Models(Protocol):
    """What is to be known of the models: those of ``ppool.service.workers.registry``."""

    def serves(self, handle: int) -> bool:
        """Whether a new worker would have this one."""

    def lone(self, worker: Worker, handle: int) -> int:
        """The number under which ``worker`` runs an image that is alone."""


@dataclass(eq=False)
class Item:
    """One image: what to do, for whom, and how often that was tried; ``content`` is in pixels."""

    task: Task
    content: int
    progress: Progress
    result: asyncio.Future[Done]
    attempts: int = 0
    ticket: Ticket[Key, Item] | None = field(default=None, repr=False)
    flight: _InFlight | None = field(default=None, repr=False)


@dataclass(eq=False)
class _InFlight:
    """A batch at a worker since ``start``; not ``running`` while another is before it there.

    It runs under ``handle``, which is another than its key's where it has all cores to itself.
    ``given_up`` says that nobody waits for its ``reply``.
    """

    worker: Worker
    batch: Batch[Key, Item]
    handle: int
    start: float
    running: bool
    reply: asyncio.Future[Any] = field(init=False, repr=False)
    given_up: bool = False

    def give_up_unless_wanted(self) -> None:
        """Stop what runs for nobody; what has not begun is short."""
        wanted = any(not ticket.item.result.done() for ticket in self.batch.tickets)
        if self.running and not (wanted or self.given_up):
            self.given_up = True
            self.worker.give_up(self.reply, _GRACE_SECONDS)


class Dispatcher:
    """Queues images and hands them to the workers. Everything happens on one event loop.

    Args:
        pool: The workers, and how large their batches are.
        models: Known to them.
        settings: What may wait.
        metrics: Of the batches.
        clock: Seconds; deadlines are by it.

    Attributes:
        ahead_seconds: A worker this close to the end of its batch is given the next one. It would
            stand idle otherwise until the answer has come here and the next photo gone there.
    """

    def __init__(
        self,
        pool: WorkerPool,
        models: Models,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._models = models
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self.ahead_seconds = 0.02
        self._costs: Costs[Key] = Costs(_cost_size)
        self._in_flight: list[_InFlight] = []
        self._release: asyncio.TimerHandle | None = None
        self.renew()

    def renew(self) -> None:
        """Start over with an empty queue, for the batch size of the pool's plan."""
        settings, lanes = self._settings, max(self._pool.lanes, 1)
        limits = Limits(settings.queue_images, settings.queue_bytes, self._pool.plan.batch)
        self._batcher: Batcher[Key, Item] = Batcher(limits, self._costs, self._clock, lanes)

    def learn(self, key: Key, images: int, seconds: float) -> None:
        """Note what a batch took while warming up."""
        self._costs.observe(key, images, seconds)

    def forget(self, handle: int) -> None:
        """Drop what was learned of a model."""
        self._costs.forget(lambda family: family[0] == handle)

    def check(self, deadline: float) -> None:
        """Refuse what :meth:`push` would refuse whatever the image.

        Raises:
            Refused: as :meth:`push`.
        """
        with self._counted():
            self._batcher.check(deadline)

    def push(self, key: Key, item: Item, size: int, deadline: float) -> None:
        """Queue an image of ``size`` decoded bytes; its ``result`` is set in the end.

        Raises:
            Refused: when too much waits, or the deadline would pass first.
        """
        with self._counted():
            item.ticket = self._batcher.push(key, item, size=size, deadline=deadline)

    def cancel(self, item: Item) -> None:
        """Take an image out of the queue, if it still waits, or out of the batch it runs in."""
        if item.ticket is not None:
            self._batcher.cancel(item.ticket)
        if item.flight is not None:
            item.flight.give_up_unless_wanted()

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""
        return self._batcher.wait_seconds()

    def buckets(self) -> Iterable[BucketState]:
        """What waits."""
        found: dict[tuple[str, str], tuple[int, float]] = {}
        for key, depth, age in self._batcher.waiting():
            place = key.model, f"{key.width}x{key.height}"
            # With alpha and without are two buckets, but one series; so with scores.
            others, oldest = found.get(place, (0, 0.0))
            found[place] = depth + others, max(age, oldest)
        for place, state in found.items():
            yield BucketState(*place, *state)

    def workers_changed(self) -> None:
        """Go on with the workers that are up now."""
        self._batcher.lanes = max(self._pool.lanes, 1)
        self.dispatch()

    def dispatch(self) -> None:
        """Give a batch to every worker that is free or nearly so."""
        while worker := self._pool.free() or self._nearly_free():
            ahead = worker.busy == worker.lanes
            batch = self._batcher.take(ahead=ahead)
            if batch is None:
                break
            for ticket in batch.expired:
                _fail(ticket.item, TooLate())
            if batch.tickets:
                handle = batch.tickets[0].key.handle
                if not self._in_flight and not len(self._batcher):
                    handle = self._models.lone(worker, handle)
                self._give(_InFlight(worker, batch, handle, self._clock(), not ahead))
        if self._release is not None:
            self._release.cancel()
            self._release = None
        # Where no worker is free, the next one to become so looks again.
        if self._pool.free() and (moment := self._batcher.release_at()) is not None:
            self._release = asyncio.get_running_loop().call_later(
                moment - self._clock(), self.dispatch
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self._metrics.refused.labels(refusal.reason).inc()
            raise

    def _nearly_free(self) -> Worker | None:
        """The worker that will be done next, and soon, and has nothing to do after that.

        Not where batches pay: the longer one waits, the fuller it gets.
        """
        if self._pool.plan.batch > 1:
            return None
        now = self._clock()
        ends = {
            flight.worker: end
            for flight in self._in_flight
            if flight.worker.up
            and flight.worker.busy == flight.worker.lanes == 1
            and (end := self._batcher.ends(flight.batch)) is not None
            # What should be done long ago may well be stuck.
            and abs(end - now) < self.ahead_seconds
        }
        return min(ends, key=ends.__getitem__, default=None)

    def _give(self, flight: _InFlight) -> None:
        tickets = flight.batch.tickets
        for ticket in tickets:
            ticket.item.progress.stage = "infer" if flight.running else "queue"
            ticket.item.flight = flight
        tasks = tuple(ticket.item.task for ticket in tickets)
        flight.worker.busy += 1
        self._in_flight.append(flight)
        flight.reply = flight.worker.send(Run(flight.handle, tasks), self._patience(flight.batch))
        flight.reply.add_done_callback(partial(self._answered, flight))

    def _answered(self, flight: _InFlight, reply: asyncio.Future[Any]) -> None:
        flight.worker.busy -= 1
        self._in_flight.remove(flight)
        batch, error, now = flight.batch, reply.exception(), self._clock()
        for ticket in batch.tickets:
            ticket.item.flight = None
        if not isinstance(error, WorkerLost):
            self._begin_next(flight.worker, now)
        if flight.given_up:
            # How long it would have taken is not known, but that it was no less.
            spent = now - flight.start
            least = spent if spent > self._expected(batch) else None
            self._batcher.done(batch, least, wasted_seconds=spent)
        elif error is None:
            # With all cores to itself it says nothing of the time that it takes among others.
            usual = flight.handle == batch.tickets[0].key.handle
            self._batcher.done(batch, now - flight.start if usual else None)
            self._deliver(batch, flight.start, reply.result())
        else:
            self._batcher.done(batch, None)
            if not isinstance(error, WorkerLost):
                _logger.error("inference failed: %s", error)
            for ticket in batch.tickets:
                if isinstance(error, WorkerLost) and not ticket.item.result.done():
                    self._retry(ticket, suspect=flight.running)
                else:
                    _fail(ticket.item, Abandoned())
        self.dispatch()

    def _expected(self, batch: Batch[Key, Item]) -> float:
        return self._costs.seconds(batch.tickets[0].key, len(batch.tickets))

    def _patience(self, batch: Batch[Key, Item]) -> float:
        """For how many seconds a worker that does not answer is not taken to be stuck."""
        expected = self._expected(batch)
        size = sum(ticket.size for ticket in batch.tickets)
        worst = _LEAST_SECONDS + _TIMES * expected + size / _BYTES_A_SECOND
        if expected:
            return worst
        # Nothing is known of this model's pace, and large networks take longer than the least.
        wanted = max(ticket.deadline for ticket in batch.tickets) - self._clock()
        return max(worst, wanted)

    def _begin_next(self, worker: Worker, now: float) -> None:
        """Note that ``worker`` goes on with what it was given ahead."""
        for flight in self._in_flight:
            if flight.worker is worker and not flight.running:
                flight.start, flight.running = now, True
                self._batcher.begin(flight.batch)
                for ticket in flight.batch.tickets:
                    ticket.item.progress.stage = "infer"
                flight.give_up_unless_wanted()

    def _retry(self, ticket: Ticket[Key, Item], *, suspect: bool) -> None:
        """Try again what a worker died with; ``suspect`` if it was at work on it."""
        item = ticket.item
        item.attempts += suspect
        if item.attempts == _MAX_ATTEMPTS:
            _logger.error("%d workers died of the same photo", item.attempts)
            _fail(item, Abandoned())
        elif not self._models.serves(ticket.key.handle):
            _fail(item, Replaced())  # a new worker would not know it
        else:
            item.progress.stage = "queue"
            item.ticket = self._batcher.retry(ticket, lone=suspect or ticket.lone)

    def _deliver(self, batch: Batch[Key, Item], start: float, answers: list[Any]) -> None:
        key = batch.tickets[0].key
        images = len(batch.tickets)
        content = sum(ticket.item.content for ticket in batch.tickets)
        self._metrics.statistics[key.model].batches[images].add(self._clock() - start)
        self._metrics.batch_size.labels(key.model).observe(images)
        self._metrics.batch_fill.labels(key.model).observe(images / self._pool.plan.batch)
        self._metrics.pad_waste.labels(key.model).observe(
            1 - content / (images * key.height * key.width)
        )
        for ticket, answer in zip(batch.tickets, answers, strict=True):
            if isinstance(answer, Exception):
                _fail(ticket.item, answer)
            elif not ticket.item.result.done():
                ticket.item.result.set_result(Done(answer, start - ticket.queued))


def _cost_size(key: Key) -> tuple[Hashable, float]:
    return (key.handle, key.alpha, key.tile, key.scores), float(key.height * key.width)


def _fail(item: Item, error: Exception) -> None:
    if not item.result.done():
        item.result.set_exception(error)
