"""The workers and the models they have loaded: start, hot swap, retirement."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from ppool.feeding import padded_shape
from ppool.service.metrics import Metrics
from ppool.service.models import Model, model_files, shipped_model
from ppool.service.scheduling.batcher import batch_ladder
from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores
from ppool.service.workers.launch import Launch, crew
from ppool.service.workers.messages import Drop, Load, Probe
from ppool.service.workers.supervision import Worker, WorkerFailed, WorkerLost
from ppool.service.workers.tuning import Cell, Plan, cells_to_try, choose, measure

__all__ = ["Fleet", "Served"]

_WARM_SIDE = 256
# Every operator wakes them all, one after the other.
_MOST_ALONE_THREADS = 8

_logger = logging.getLogger("ppool.service")

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Source:
    path: Path
    name: str | None
    stamp: Stamp
    threads: int


@dataclass(frozen=True)
class Served:
    """A model in service, and the number under which the workers know it."""

    model: Model
    handle: int


class Fleet:
    """All workers with the same models.

    Args:
        settings: Devices, numbers of workers, model files.
        launch: Starts a worker process.
        changed: Called when a worker went up or down.
        learned: Called with what a batch of a handle, shape and size took.
        metrics: Counts reloads.

    Attributes:
        models: In service, by name; the first one answers unless another is asked for.
        plan: Workers, threads and batch size in use.
        cells: What was measured to choose them.
    """

    def __init__(
        self,
        settings: Settings,
        launch: Launch,
        changed: Callable[[], None],
        learned: Callable[[Served, tuple[int, int], int, float], None],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._changed = changed
        self._learned = learned
        self._metrics = metrics
        members = crew(settings)
        self.plan = Plan(
            len(members) // len(settings.devices),
            settings.threads or 1,
            settings.max_batch_size or 1,
        )
        ours_to_choose = not settings.on_gpu and settings.threads is None
        self._most_threads = min(usable_cores(), _MOST_ALONE_THREADS) if ours_to_choose else 0
        self.cells: list[Cell] = []
        self.models: dict[str, Served] = {}
        self.workers = [
            Worker(f"{device}-{index % self.plan.workers}", device, lanes, launch)
            for index, (device, lanes) in enumerate(members)
        ]
        self._handles = count()
        self._sources: dict[int, _Source] = {}
        self._refused: dict[Path, Stamp] = {}
        self._uses: Counter[int] = Counter()
        self._background: asyncio.Task[None] | None = None
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self._all_up = asyncio.Event()
        self._reloading = asyncio.Lock()

    @property
    def lanes(self) -> int:
        """Batches that can run at a time."""
        return sum(worker.lanes for worker in self.workers if worker.up)

    def handles(self) -> Iterable[int]:
        """Of the models in service."""
        return self._sources.keys()

    def free(self) -> Worker | None:
        """The least busy worker that can take a batch."""
        able = [worker for worker in self.workers if worker.up and worker.busy < worker.lanes]
        return min(able, key=lambda worker: worker.busy, default=None)

    def alone_threads(self, worker: Worker) -> int:
        """Threads for a photo that is alone; 0 where it gets no more than any other.

        One worker has a second session for it, and only where the threads are ours to choose.
        """
        more = worker is self.workers[0] and self._most_threads > self.plan.threads
        return self._most_threads if more else 0

    async def start(self) -> None:
        """Start the workers, load the models, measure what is not set, warm up.

        Raises:
            ValueError: if a model cannot be served; the message says why.
        """
        # Whoever asks for a reload meanwhile is to find everything started.
        async with self._reloading:
            await self._start()

    async def _start(self) -> None:
        for path in model_files(self._settings.model or (shipped_model(),)):
            source = _Source(path, self._settings.name, _stamp(path), self.plan.threads)
            self._sources[next(self._handles)] = source
        if self._settings.name and len(self._sources) > 1:
            raise ValueError("setting name: expected one model, got several; leave name out")
        for worker in self.workers:
            supervising = worker.supervise(self._prepare, self._worker_changed)
            self._tasks[worker] = asyncio.create_task(supervising)
        up = asyncio.create_task(self._all_up.wait())
        done, _ = await asyncio.wait(
            (up, *self._tasks.values()), return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            if error := task.exception():
                up.cancel()
                raise ValueError(str(error)) from error
        if self._settings.tune_seconds:
            try:
                await self.tune(self._settings.tune_seconds)
            except (WorkerFailed, WorkerLost) as error:
                _logger.error("measuring ended early, so nothing is changed: %s", error)

    async def tune(self, seconds: float, *, thorough: bool = False) -> None:
        """Measure what the settings leave open on the first model, and use the best."""
        plans = cells_to_try(self._settings, thorough=thorough)
        if len(plans) > 1:
            self.cells = await measure(plans, self._try, seconds)
            await self._adopt(choose(self.cells))

    async def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def reload(self) -> None:
        """Load files that are new or changed beside those in service, then swap.

        A file that cannot be loaded leaves the old one in service and is not tried again until it
        changes.
        """
        async with self._reloading:
            try:
                paths = model_files(self._settings.model or (shipped_model(),))
                files = {path: _stamp(path) for path in paths}
            except (OSError, ValueError) as error:
                _logger.error("reload: %s", error)
                return
            served = {self._sources[entry.handle].path: entry for entry in self.models.values()}
            gone = served.keys() - files.keys()
            if gone:
                # What was refused because of its name may have that name now.
                self._refused.clear()
            for path, stamp in files.items():
                old = served.get(path)
                if stamp != self._refused.get(path) and (
                    old is None or stamp != self._sources[old.handle].stamp
                ):
                    await self._take(path, stamp, old)
            for path in gone:
                self._leave(served[path])

    def acquire(self, served: Served) -> None:
        """Keep a model loaded until :meth:`release`."""
        self._uses[served.handle] += 1

    def release(self, served: Served) -> None:
        """The counterpart of :meth:`acquire`."""
        self._uses[served.handle] -= 1
        self._drop_unused(served.handle)

    def shapes(self, model: Model) -> list[tuple[int, int]]:
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
                model = await self._load(worker, handle, self._sources[handle])
                known = next((s for s in self.models.values() if s.handle == handle), None)
                if known is None or known.model.sha256 == model.sha256:
                    self._enter(Served(model, handle))
                elif any(other.up for other in self.workers):
                    self._background = asyncio.create_task(self.reload())
                    raise ValueError(f"the file {model.file} has changed and is being reloaded")
                else:
                    self.models[known.model.name] = Served(model, handle)

    async def _load(self, worker: Worker, handle: int, source: _Source) -> Model:
        message = Load(
            handle, str(source.path), source.name, source.threads, self.alone_threads(worker)
        )
        model: Model = await worker.send(message)
        await self._warm(worker, Served(model, handle))
        worker.loaded.add(handle)
        return model

    async def _warm(self, worker: Worker, served: Served) -> None:
        for height, width in self.shapes(served.model):
            for size in batch_ladder(self.plan.batch):
                seconds, _ = await worker.send(Probe(served.handle, height, width, size, 0.0))
                self._learned(served, (height, width), size, seconds)

    async def _load_everywhere(self, handle: int, source: _Source) -> Model:
        model: Model | None = None
        while missing := [w for w in self.workers if w.up and handle not in w.loaded]:
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

    async def _take(self, path: Path, stamp: Stamp, old: Served | None) -> None:
        name = old.model.name if old else self._settings.name
        source = _Source(path, name, stamp, self.plan.threads)
        try:
            if old is None:
                handle = next(self._handles)
                model = await self._load_everywhere(handle, source)
                self._enter(Served(model, handle))
                self._sources[handle] = source
            else:
                model = await self._replace(old, source)
        except WorkerLost as error:
            _logger.error("model file %s waits for the next reload: %s", path.name, error)
            return
        except ValueError as error:
            self._refused[path] = stamp
            self._metrics.reloads.labels(name or path.stem, "failed").inc()
            _logger.error("model file %s is not taken into service: %s", path.name, error)
            return
        self._refused.pop(path, None)
        self._metrics.reloads.labels(model.name, "loaded").inc()
        _logger.info("model %s is now %s, sha256 %.12s", model.name, path.name, model.sha256)

    def _enter(self, served: Served) -> None:
        other = self.models.setdefault(served.model.name, served)
        if other.handle == served.handle:
            return
        if self._sources[other.handle].path.exists():
            self._drop(served.handle)
            raise ValueError(
                f"two models are called {served.model.name!r}; export one under another name"
            )
        # The file was renamed, or a new one has another name.
        self.models[served.model.name] = served
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
        for worker in self.workers:
            worker.loaded.discard(handle)
            if worker.up:
                worker.send(Drop(handle)).add_done_callback(_ignore)

    async def _try(self, plan: Plan, seconds: float) -> float:
        """Images a second of the first model, with all workers of the plan at it at once."""
        served = next(iter(self.models.values()))
        source = self._sources[served.handle]
        handle = served.handle
        workers = self.workers[: plan.workers]
        if plan.threads != source.threads:
            handle = next(self._handles)
            load = Load(handle, str(source.path), source.name, plan.threads)
            await asyncio.gather(*(worker.send(load) for worker in workers))
        height, width = self.shapes(served.model)[0]
        for length in (0.0, seconds):
            probe = Probe(handle, height, width, plan.batch, length)
            rates = await asyncio.gather(*(worker.send(probe) for worker in workers))
        if handle != served.handle:
            self._drop(handle)
        return float(sum(rate for _, rate in rates))

    async def _adopt(self, plan: Plan) -> None:
        before, self.plan = self.plan, plan
        surplus = [
            worker
            for device in self._settings.devices
            for worker in [w for w in self.workers if w.device == device][plan.workers :]
        ]
        self.workers = [worker for worker in self.workers if worker not in surplus]
        for worker in surplus:
            worker.close()
        if plan.threads != before.threads:
            for served in list(self.models.values()):
                source = replace(self._sources[served.handle], threads=plan.threads)
                await self._replace(served, source)
        elif plan.batch != before.batch:
            for served in self.models.values():
                await asyncio.gather(*(self._warm(worker, served) for worker in self.workers))

    def _worker_changed(self) -> None:
        if all(worker.up for worker in self.workers):
            self._all_up.set()
        self._changed()


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_mtime_ns, about.st_size, about.st_ino


def _ignore(reply: asyncio.Future[Any]) -> None:
    reply.exception()
