"""Models into workers: loaded, verified, warmed up, measured and dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ppool.service.codecs.header import ImageLimits
from ppool.service.errors import WorkerFailed, WorkerLost
from ppool.service.models import Model, Served
from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores
from ppool.service.workers.messages import Drop, Load, Probe, Verify
from ppool.service.workers.pool import Plan, WorkerPool
from ppool.service.workers.snapshot import Snapshot
from ppool.service.workers.supervision import Worker

__all__ = ["Learned", "ModelLoader", "Planner", "Source"]

_WARM_SIDE = 256
# Loading for a GPU can take minutes; a worker that takes longer is stuck.
_LOAD_SECONDS, _DROP_SECONDS = 600.0, 60.0
# A worker may die of something else than the file; of two that die, it is to blame.
_LOAD_TRIES = 2
_RESTART_SECONDS, _LOOK_SECONDS = 30.0, 0.1
# Every operator wakes them all, one after the other.
_MOST_LONE_THREADS = 8

_logger = logging.getLogger("ppool.service")

# Told what a batch of a model, of so many images of a padded shape, took in seconds.
Learned = Callable[[Served, tuple[int, int], int, float], None]


@dataclass(frozen=True)
class Planner:
    """Whoever plans batches.

    Attributes:
        batch_sizes: The sizes of batch to warm up for, given the largest.
        learned: Told what warming up took.
        dropped: Told the number of a model that is gone.
    """

    batch_sizes: Callable[[int], Sequence[int]]
    learned: Learned
    dropped: Callable[[int], None]


@dataclass(frozen=True)
class Source:
    """Where a model comes from; ``name`` is what it is to be called, ``None`` for its own name."""

    path: Path
    snapshot: Snapshot
    name: str | None


class ModelLoader:
    """Models in the workers of a pool, by number.

    Args:
        settings: What photos may be, and what to warm up for.
        pool: The workers, and with how many threads and images a batch they run.
        planner: Of the batches.
        cores: That an image may have which is alone.

    Attributes:
        limits: What photos may be.
        handles: Numbers for models.
    """

    def __init__(
        self, settings: Settings, pool: WorkerPool, planner: Planner, cores: int | None = None
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._planner = planner
        ours_to_choose = not settings.on_gpu and settings.threads is None
        cores = usable_cores() if cores is None else cores
        self._lone_threads = min(cores, _MOST_LONE_THREADS) if ours_to_choose else 0
        self.limits = ImageLimits(
            settings.max_pixels, settings.max_side_pixels, settings.max_frames
        )
        self.handles = count()
        self._lone: dict[int, int] = {}
        self._fetching: dict[int, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Load nothing more."""
        for task in self._fetching.values():
            task.cancel()

    async def load(self, worker: Worker, handle: int, source: Source) -> Model:
        """Load a model into one worker; it is loaded when it has been verified and is warm.

        Raises:
            WorkerLost: if the worker died.
            ValueError: if it cannot be served; the message is for people.
        """
        message = self._message(handle, source, self._pool.plan.threads)
        model: Model = await self._ask(worker, message)
        if not source.snapshot.verified:
            source.snapshot.verified = True
            try:
                await self._ask(worker, Verify(handle, *self._shapes(model)[0]))
            except WorkerLost:
                source.snapshot.verified = False
                raise
        await self.warm(worker, Served(model, handle))
        worker.loaded.add(handle)
        return model

    async def warm(self, worker: Worker, served: Served) -> None:
        """Run what the pool's plan has as batches.

        Raises:
            WorkerLost, ValueError: as :meth:`load`.
        """
        for height, width in self._shapes(served.model):
            for size in self._planner.batch_sizes(self._pool.plan.batch):
                seconds, _ = await self._ask(worker, Probe(served.handle, height, width, size, 0.0))
                self._planner.learned(served, (height, width), size, seconds)

    async def load_everywhere(self, handle: int, source: Source) -> Model:
        """Load into every worker that is up.

        Raises:
            ValueError: if it cannot be loaded, or kills who loads it.
            WorkerLost: if there is no worker for too long.
        """
        model, deaths = None, 0
        while missing := await self._without(handle, wait=model is None):
            # One goes first: a file that kills who loads it is not to kill them all.
            loads = (self.load(w, handle, source) for w in missing[: None if model else 1])
            results = await asyncio.gather(*loads, return_exceptions=True)
            failures = [error for error in results if isinstance(error, ValueError)]
            if failures:
                self.drop(handle)
                raise failures[0]
            # A worker that died later is prepared anew by its supervisor.
            model = next((found for found in results if isinstance(found, Model)), model)
            deaths += model is None
            if deaths == _LOAD_TRIES:
                raise ValueError(f"{deaths} workers died loading {source.path.name}")
        if model is None:
            raise WorkerLost("no worker is up")
        return model

    def lone(self, worker: Worker, handle: int, source: Source) -> int:
        """The number under which ``worker`` runs an image that is alone.

        Another one where there are idle cores: the first worker has the model a second time, with
        more threads, from soon after this was first asked.
        """
        if worker is not self._pool.workers[0] or self._lone_threads <= self._pool.plan.threads:
            return handle
        lone = self._lone.setdefault(handle, next(self.handles))
        if lone in worker.loaded:
            return lone
        if handle not in self._fetching:
            self._fetching[handle] = asyncio.create_task(self._fetch(worker, handle, lone, source))
        return handle

    async def measure(
        self, served: Served, source: Source, plan: Plan, workers: Sequence[Worker], seconds: float
    ) -> float:
        """Images a second of a model as the plan has it, on all these workers at once.

        Raises:
            WorkerLost, ValueError: as :meth:`load`.
        """
        handle = served.handle
        height, width = self._shapes(served.model)[0]
        try:
            if plan.threads != self._pool.plan.threads:
                handle = next(self.handles)
                load = self._message(handle, source, plan.threads)
                await asyncio.gather(*(self._ask(worker, load) for worker in workers))
            for length in (0.0, seconds):
                probe = Probe(handle, height, width, plan.batch, length)
                rates = await asyncio.gather(*(self._ask(worker, probe) for worker in workers))
        finally:
            if handle != served.handle:
                self.drop(handle)
        return float(sum(rate for _, rate in rates))

    def drop(self, handle: int) -> None:
        """Forget a model, in all workers."""
        self._planner.dropped(handle)
        lone = self._lone.pop(handle, None)
        self._fetching.pop(handle, None)
        for worker in self._pool.workers:
            for number in (handle,) if lone is None else (handle, lone):
                worker.loaded.discard(number)
                worker.send(Drop(number), _DROP_SECONDS).add_done_callback(_ignore)

    async def _fetch(self, worker: Worker, handle: int, lone: int, source: Source) -> None:
        """Load a model a second time, for images that are alone."""
        message = self._message(lone, source, self._lone_threads)
        try:
            await self._ask(worker, message)
        except ValueError as error:
            _logger.error("images that are alone get no more threads: %s", error)
            return  # and is not asked for again
        except WorkerLost:
            self._fetching.pop(handle, None)
            return
        self._fetching.pop(handle, None)
        if handle in self._lone:
            worker.loaded.add(lone)
        else:
            self.drop(lone)

    async def _without(self, handle: int, *, wait: bool) -> list[Worker]:
        """The workers that are up and have not loaded a model; there should soon be some."""
        end = asyncio.get_running_loop().time() + _RESTART_SECONDS
        while wait and not self._pool.lanes and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_SECONDS)
        return [w for w in self._pool.workers if w.up and handle not in w.loaded]

    async def _ask(self, worker: Worker, message: Load | Verify | Probe) -> Any:
        """The reply of a worker.

        Raises:
            WorkerLost: if it died.
            ValueError: if it could not do it; the message is for people.
        """
        try:
            return await worker.send(message, _LOAD_SECONDS)
        except WorkerFailed as error:
            if error.expected:
                raise ValueError(str(error)) from error
            _logger.error("worker %s: %s", worker.name, error)
            raise ValueError(f"a model failed in worker {worker.name}; the log says how") from error

    def _message(self, handle: int, source: Source, threads: int) -> Load:
        return Load(handle, source.snapshot.file, source.name, threads, self.limits)

    def _shapes(self, model: Model) -> list[tuple[int, int]]:
        """Padded height and width of what is warmed up for."""
        policy = model.input
        side = min(_WARM_SIDE, policy.max_side)
        sizes = [tuple(map(int, text.split("x"))) for text in self._settings.warm_shapes]
        return sorted(
            {
                policy.padded_shape(*policy.reduced(height, width))
                for width, height in sizes or [(side, side)]
            }
        )


def _ignore(reply: asyncio.Future[Any]) -> None:
    reply.exception()
