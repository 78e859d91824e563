"""The models in service: loaded into every worker, swapped when their files change, retired."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ppool.service.errors import UnknownModel, WorkerLost
from ppool.service.metrics import Metrics
from ppool.service.models import Model, Served, shipped_model
from ppool.service.settings import Settings
from ppool.service.store import ModelPlaces
from ppool.service.workers.loading import ModelLoader, Source
from ppool.service.workers.pool import Plan, WorkerPool
from ppool.service.workers.snapshot import Snapshot, Stamp, stamp
from ppool.service.workers.supervision import Worker
from ppool.service.workers.variants import Variants

__all__ = ["ModelRegistry"]

_logger = logging.getLogger("ppool.service")


class ModelRegistry:
    """The same models in all workers of a pool.

    Args:
        settings: The model files.
        pool: The workers.
        loader: Gets models into them.
        metrics: Counts reloads.

    Attributes:
        models: In service, by name, in the order of their files; the first one answers unless
            another is asked for.
    """

    def __init__(
        self, settings: Settings, pool: WorkerPool, loader: ModelLoader, metrics: Metrics
    ) -> None:
        self._name = settings.name
        self._places = settings.model or (shipped_model(),)
        self._store = ModelPlaces(settings.model_cache)
        self._pool = pool
        self._loader = loader
        self._metrics = metrics
        self._variants = Variants(settings, pool, loader)
        self.models: dict[str, Served] = {}
        self._sources: dict[int, Source] = {}
        self._uses: Counter[int] = Counter()
        self._order: list[Path] = []
        self._problems: set[str] = set()
        self._known_problems: set[str] = set()
        self._refused: dict[Path, Stamp] = {}
        self._unloaded: dict[Path, str] = {}
        self._reloading = asyncio.Lock()

    async def start(self) -> None:
        """Read the files and load them into all workers, which are started.

        Raises:
            ValueError: if a model cannot be served; the message says why.
        """
        # Whoever asks for a reload meanwhile is to find everything started.
        async with self._reloading:
            for place in self._places:
                self._order += await asyncio.to_thread(self._store.at_start, place)
            self._order = self._variants.originals(self._order)
            for path in self._order:
                try:
                    snapshot = await asyncio.to_thread(Snapshot, path)
                except OSError as error:
                    raise ValueError(
                        f"model: cannot read {str(path)!r}: {error.strerror or error}"
                    ) from error
                self._sources[next(self._loader.handles)] = Source(path, snapshot, self._name)
            if self._name and len(self._sources) > 1:
                raise ValueError("setting name: expected one model, got several; leave name out")
            await self._pool.start(self._prepare)

    def close(self) -> None:
        """Fetch nothing more."""
        self._store.close()

    def serves(self, handle: int) -> bool:
        """Whether a model is in service under this number."""
        return handle in self._sources

    def lone(self, worker: Worker, handle: int) -> int:
        """The number under which ``worker`` runs an image that is alone."""
        source = self._sources.get(handle)
        return handle if source is None else self._loader.lone(worker, handle, source)

    def acquire(self, served: Served) -> None:
        """Keep a model loaded until :meth:`release`."""
        self._uses[served.handle] += 1

    def release(self, served: Served) -> None:
        """The counterpart of :meth:`acquire`."""
        self._uses[served.handle] -= 1
        self._drop_unused(served.handle)

    def unserved(self) -> dict[str, str]:
        """Why the others of the files there are are not in service, by name."""
        reasons = {
            path.stem: "its file cannot be served; the log says why" for path in self._refused
        }
        reasons |= dict.fromkeys(self._unloaded.values(), "unloaded")
        return {name: reason for name, reason in reasons.items() if name not in self.models}

    async def unload(self, served: Served) -> bool:
        """End the service of a model until :meth:`load`, unless it is the only one."""
        async with self._reloading:
            if len(self.models) == 1 or self.models.get(served.model.name) is not served:
                return False
            self._unloaded[self._sources[served.handle].path] = served.model.name
            self._retire(self.models.pop(served.model.name))
            _logger.info("model %s is unloaded", served.model.name)
            return True

    async def load(self, name: str) -> bool:
        """Take a model into service: one unloaded, or whose file is new or changed.

        Raises:
            UnknownModel: if there is no such file.
        """
        async with self._reloading:
            files, _ = await self._look()
            old = self.models.get(name)
            if old is not None:
                paths = [self._sources[old.handle].path]
            else:
                known = self._unloaded.items()
                paths = [path for path, unloaded in known if unloaded == name] or [
                    path for path in files if path.stem == name
                ]
            path = next((path for path in paths if path in files), None)
            if path is None:
                raise UnknownModel(f"There is no file of a model called {name[:80]!r}.")
            self._unloaded.pop(path, None)
            if old is None or files[path] != self._sources[old.handle].snapshot.stamp:
                await self._take(path, files[path], old)
            self._sort()
            return path not in self._refused and any(
                self._sources[entry.handle].path == path for entry in self.models.values()
            )

    async def reload(self) -> None:
        """Load files that are new or changed beside those in service, then swap.

        A file that cannot be loaded leaves the old one in service and is not tried again until it
        changes.
        """
        async with self._reloading:
            try:
                await self._reload()
            except Exception:  # or it would be the last time that anyone looked
                _logger.exception("reload failed")

    async def _reload(self) -> None:
        self._known_problems, self._problems = self._problems, set()
        files, unread = await self._look()
        served = {self._sources[entry.handle].path: entry for entry in self.models.values()}
        gone = [
            path
            for path in served
            if path not in files and not any(path.is_relative_to(place) for place in unread)
        ]
        if gone:
            # What was refused because of its name may have that name now.
            self._refused.clear()
        changed = bool(gone)
        for path, found in files.items():
            old = served.get(path)
            if path in self._unloaded:
                continue
            if found != self._refused.get(path) and (
                old is None or found != self._sources[old.handle].snapshot.stamp
            ):
                changed = True
                await self._take(path, found, old)
        for path in gone:
            self._leave(served[path])
        self._sort()
        if not changed:
            _logger.debug("reload: no model file has changed")

    async def _look(self) -> tuple[dict[Path, Stamp], list[Path]]:
        """The files there are, in order, and what of the settings cannot be read now."""
        files: dict[Path, Stamp] = {}
        unread: list[Path] = []
        for place in self._places:
            try:
                found = await asyncio.to_thread(self._store.files, place)
                files |= {path: stamp(path) for path in self._variants.originals(found)}
            except (OSError, ValueError) as error:
                unread.append(self._store.folder(place))
                self._complain(f"reload: {error}")
        self._order = list(files)
        return files, unread

    def _complain(self, problem: str) -> None:
        """Once, however often somebody looks."""
        if problem not in self._known_problems:
            _logger.error("%s", problem)
        self._problems.add(problem)

    async def choose_variants(self) -> None:
        """Serve files in int8 in place of exact ones, where that is allowed and pays."""
        async with self._reloading:
            for served in list(self.models.values()):
                await self._choose_variant(served)

    async def _choose_variant(self, served: Served) -> None:
        found = await self._variants.better(served, self._sources[served.handle])
        if found is not None:
            new, self._sources[found[0].handle] = found
            self.models[served.model.name] = new
            self._retire(served)

    async def load_anew(self) -> None:
        """Load what is in service with the threads and batch size of the pool's plan."""
        for served in list(self.models.values()):
            await self._replace(served, self._sources[served.handle])

    async def measure(self, plan: Plan, workers: Sequence[Worker], seconds: float) -> float:
        """Images a second of the first model as the plan has it, on all these workers at once.

        Raises:
            WorkerLost, ValueError: if a worker does not get to the end.
        """
        served = next(iter(self.models.values()))
        source = self._sources[served.handle]
        return await self._loader.measure(served, source, plan, workers, seconds)

    async def warm_up(self) -> None:
        """Run what the pool's plan has as batches, on every worker."""
        for served in self.models.values():
            warming = (self._loader.warm(worker, served) for worker in self._pool.workers)
            await asyncio.gather(*warming)

    def _sort(self) -> None:
        """By file, so that the first model is the same in every replica."""
        ranks = {path: rank for rank, path in enumerate(self._order)}

        def rank(served: Served) -> int:
            return ranks.get(self._sources[served.handle].path, len(ranks))

        self.models = dict(sorted(self.models.items(), key=lambda entry: rank(entry[1])))

    async def _prepare(self, worker: Worker) -> None:
        """Load and warm up whatever is in service, also what comes into service meanwhile."""
        while missing := [handle for handle in self._sources if handle not in worker.loaded]:
            for handle in missing:
                if (source := self._sources.get(handle)) is None:
                    continue
                try:
                    model = await self._loader.load(worker, handle, source)
                except ValueError as error:
                    if not await self._fall_back(handle, source, error):
                        raise
                    continue
                if handle not in self._sources:
                    self._loader.drop(handle)
                elif all(known.handle != handle for known in self.models.values()):
                    self._enter(Served(model, handle))
                    await self._keep(source)

    async def _fall_back(self, handle: int, source: Source, error: ValueError) -> bool:
        """Whether there is another file now in place of one that cannot be served.

        That is only at start: later the old one is in service still.
        """
        if self._sources.get(handle) is not source:
            return True  # another worker was first
        path = source.path
        good = await asyncio.to_thread(self._store.good, path)
        if good is None or source.snapshot.file.path == good:
            return False
        snapshot = await asyncio.to_thread(Snapshot, good)
        if self._sources.get(handle) is source:
            self._refused[path] = source.snapshot.stamp
            self._metrics.reloads.labels(self._name or path.stem, "failed").inc()
            _logger.error(
                "model file %s is not taken into service, but the one before: %s", path.name, error
            )
            self._sources[handle] = Source(path, snapshot, self._name)
        return True

    async def _keep(self, source: Source) -> None:
        await asyncio.to_thread(self._store.keep, source.path, source.snapshot.stamp)

    def why_old(self, served: Served) -> str:
        """Why a model in service may not be the newest there is; empty if it is."""
        source = self._sources.get(served.handle)
        if source is None:
            return ""
        if source.path in self._refused:
            return "its newest file cannot be served, the log says why; this is the one before"
        return self._store.why_old(source.path)

    async def _replace(self, old: Served, source: Source) -> Model:
        """Serve ``source`` in place of ``old``, which goes on until nothing uses it."""
        handle = next(self._loader.handles)
        model = await self._loader.load_everywhere(handle, source)
        self._sources[handle] = source
        self.models[old.model.name] = Served(model, handle)
        self._retire(old)
        return model

    async def _take(self, path: Path, found: Stamp, old: Served | None) -> None:
        name = old.model.name if old else self._name
        try:
            snapshot = await asyncio.to_thread(Snapshot, path)
            source, found = Source(path, snapshot, name), snapshot.stamp
            if old is None:
                handle = next(self._loader.handles)
                model = await self._loader.load_everywhere(handle, source)
                self._sources[handle] = source
                self._enter(Served(model, handle))
            else:
                model = await self._replace(old, source)
        except (OSError, RuntimeError, WorkerLost) as error:
            # No room for a thread, say, or no worker; the file may be sound.
            self._complain(f"model file {path.name} waits for the next reload: {error}")
            return
        except ValueError as error:
            self._refused[path] = found
            self._metrics.reloads.labels(name or path.stem, "failed").inc()
            _logger.error("model file %s is not taken into service: %s", path.name, error)
            return
        self._refused.pop(path, None)
        await self._keep(source)
        await self._choose_variant(self.models[model.name])
        self._metrics.reloads.labels(model.name, "loaded").inc()
        model = self.models[model.name].model
        _logger.info("model %s is now %s, sha256 %.12s", model.name, model.file, model.sha256)

    def _enter(self, served: Served) -> None:
        name = served.model.name
        other = self.models.get(name)
        if other is not None and self._sources[other.handle].path.exists():
            self._retire(served)
            raise ValueError(f"two models are called {name!r}; export one under another name")
        # Without its file, that one was renamed, or a new one has another name.
        self.models[name] = served
        self._sort()
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
            self._loader.drop(handle)
