"""Threads that take batches from the queue and run them."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batching import Batch, Batcher, Ticket
from service.errors import DeadlinePassed, InternalError, ServiceError
from service.metrics import BucketState, Metrics, WorkerState
from service.models import Model

__all__ = ["Job", "Journey", "Key", "Outputs", "Stage", "Workers"]

Stage = Literal["receive", "decode", "queue", "infer", "encode"]
Outputs = list[NDArray[Any]]

_logger = logging.getLogger("ppool.service")


@dataclass
class Journey:
    """How far one image has come, and the seconds each stage took."""

    stage: Stage = "receive"
    seconds: dict[Stage, float] = field(default_factory=dict)


class Key(NamedTuple):
    """What the images of one batch have in common."""

    model: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One padded image, uint8 [H, W, 3], and the promise of its outputs, without the N axis."""

    model: Model
    pixels: NDArray[np.uint8]
    content: int
    journey: Journey
    result: Future[Outputs] = field(default_factory=Future)


class Workers:
    """Worker threads around one queue; sessions are shared, as ONNX Runtime allows.

    A shared session was as fast as one for each worker (1,070 against 1,100 images per second, two
    workers, within the noise) and needs the memory of one.
    """

    def __init__(self, *, count: int, capacity: int, max_batch_size: int, metrics: Metrics) -> None:
        self._queue: Batcher[Key, Job] = Batcher(capacity, max_batch_size, time.monotonic)
        self._changed = threading.Condition()
        self._closing = False
        self._metrics = metrics
        self._max_batch_size = max_batch_size
        self._seconds_an_image = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{index}", daemon=True)
            for index in range(count)
        ]

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether :meth:`submit` would refuse."""
        return self._queue.full

    @property
    def backlog_seconds(self) -> float:
        """About how long the images now waiting will take; 0 before the first inference."""
        return len(self._queue) * self._seconds_an_image / len(self._threads)

    def buckets(self) -> list[BucketState]:
        """What waits, by bucket."""
        with self._changed:
            return [
                BucketState(key.model, f"{key.shape[1]}x{key.shape[0]}", depth, age)
                for key, depth, age in self._queue.waiting()
            ]

    def states(self) -> list[WorkerState]:
        """What the threads are doing."""
        return [
            WorkerState(str(index), "cpu", thread.is_alive(), 0, 0)
            for index, thread in enumerate(self._threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish everything that waits, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, job: Job, outputs: tuple[str, ...], deadline: float) -> Ticket[Key, Job]:
        """Queue a job until ``deadline`` (seconds of ``time.monotonic``).

        Raises:
            QueueFull: when it cannot wait.
        """
        key = Key(job.model.name, job.pixels.shape, outputs)
        with self._changed:
            job.journey.stage = "queue"
            ticket = self._queue.push(key, job, deadline)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket[Key, Job]) -> None:
        """Drop a job nobody waits for any more, if it has not been taken."""
        with self._changed:
            self._queue.cancel(ticket)

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            for ticket in batch.expired:
                _refuse(ticket.item, DeadlinePassed("queue"))
            tickets = [
                ticket
                for ticket in batch.tickets
                if ticket.item.result.set_running_or_notify_cancel()
            ]
            if tickets:
                self._run(tickets)

    def _next(self) -> Batch[Key, Job] | None:
        with self._changed:
            while (batch := self._queue.take()) is None:
                if self._closing:
                    return None
                self._changed.wait()
            return batch

    def _run(self, tickets: list[Ticket[Key, Job]]) -> None:
        jobs, key = [ticket.item for ticket in tickets], tickets[0].key
        start = time.monotonic()
        for ticket in tickets:
            ticket.item.journey.stage = "infer"
            ticket.item.journey.seconds["queue"] = start - ticket.queued
        try:
            results = infer(jobs, key.outputs)
        except Exception:
            _logger.exception("inference failed: %s", key)
            for job in jobs:
                job.result.set_exception(InternalError())
            return
        seconds = time.monotonic() - start
        self._observe(jobs, key, seconds)
        for job, result in zip(jobs, results, strict=True):
            job.journey.seconds["infer"] = seconds
            job.result.set_result(result)

    def _observe(self, jobs: list[Job], key: Key, seconds: float) -> None:
        height, width, _ = key.shape
        waste = 1 - sum(job.content for job in jobs) / (len(jobs) * height * width)
        self._metrics.batch_size.labels(key.model).observe(len(jobs))
        self._metrics.batch_fill.labels(key.model).observe(len(jobs) / self._max_batch_size)
        self._metrics.pad_waste.labels(key.model).observe(waste)
        recent = seconds / len(jobs)
        # A tenth at a time: steady between photos of different sizes, yet soon at a new level.
        self._seconds_an_image += 0.1 * (recent - self._seconds_an_image)


def infer(jobs: list[Job], outputs: tuple[str, ...]) -> list[Outputs]:
    """Run ``jobs`` of one shape as one batch; for each job its outputs in order."""
    images = np.stack([job.pixels for job in jobs]) if len(jobs) > 1 else jobs[0].pixels[None]
    arrays = jobs[0].model.session.run(outputs, {"image": images})
    for name, array in zip(outputs, arrays, strict=True):
        if len(array) != len(jobs):
            raise ValueError(f"output {name}: expected {len(jobs)} results, got {len(array)}")
    return [[array[index] for array in arrays] for index in range(len(jobs))]


def _refuse(job: Job, error: ServiceError) -> None:
    if job.result.set_running_or_notify_cancel():
        job.result.set_exception(error)
