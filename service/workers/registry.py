"""The models in service: loaded into every worker, swapped when their files change, retired."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ppool.feeding import padded_shape
from ppool.service.codecs.images import ImageLimits
from ppool.service.metrics import Metrics
from ppool.service.models import Model, Served, model_files, shipped_model
from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores
from ppool.service.workers.errors import WorkerFailed, WorkerLost
from ppool.service.workers.messages import Drop, Load, Probe
from ppool.service.workers.pool import WorkerPool
from ppool.service.workers.snapshot import Snapshot, Stamp, stamp
from ppool.service.workers.supervision import Worker

__all__ = ["Learned", "ModelRegistry"]

_WARM_SIDE = 256
# Every operator wakes them all, one after the other.
_MOST_LONE_THREADS = 8

_logger = logging.getLogger("ppool.service")

# Told what a batch of a model, of so many images of a padded shape, took in seconds.
Learned = Callable[[Served, tuple[int, int], int, float], None]


@dataclass(frozen=True)
class _Source:
    """Where a model comes from; ``name`` is what it is to be called, ``None`` for its own name."""

    path: Path
    snapshot: Snapshot
    name: str | None


class ModelRegistry:
    """The same models in all workers of a pool.

    Args:
        settings: Model files and what to warm up for.
        pool: The workers.
        metrics: Counts reloads.
        batch_sizes: The sizes of batch to warm up for, given the largest.
        learned: Told what warming up took.
        cores: That an image may have which is alone.

    Attributes:
        models: In service, by name, in the order of their files; the first one answers unless
            another is asked for.
        limits: What photos may be.
    """

    def __init__(
        self,
        settings: Settings,
        pool: WorkerPool,
        metrics: Metrics,
        batch_sizes: Callable[[int], Sequence[int]],
        learned: Learned,
        cores: int | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._metrics = metrics
        self._batch_sizes = batch_sizes
        self._learned = learned
        ours_to_choose = not settings.on_gpu and settings.threads is None
        cores = usable_cores() if cores is None else cores
        self._lone_threads = min(cores, _MOST_LONE_THREADS) if ours_to_choose else 0
        self.limits = ImageLimits(
            settings.max_pixels, settings.max_side_pixels, settings.max_frames
        )
        self.models: dict[str, Served] = {}
        self._handles = count()
        self._sources: dict[int, _Source] = {}
        self._lone: dict[int, int] = {}
        self._fetching: dict[int, asyncio.Task[None]] = {}
        self._refused: dict[Path, Stamp] = {}
        self._uses: Counter[int] = Counter()
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Read the files and load them into all workers, which are started.

        Raises:
            ValueError: if a model cannot be served; the message says why.
        """
        # Whoever asks for a reload meanwhile is to find everything started.
        async with self._reloading:
            for path in self._files():
                try:
                    snapshot = await asyncio.to_thread(Snapshot, path)
                except OSError as error:
                    raise ValueError(
                        f"model: cannot read {str(path)!r}: {error.strerror or error}"
                    ) from error
                self._sources[next(self._handles)] = _Source(path, snapshot, self._settings.name)
            if self._settings.name and len(self._sources) > 1:
                raise ValueError("setting name: expected one model, got several; leave name out")
            await self._pool.start(self._prepare)

    def close(self) -> None:
        """Load nothing more."""
        for task in self._fetching.values():
            task.cancel()

    def serves(self, handle: int) -> bool:
        """Whether a model is in service under this number."""
        return handle in self._sources

    def acquire(self, served: Served) -> None:
        """Keep a model loaded until :meth:`release`."""
        self._uses[served.handle] += 1

    def release(self, served: Served) -> None:
        """The counterpart of :meth:`acquire`."""
        self._uses[served.handle] -= 1
        self._drop_unused(served.handle)

    def lone(self, worker: Worker, handle: int) -> int:
        """The number under which ``worker`` runs an image that is alone.

        Another one where there are idle cores: the first worker has the model a second time, with
        more threads, from soon after this was first asked.
        """
        if worker is not self._pool.workers[0] or self._lone_threads <= self._pool.plan.threads:
            return handle
        lone = self._lone.setdefault(handle, next(self._handles))
        if lone in worker.loaded:
            return lone
        if handle not in self._fetching and handle in self._sources:
            self._fetching[handle] = asyncio.create_task(self._fetch(worker, handle, lone))
        return handle

    async def reload(self) -> None:
        """Load files that are new or changed beside those in service, then swap.

        A file that cannot be loaded leaves the old one in service and is not tried again until it
        changes.
        """
        async with self._reloading:
            try:
                files = {path: stamp(path) for path in self._files()}
            except (OSError, ValueError) as error:
                _logger.error("reload: %s", error)
                return
            served = {self._sources[entry.handle].path: entry for entry in self.models.values()}
            gone = served.keys() - files.keys()
            if gone:
                # What was refused because of its name may have that name now.
                self._refused.clear()
            changed = bool(gone)
            for path, found in files.items():
                old = served.get(path)
                if found != self._refused.get(path) and (
                    old is None or found != self._sources[old.handle].snapshot.stamp
                ):
                    changed = True
                    await self._take(path, old)
            for path in gone:
                self._leave(served[path])
            if not changed:
                _logger.debug("reload: no model file has changed")

    async def load_anew(self) -> None:
        """Load what is in service with the threads and batch size of the pool's plan."""
        for served in list(self.models.values()):
            await self._replace(served, self._sources[served.handle])

    async def warm_up(self) -> None:
        """Run what the pool's plan has as batches, on every worker."""
        for served in self.models.values():
            await asyncio.gather(*(self._warm(worker, served) for worker in self._pool.workers))

    @asynccontextmanager
    async def trial(
        self, threads: int, workers: Sequence[Worker]
    ) -> AsyncIterator[tuple[int, tuple[int, int]]]:
        """The first model, with so many threads on these workers, and a shape to run.

        Yields:
            The number that it has for the time being, and padded height and width.
        """
        served = next(iter(self.models.values()))
        handle = served.handle
        if threads != self._pool.plan.threads:
            handle = next(self._handles)
            load = self._load_message(handle, self._sources[served.handle], threads)
            await asyncio.gather(*(worker.send(load) for worker in workers))
        try:
            yield handle, self._shapes(served.model)[0]
        finally:
            if handle != served.handle:
                self._drop(handle)

    def _files(self) -> list[Path]:
        return model_files(self._settings.model or (shipped_model(),))

    def _shapes(self, model: Model) -> list[tuple[int, int]]:
        """Padded height and width of what is warmed up for."""
        policy = model.metadata.input
        side = min(_WARM_SIDE, policy.max_side)
        sizes = [tuple(map(int, text.split("x"))) for text in self._settings.warm_shapes]
        return sorted(
            {
                padded_shape(*policy.reduced(height, width), policy)
                for width, height in sizes or [(side, side)]
            }
        )

    async def _prepare(self, worker: Worker) -> None:
        """Load and warm up whatever is in service, also what comes into service meanwhile."""
        while missing := [handle for handle in self._sources if handle not in worker.loaded]:
            for handle in missing:
                if (source := self._sources.get(handle)) is None:
                    continue
                model = await self._load(worker, handle, source)
                if handle not in self._sources:
                    self._drop(handle)
                elif all(known.handle != handle for known in self.models.values()):
                    self._enter(Served(model, handle))

    def _load_message(self, handle: int, source: _Source, threads: int) -> Load:
        return Load(handle, source.snapshot.file, source.name, threads, self.limits)

    async def _load(self, worker: Worker, handle: int, source: _Source) -> Model:
        message = self._load_message(handle, source, self._pool.plan.threads)
        model: Model = await worker.send(message)
        await self._warm(worker, Served(model, handle))
        worker.loaded.add(handle)
        return model

    async def _warm(self, worker: Worker, served: Served) -> None:
        for height, width in self._shapes(served.model):
            for size in self._batch_sizes(self._pool.plan.batch):
                seconds, _ = await worker.send(Probe(served.handle, height, width, size, 0.0))
                self._learned(served, (height, width), size, seconds)

    async def _load_everywhere(self, handle: int, source: _Source) -> Model:
        model: Model | None = None
        while missing := [w for w in self._pool.workers if w.up and handle not in w.loaded]:
            # One goes first: a file that kills who loads it is not to kill them all.
            loads = (self._load(w, handle, source) for w in missing[: None if model else 1])
            results = await asyncio.gather(*loads, return_exceptions=True)
            # A worker that died later is prepared anew by its supervisor.
            failures = [error for error in results if isinstance(error, WorkerFailed)]
            if failures:
                self._drop(handle)
                raise ValueError(str(failures[0]))
            if model is None:
                (first,) = results
                if not isinstance(first, Model):
                    raise ValueError(f"a worker died loading {source.path.name}")
                model = first
        if model is None:
            raise WorkerLost("no worker is up")
        return model

    async def _replace(self, old: Served, source: _Source) -> Model:
        """Serve ``source`` in place of ``old``, which goes on until nothing uses it."""
        handle = next(self._handles)
        model = await self._load_everywhere(handle, source)
        self._sources[handle] = source
        self.models[old.model.name] = Served(model, handle)
        self._retire(old)
        return model

    async def _fetch(self, worker: Worker, handle: int, lone: int) -> None:
        """Load a model a second time, for images that are alone."""
        message = self._load_message(lone, self._sources[handle], self._lone_threads)
        try:
            await worker.send(message)
        except WorkerFailed as error:
            _logger.error("images that are alone get no more threads: %s", error)
            return  # and is not asked for again
        except WorkerLost:
            self._fetching.pop(handle, None)
            return
        self._fetching.pop(handle, None)
        if handle in self._lone:
            worker.loaded.add(lone)
        else:
            self._drop(lone)

    async def _take(self, path: Path, old: Served | None) -> None:
        name = old.model.name if old else self._settings.name
        try:
            snapshot = await asyncio.to_thread(Snapshot, path)
        except OSError as error:
            _logger.error("model file %s waits for the next reload: %s", path.name, error)
            return
        source = _Source(path, snapshot, name)
        try:
            if old is None:
                handle = next(self._handles)
                model = await self._load_everywhere(handle, source)
                self._sources[handle] = source
                self._enter(Served(model, handle))
            else:
                model = await self._replace(old, source)
        except WorkerLost as error:
            _logger.error("model file %s waits for the next reload: %s", path.name, error)
            return
        except ValueError as error:
            self._refused[path] = snapshot.stamp
            self._metrics.reloads.labels(name or path.stem, "failed").inc()
            _logger.error("model file %s is not taken into service: %s", path.name, error)
            return
        self._refused.pop(path, None)
        self._metrics.reloads.labels(model.name, "loaded").inc()
        _logger.info("model %s is now %s, sha256 %.12s", model.name, path.name, model.sha256)

    def _enter(self, served: Served) -> None:
        name = served.model.name
        other = self.models.get(name)
        if other is not None and self._sources[other.handle].path.exists():
            self._retire(served)
            raise ValueError(f"two models are called {name!r}; export one under another name")
        # Without its file, that one was renamed, or a new one has another name.
        self.models[name] = served
        if other is not None:
            self._retire(other)

    def _leave(self, served: Served) -> None:
        """End the service of a model whose file is gone, unless it is the only one."""
        name, file = served.model.name, served.model.file
        if self.models.get(name) is not served:
            return
        if len(self.models) == 1:
            _logger.error("model file %s is gone, but no other is served, so it goes on", file)
            return
        self._retire(self.models.pop(name))
        _logger.info("model file %s is gone; no longer served", file)

    def _retire(self, served: Served) -> None:
        del self._sources[served.handle]
        self._drop_unused(served.handle)

    def _drop_unused(self, handle: int) -> None:
        if not self._uses[handle] and handle not in self._sources:
            del self._uses[handle]
            self._drop(handle)

    def _drop(self, handle: int) -> None:
        lone = self._lone.pop(handle, None)
        self._fetching.pop(handle, None)
        for worker in self._pool.workers:
            for number in (handle,) if lone is None else (handle, lone):
                worker.loaded.discard(number)
                worker.send(Drop(number)).add_done_callback(_ignore)


def _ignore(reply: asyncio.Future[Any]) -> None:
    reply.exception()
