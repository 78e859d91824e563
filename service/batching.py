"""Which waiting images run next: the whole batching policy, with no thread, loop or wall clock.

Images wait in buckets of equal key (model, padded shape, outputs wanted). A worker that is free
takes the bucket whose oldest image has the earliest deadline and fills its batch from there. It
never waits for a batch to fill, so an idle service adds no delay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batch", "Batcher", "QueueFull", "Ticket", "batch_ladder"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class QueueFull(Exception):  # noqa: N818 - a state of the queue, as in queue.Full
    """Nothing more is accepted until a worker takes a batch."""


@dataclass(frozen=True, eq=False)
class Ticket(Generic[K, T]):
    """One image waiting: its bucket, what to run, and when (clock seconds) it is too late."""

    key: K
    item: T
    queued: float
    deadline: float


@dataclass(frozen=True)
class Batch(Generic[K, T]):
    """What a worker does next: ``tickets`` to run together and ``expired`` ones to refuse."""

    tickets: tuple[Ticket[K, T], ...]
    expired: tuple[Ticket[K, T], ...]


def batch_ladder(max_batch_size: int) -> tuple[int, ...]:
    """The batch sizes in use: powers of two and the maximum, so that few shapes need warming.

    Example:
        >>> batch_ladder(6)
        (1, 2, 4, 6)
    """
    powers = (1 << power for power in range(max_batch_size.bit_length()))
    return tuple(sorted({*powers, max_batch_size}))


class Batcher(Generic[K, T]):
    """A bounded queue in buckets. Not safe for threads: its owner holds the lock."""

    def __init__(self, capacity: int, max_batch_size: int, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._ladder = batch_ladder(max_batch_size)
        self._clock = clock
        self._buckets: dict[K, deque[Ticket[K, T]]] = {}
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether :meth:`push` would refuse."""
        return self._waiting >= self._capacity

    def push(self, key: K, item: T, deadline: float) -> Ticket[K, T]:
        """Let ``item`` wait in the bucket ``key``.

        Raises:
            QueueFull: at capacity.
        """
        if self.full:
            raise QueueFull
        ticket = Ticket(key, item, self._clock(), deadline)
        self._buckets.setdefault(key, deque()).append(ticket)
        self._waiting += 1
        return ticket

    def cancel(self, ticket: Ticket[K, T]) -> None:
        """Take ``ticket`` out, if it still waits."""
        bucket = self._buckets.get(ticket.key)
        if bucket is not None and ticket in bucket:
            bucket.remove(ticket)
            self._left(ticket.key, 1)

    def take(self) -> Batch[K, T] | None:
        """The next batch, or ``None`` when nothing waits.

        With only expired tickets left, ``tickets`` is empty.
        """
        expired = self._drop_expired()
        if not self._buckets:
            return Batch((), expired) if expired else None
        key = min(self._buckets, key=lambda key: self._buckets[key][0].deadline)
        bucket = self._buckets[key]
        size = max(size for size in self._ladder if size <= len(bucket))
        tickets = tuple(bucket.popleft() for _ in range(size))
        self._left(key, size)
        return Batch(tickets, expired)

    def waiting(self) -> list[tuple[K, int, float]]:
        """Every bucket with its length and the age of its oldest image in seconds."""
        now = self._clock()
        return [(key, len(row), now - row[0].queued) for key, row in self._buckets.items()]

    def _drop_expired(self) -> tuple[Ticket[K, T], ...]:
        now = self._clock()
        expired: list[Ticket[K, T]] = []
        for key, bucket in list(self._buckets.items()):
            late = [ticket for ticket in bucket if ticket.deadline <= now]
            for ticket in late:
                bucket.remove(ticket)
            self._left(key, len(late))
            expired += late
        return tuple(expired)

    def _left(self, key: K, count: int) -> None:
        self._waiting -= count
        if not self._buckets[key]:
            del self._buckets[key]
