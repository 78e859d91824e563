"""Which waiting images run next: the whole batching policy, with no thread, loop or wall clock.

Images wait in buckets of equal key (model, padded shape, outputs wanted), the earliest deadline
first. A worker that is free takes the bucket with the earliest deadline and fills its batch from
there. Learned costs say what is refused at once because it could not be done in time, and where a
bucket may wait a moment for company.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from math import inf
from typing import Any, Generic, TypeVar

from ppool.service.errors import Refused
from ppool.service.scheduling.costs import Costs

__all__ = ["Batch", "Batcher", "Limits", "Ticket", "batch_ladder"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# What is accepted should be done in time even when the next batches take this much longer. With a
# quarter, 6 of 132 accepted requests were late on a machine that others kept busy.
_MARGIN = 1.5
# Sharing the fixed cost must save this share of a lone image's time to be worth a wait.
_PAYS = 0.25
# What took up a lane in vain is not tried again before so many times as long has passed.
_REST = 10.0
# Keys whose arrivals are remembered, the latest; of others company is not expected anyway.
_PACES = 256


@dataclass(frozen=True)
class Limits:
    """What may wait, and how large a batch may be."""

    images: int
    bytes: int
    batch_size: int


@dataclass(frozen=True, eq=False)
class Ticket(Generic[K, T]):
    """One image waiting: its bucket, what to run, its decoded bytes, and when it is too late.

    ``queued`` and ``deadline`` are seconds of the batcher's clock. A ``lone`` ticket shares its
    batch with no other.
    """

    key: K
    item: T
    size: int
    queued: float
    deadline: float
    lone: bool = False
    order: int = 0


@dataclass(frozen=True, eq=False)
class Batch(Generic[K, T]):
    """What a worker does next: ``tickets`` to run together and ``expired`` ones to refuse."""

    tickets: tuple[Ticket[K, T], ...]
    expired: tuple[Ticket[K, T], ...] = ()


@dataclass
class _Pace:
    """When the last image of a key arrived, and the mean time between two; seconds."""

    arrived: float
    gap: float = inf


def batch_ladder(max_batch_size: int) -> tuple[int, ...]:
    """The batch sizes in use: powers of two and the maximum, so that few shapes need warming.

    Example:
        >>> batch_ladder(6)
        (1, 2, 4, 6)
    """
    powers = (1 << power for power in range(max_batch_size.bit_length()))
    return tuple(sorted({*powers, max_batch_size}))


class Batcher(Generic[K, T]):
    """A bounded queue in buckets. Not safe for threads.

    Attributes:
        lanes: How many batches can run at a time, for the estimates.
    """

    def __init__(
        self, limits: Limits, costs: Costs[K], clock: Callable[[], float], lanes: int = 1
    ) -> None:
        self._limits = limits
        self._costs = costs
        self._clock = clock
        self._ladder = batch_ladder(limits.batch_size)
        self.lanes = lanes
        # Only those in which something waits: there is no end to the shapes that may come.
        self._buckets: dict[K, list[Ticket[K, T]]] = {}
        self._paces: dict[K, _Pace] = {}
        self._running: dict[Batch[K, T], float] = {}
        self._ahead: dict[Batch[K, T], float] = {}
        self._order = count()
        self._resting_until = -inf
        self._waiting = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._waiting

    def check(self, deadline: float) -> None:
        """Refuse what :meth:`push` would refuse whatever the image.

        Raises:
            Refused: as :meth:`push`.
        """
        wait = self.wait_seconds()
        if self._waiting >= self._limits.images:
            raise Refused("queue", wait)
        if self._bytes >= self._limits.bytes:
            raise Refused("bytes", wait)
        self._refuse_late(wait, deadline)

    def wait_seconds(self) -> float:
        """About how long an image that came now would wait for a worker."""
        if not self._waiting and len(self._running) < self.lanes:
            return 0.0
        now = self._clock()
        ahead = sum(max(end - now, 0.0) for end in self._running.values())
        ahead += sum(self._ahead.values())
        ahead += sum(self._seconds(key, len(waiting)) for key, waiting in self._buckets.items())
        return ahead / max(self.lanes, 1)

    def push(self, key: K, item: T, *, size: int, deadline: float) -> Ticket[K, T]:
        """Let ``item`` of ``size`` decoded bytes wait in the bucket ``key``.

        Raises:
            Refused: when too much waits, or the deadline would pass first.
        """
        wait = self.wait_seconds()
        if self._waiting >= self._limits.images:
            raise Refused("queue", wait)
        # A lone image larger than the limit must still be served.
        if self._waiting and self._bytes + size > self._limits.bytes:
            raise Refused("bytes", wait)
        # Idle, it tries even what seems too slow, or one stall would be remembered for ever; but
        # not again and again, or others would find no lane free.
        if wait or self._running or self._clock() < self._resting_until:
            self._refuse_late(wait + self._costs.seconds(key, 1), deadline)
        now = self._clock()
        ticket = Ticket(key, item, size, now, deadline, order=next(self._order))
        self._insert(ticket)
        self._note_arrival(key, now)
        return ticket

    def cancel(self, ticket: Ticket[K, T]) -> None:
        """Take ``ticket`` out, if it still waits."""
        waiting = self._buckets.get(ticket.key, [])
        if ticket in waiting:
            self._leave(ticket.key, [ticket])

    def take(self, *, ahead: bool = False) -> Batch[K, T] | None:
        """The next batch, or ``None`` when nothing is to be run now.

        With only expired tickets left, ``tickets`` is empty. Everything taken is to be given to
        :meth:`done` when it has run.

        Args:
            ahead: It is to run when its lane has finished another; :meth:`begin` says when.
        """
        expired = self._drop_expired()
        now = self._clock()
        ready = [
            (waiting[0].deadline, key)
            for key, waiting in self._buckets.items()
            if self._held_until(key, waiting) <= now
        ]
        if not ready:
            return Batch((), expired) if expired else None
        key = min(ready, key=lambda entry: entry[0])[1]
        waiting = self._buckets[key]
        lone = next((i for i, ticket in enumerate(waiting) if ticket.lone), len(waiting))
        size = max((size for size in self._ladder if size <= lone), default=1)
        tickets = tuple(waiting[:size])
        self._leave(key, tickets)
        batch = Batch(tickets, expired)
        self._ahead[batch] = self._costs.seconds(key, size)
        if not ahead:
            self.begin(batch)
        return batch

    def begin(self, batch: Batch[K, T]) -> None:
        """Note that ``batch``, taken ahead, runs from now on."""
        self._running[batch] = self._clock() + self._ahead.pop(batch)

    def ends(self, batch: Batch[K, T]) -> float | None:
        """When, by the clock, ``batch`` should be done; ``None`` if it does not run yet."""
        return self._running.get(batch)

    def done(
        self, batch: Batch[K, T], seconds: float | None, *, wasted_seconds: float = 0.0
    ) -> None:
        """Note that ``batch`` has run in ``seconds``; ``None``: learn nothing of that.

        Args:
            batch: What was taken.
            seconds: That it took.
            wasted_seconds: That it ran, if it was given up.
        """
        if wasted_seconds:
            self._resting_until = self._clock() + _REST * wasted_seconds
        if self._running.pop(batch, None) is None:
            del self._ahead[batch]
        if seconds is not None and batch.tickets:
            self._costs.observe(batch.tickets[0].key, len(batch.tickets), seconds)

    def retry(self, ticket: Ticket[K, T], *, lone: bool) -> Ticket[K, T]:
        """Let a ticket whose batch was lost wait again; ``lone`` if it may be what killed it."""
        again = replace(ticket, lone=lone)
        self._insert(again)
        return again

    def release_at(self) -> float | None:
        """From when on, by the clock, a bucket that waits for company may run alone.

        That moment may have passed since :meth:`take` found nothing to run.
        """
        return min((self._held_until(*entry) for entry in self._buckets.items()), default=None)

    def waiting(self) -> list[tuple[K, int, float]]:
        """Every bucket with its length and the age of its oldest image in seconds."""
        now = self._clock()
        return [
            (key, len(waiting), now - _oldest(waiting)) for key, waiting in self._buckets.items()
        ]

    def _refuse_late(self, seconds: float, deadline: float) -> None:
        late = self._clock() + _MARGIN * seconds - deadline
        if late > 0:
            raise Refused("deadline", late)

    def _seconds(self, key: K, images: int) -> float:
        whole, rest = divmod(images, self._limits.batch_size)
        seconds = whole * self._costs.seconds(key, self._limits.batch_size)
        for size in reversed(self._ladder):
            pieces, rest = divmod(rest, size)
            seconds += pieces * self._costs.seconds(key, size)
        return seconds

    def _held_until(self, key: K, waiting: Sequence[Ticket[K, T]]) -> float:
        """Until when a bucket waits for company: as long as its fixed cost, from its first image.

        Only where sharing that cost pays, only while images come so fast that one more is due by
        then, and only if the first deadline allows it.
        """
        first = _oldest(waiting)
        if len(waiting) >= self._limits.batch_size or waiting[0].lone:
            return first
        pace = self._paces.get(key)
        each, fixed = self._costs.line(key)
        if fixed < _PAYS * (each + fixed) or pace is None or pace.gap > fixed:
            return first
        run = _MARGIN * self._costs.seconds(key, len(waiting) + 1)
        return min(first + fixed, max(waiting[0].deadline - run, first))

    def _insert(self, ticket: Ticket[K, T]) -> None:
        waiting = self._buckets.setdefault(ticket.key, [])
        insort(waiting, ticket, key=lambda other: (other.deadline, other.order))
        self._waiting += 1
        self._bytes += ticket.size

    def _leave(self, key: K, tickets: Iterable[Ticket[K, T]]) -> None:
        waiting = self._buckets[key]
        for ticket in tickets:
            waiting.remove(ticket)
            self._waiting -= 1
            self._bytes -= ticket.size
        if not waiting:
            del self._buckets[key]

    def _note_arrival(self, key: K, now: float) -> None:
        pace = self._paces.pop(key, None)
        if pace is None:
            pace = _Pace(now)
            if len(self._paces) == _PACES:
                del self._paces[next(iter(self._paces))]
        else:
            gap = now - pace.arrived
            pace = _Pace(now, gap if pace.gap == inf else 0.8 * pace.gap + 0.2 * gap)
        self._paces[key] = pace

    def _drop_expired(self) -> tuple[Ticket[K, T], ...]:
        now = self._clock()
        expired: list[Ticket[K, T]] = []
        for key, waiting in list(self._buckets.items()):
            # Sorted by deadline, so the expired ones are in front.
            late = list(takewhile(lambda ticket: ticket.deadline <= now, waiting))
            if late:
                self._leave(key, late)
                expired += late
        return tuple(expired)


def _oldest(tickets: Iterable[Ticket[Any, Any]]) -> float:
    return min(ticket.queued for ticket in tickets)
