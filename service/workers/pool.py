"""All worker processes, and who of them takes the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ppool.service.settings import Settings
from ppool.service.workers.launch import Launch, members
from ppool.service.workers.supervision import Worker

__all__ = ["Plan", "WorkerPool"]


@dataclass(frozen=True)
class Plan:
    """Workers on each device, threads in each inference, images in a batch at most."""

    workers: int
    threads: int
    batch: int


class WorkerPool:
    """The workers of all devices.

    Args:
        settings: Devices and numbers of workers.
        launch: Starts a worker process.
        changed: Called when a worker went up or down.

    Attributes:
        workers: All that there are to be, up or not.
        plan: Workers, threads and batch size in use.
    """

    def __init__(self, settings: Settings, launch: Launch, changed: Callable[[], None]) -> None:
        self._changed = changed
        started = members(settings)
        self.plan = Plan(
            len(started) // len(settings.devices),
            settings.threads or 1,
            settings.max_batch_size or 1,
        )
        self.workers = [
            Worker(f"{device}-{index % self.plan.workers}", device, lanes, launch)
            for index, (device, lanes) in enumerate(started)
        ]
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self._all_up = asyncio.Event()

    @property
    def lanes(self) -> int:
        """Batches that can run at a time."""
        return sum(worker.lanes for worker in self.workers if worker.up)

    def free(self) -> Worker | None:
        """The least busy worker that can take a batch."""
        able = [worker for worker in self.workers if worker.up and worker.busy < worker.lanes]
        return min(able, key=lambda worker: worker.busy, default=None)

    async def start(self, prepare: Callable[[Worker], Awaitable[None]]) -> None:
        """Start the workers, and wait until all are up.

        Args:
            prepare: Readies a new process, also of a worker that is started anew later.

        Raises:
            ValueError: if one cannot be prepared; the message says why.
        """
        for worker in self.workers:
            supervising = worker.supervise(prepare, self._worker_changed)
            self._tasks[worker] = asyncio.create_task(supervising)
        up = asyncio.create_task(self._all_up.wait())
        done, _ = await asyncio.wait(
            (up, *self._tasks.values()), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            if error := task.exception():
                up.cancel()
                raise ValueError(str(error)) from error

    def keep(self, workers: int) -> None:
        """End all workers but so many on each device."""
        kept: dict[str, int] = {}
        for worker in list(self.workers):
            kept[worker.device] = kept.get(worker.device, 0) + 1
            if kept[worker.device] > workers:
                self.workers.remove(worker)
                worker.close()

    async def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _worker_changed(self) -> None:
        if all(worker.up for worker in self.workers):
            self._all_up.set()
        self._changed()
