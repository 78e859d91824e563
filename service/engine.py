"""What the routes speak to: models, admission, and the phases of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Literal, ParamSpec, TypeVar
from urllib.parse import quote

from ppool.service.answers import Encoded
from ppool.service.codecs.header import probe
from ppool.service.errors import NotWarm, UnknownModel, WorkerLost
from ppool.service.metrics import BucketState, Build, Metrics, WorkerState
from ppool.service.models import ModelInfo, Served, Serving
from ppool.service.scheduling.admission import Admission
from ppool.service.scheduling.batcher import batch_ladder
from ppool.service.scheduling.dispatch import Dispatcher, Done, Item, Key
from ppool.service.settings import Settings
from ppool.service.timing import Progress
from ppool.service.workers.launch import Launch, launch_process
from ppool.service.workers.loading import ModelLoader, Planner
from ppool.service.workers.messages import Task
from ppool.service.workers.pool import WorkerPool
from ppool.service.workers.registry import ModelRegistry
from ppool.service.workers.tuner import Tuner

__all__ = ["Engine", "Phase", "Task"]

_logger = logging.getLogger("ppool.service")

Phase = Literal["starting", "ready", "draining"]

P = ParamSpec("P")
R = TypeVar("R")

# Without any worker for longer, a restart of the whole process may help; starting anew takes its
# time, too, so it is at least so many times what that took.
_LIFELESS_SECONDS, _LIFELESS_STARTS = 30.0, 3.0
# Reading the header of a larger file goes to a thread: a hostile one can take a while.
_PROBE_INLINE_BYTES = 128 * 1024

_VERSION = version("ppool")


class Engine:
    """Segments photos with the loaded models. Everything happens on one event loop.

    Args:
        settings: Of everything.
        metrics: Counts what happens, and shows what is.
        launch: Starts a worker process.
        clock: Seconds; deadlines are by it.

    Attributes:
        phase: From ``starting`` over ``ready`` to ``draining``.
        pool: The workers.
        registry: The models.
        tuner: Measures how many workers and threads pay.
        dispatcher: Hands images to the workers.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        launch: Launch = launch_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.phase: Phase = "starting"
        self.pool = WorkerPool(settings, launch, self._workers_changed)
        planner = Planner(batch_ladder, self._learned, self._dropped)
        self._loader = ModelLoader(settings, self.pool, planner)
        self.registry = ModelRegistry(settings, self.pool, self._loader, metrics)
        self.tuner = Tuner(settings, self.pool, self.registry)
        self.dispatcher = Dispatcher(self.pool, self.registry, settings, metrics, clock)
        self._admission = Admission(
            settings.max_requests, settings.queue_bytes, self.queue_seconds, metrics
        )
        self._polling: asyncio.Task[None] | None = None
        self._clock = clock
        self._start_seconds = 0.0
        self._down_since: float | None = None
        metrics.watch(self)

    @property
    def status(self) -> Literal["starting", "ready", "draining", "no-worker"]:
        """The phase, or ``no-worker`` while none is up in the phase ``ready``."""
        return "no-worker" if self.phase == "ready" and not self.pool.lanes else self.phase

    @property
    def alive(self) -> bool:
        """``False`` when nothing has worked for so long that a restart may be the only help."""
        if self.phase != "ready" or self._down_since is None:
            return True
        patience = max(_LIFELESS_SECONDS, _LIFELESS_STARTS * self._start_seconds)
        return self._clock() - self._down_since < patience

    async def start(self) -> None:
        """Start the workers and load, measure and warm up every model; then be ready.

        Raises:
            ValueError: if a model cannot be served; the message says why.
        """
        begin = self._clock()
        await self.registry.start()
        if self.settings.tune_seconds:
            try:
                await self.tuner.tune(self.settings.tune_seconds)
            except (ValueError, WorkerLost) as error:
                _logger.error("measuring ended early: %s", error)
        await self.registry.choose_variants()
        self.dispatcher.renew()
        if self.settings.reload_seconds:
            self._polling = asyncio.create_task(self._poll())
        self._start_seconds = self._clock() - begin
        if self.phase == "starting":
            self.phase = "ready"

    def drain(self) -> Phase:
        """Let balancers know that this is to end; the phase until then."""
        phase, self.phase = self.phase, "draining"
        return phase

    async def stop(self) -> None:
        """Finish what was accepted and end the workers."""
        self.drain()
        await self._admission.wait_idle()
        await self.close()

    async def close(self) -> None:
        """End the workers."""
        if self._polling is not None:
            self._polling.cancel()
        self.registry.close()
        self._loader.close()
        await self.pool.close()

    def served(self, name: str | None) -> Served:
        """The model called ``name``; the first one for ``None``.

        Raises:
            NotWarm: before the models are warm.
            UnknownModel: if there is none of that name.
        """
        models = self.registry.models
        if self.phase == "starting" or not models:
            raise NotWarm("The model is still warming up. Retry in a second.")
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            known = ", ".join(models)
            raise UnknownModel(f"No model is called {name!r}; loaded: {known}.")
        return models[name]

    def describe(self, served: Served) -> ModelInfo:
        """The body of ``GET /models/{name}``."""
        plan = self.pool.plan
        measured = [
            {
                "workers": cell.plan.workers,
                "threads": cell.plan.threads,
                "batch": cell.plan.batch,
                "images_per_second": round(cell.images_per_second, 1),
            }
            for cell in self.tuner.cells
        ]
        devices = self.settings.devices
        serving = Serving(devices, plan.workers, plan.threads, plan.batch, measured)
        card = f"/models/{quote(served.model.name)}/card" if served.model.card else ""
        why_old = self.registry.why_old(served)
        return served.model.into(ModelInfo, serving=serving, card=card, why_old=why_old)

    def announce(self, served: Served) -> str:
        """One line on a model and how it is run, for the log."""
        model, plan = served.model, self.pool.plan
        classes = ", ".join(label.name for label in model.classes)
        return (
            f"model {model.name} ({model.file}): {classes}; {model.kernels} kernels on "
            f"{model.provider}, {plan.workers} workers x {plan.threads} threads, "
            f"batches up to {plan.batch}"
        )

    @contextmanager
    def admission(self, served: Served, deadline: float) -> Iterator[Callable[[int], None]]:
        """Hold a place for one request, before anything of it is read, and its model loaded.

        Under overload most requests end here, so that refusing them takes little from the others.

        Args:
            served: Stays loaded until the end, though a newer file may take its place meanwhile.
            deadline: In seconds of the clock.

        Yields:
            What to call with the number of bytes whenever some of the body have come. They count
            until the end; it raises ``Refused`` when all requests together hold too many.

        Raises:
            Refused: if all places are taken, or no image could wait for a worker.
        """
        with self._admission.place() as hold:
            self.dispatcher.check(deadline)
            self.registry.acquire(served)
            try:
                yield hold
            finally:
                self.registry.release(served)

    async def segment(
        self, task: Task, served: Served, progress: Progress, deadline: float
    ) -> Encoded:
        """Segment one photo file and encode the answer; cancelling takes it out of the queue.

        Args:
            task: The photo and the answer wanted.
            served: Which model to use; it is that of the request's :meth:`admission`.
            progress: Notes the stage reached.
            deadline: In seconds of the clock; not run after it.

        Raises:
            Fault: of the class that says what went wrong.
        """
        limits = self._loader.limits
        large = len(task.data) > _PROBE_INLINE_BYTES
        width, height = await (_apart if large else _here)(
            probe, task.data, limits, task.answer.page
        )
        policy = served.model.input
        tile = task.answer.tile
        inner = (height, width) if tile else policy.reduced(height, width)
        padded = policy.tiled_shape if tile else policy.padded_shape
        key = Key(
            served.handle,
            served.model.name,
            *padded(*inner),
            alpha=task.answer.alpha != "none",
            tile=tile,
            scores=task.answer.maps.needs_scores(served.model.head),
        )
        result: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        item = Item(task, inner[0] * inner[1], progress, result)
        self.dispatcher.push(key, item, 3 * width * height, deadline)
        progress.stage = "queue"
        try:
            self.dispatcher.dispatch()
            encoded, queue_seconds = await result
        finally:
            self.dispatcher.cancel(item)
        answered: Encoded = replace(encoded, seconds=encoded.seconds._replace(queue=queue_seconds))
        return answered

    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.status == "ready"

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""
        return self.dispatcher.queue_seconds()

    def buckets(self) -> Iterable[BucketState]:
        """What waits, for the metrics."""
        return self.dispatcher.buckets()

    def workers(self) -> Iterable[WorkerState]:
        """Who works, for the metrics."""
        for worker in self.pool.workers:
            yield WorkerState(
                worker.name, worker.device, worker.up, worker.restarts, worker.memory_bytes()
            )

    def builds(self) -> Iterable[Build]:
        """What is served, for the metrics."""
        for name, served in self.registry.models.items():
            model = served.model
            yield Build(_VERSION, name, model.file, model.kernels, model.provider)

    def _workers_changed(self) -> None:
        if self.pool.lanes:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = self._clock()
        self.dispatcher.workers_changed()

    def _learned(self, served: Served, shape: tuple[int, int], images: int, seconds: float) -> None:
        key = Key(served.handle, served.model.name, *shape, alpha=False)
        self.dispatcher.learn(key, images, seconds)

    def _dropped(self, handle: int) -> None:
        self.dispatcher.forget(handle)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            await self.registry.reload()


async def _here(work: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    return work(*args, **options)


async def _apart(work: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    """On a thread, unless the system has none left."""
    try:
        return await asyncio.to_thread(work, *args, **options)
    except RuntimeError:
        return work(*args, **options)
