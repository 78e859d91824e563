"""The life of a request for masks, whichever protocol asks: admitted, read, answered, in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from fastapi import Request, Response

from ppool.service.answers import Answer, Encoded
from ppool.service.engine import Engine, Task
from ppool.service.http.errors import KNOWN, BadRequest, ClientGone, DeadlinePassed, problem
from ppool.service.http.forms import Upload
from ppool.service.models import Served
from ppool.service.timing import Progress, Stage

__all__ = [
    "TIMEOUT_HEADER",
    "Exchanged",
    "Hold",
    "Order",
    "carry_out",
    "exchange",
    "while_connected",
]

TIMEOUT_HEADER = "X-Request-Timeout-Ms"

# A day; the server's own limit is far below.
_DAY_MS = 86_400_000

_STAGES: tuple[Stage, ...] = ("receive", "decode", "queue", "infer", "encode")

R = TypeVar("R")
Hold = Callable[[int], None]


@dataclass(frozen=True)
class Order(Generic[R]):
    """What a request asks for; ``render`` makes the answer of what was found in each photo.

    ``seconds`` is a time limit that only its body tells.
    """

    uploads: list[Upload]
    answer: Answer
    render: Callable[[list[Encoded]], Awaitable[R]]
    served: Served
    seconds: float | None = None


@dataclass(frozen=True)
class Exchanged(Generic[R]):
    """An answer, what was found in each photo, and by which model."""

    answer: R
    parts: list[Encoded]
    served: Served

    def headers(self) -> dict[str, str]:
        """What every protocol tells beside the answer."""
        headers = {"X-Model": self.served.model.name}
        if any(part.pages > 1 for part in self.parts):
            headers["X-Pages"] = ", ".join(str(part.pages) for part in self.parts)
        return headers | {"Server-Timing": _server_timing(self.parts)}


async def exchange(
    engine: Engine,
    request: Request,
    served: Served,
    read: Callable[[Hold], Awaitable[Order[Response]]],
) -> Response:
    """Answer a request of HTTP, as :func:`carry_out`."""
    attached = partial(while_connected, request)
    done = await carry_out(engine, served, _limit(engine, request), read, attached)
    request.state.parts = done.parts
    done.answer.headers.update(done.headers())
    return done.answer


async def carry_out(
    engine: Engine,
    served: Served,
    limit: float,
    read: Callable[[Hold], Awaitable[Order[R]]],
    attached: Callable[[Awaitable[list[Encoded]]], Awaitable[list[Encoded]]],
) -> Exchanged[R]:
    """Answer a request for masks; ``read`` makes of it what is asked for.

    Args:
        engine: Segments.
        served: The model, as far as it is known before anything was read.
        limit: Seconds until there must be an answer.
        read: Called once there is a place, with what to tell how many bytes came.
        attached: Waits for what it is given, and ends it when the client is gone.

    Raises:
        ServiceError: of the class that says what went wrong.
    """
    start = time.monotonic()
    progress = [Progress()]
    rendering = False
    try:
        with engine.admission(served, start + limit) as hold:
            async with asyncio.timeout(limit) as deadline:
                order = await read(hold)
                served = order.served
                if order.seconds is not None and order.seconds < limit:
                    deadline.reschedule((deadline.when() or 0.0) - (limit - order.seconds))
                    limit = order.seconds
                progress = [Progress() for _ in order.uploads]
                with _kept(engine, served):
                    parts = await attached(_segment_all(engine, order, progress, start + limit))
                rendering = True
                answer = await order.render(parts)
    except BaseException as error:
        seconds = time.monotonic() - start
        engine.metrics.statistics[served.model.name].fail.add(seconds)
        if isinstance(error, TimeoutError):
            stages = (photo.stage for photo in progress)
            stage = "encode" if rendering else min(stages, key=_STAGES.index)
            raise DeadlinePassed(stage) from None
        raise
    _observe(engine, served, parts, time.monotonic() - start)
    return Exchanged(answer, parts, served)


@contextmanager
def _kept(engine: Engine, served: Served) -> Iterator[None]:
    """Keep a model loaded, which need not be the one that the request was admitted for."""
    engine.registry.acquire(served)
    try:
        yield
    finally:
        engine.registry.release(served)


def _limit(engine: Engine, request: Request) -> float:
    """Seconds until there must be an answer: the server's limit, or the client's shorter one."""
    most = engine.settings.request_timeout_seconds
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return most
    if not given.isascii() or not given.isdecimal() or not 1 <= int(given[:9]) <= _DAY_MS:
        raise BadRequest(
            f"{TIMEOUT_HEADER}: expected milliseconds from 1 to {_DAY_MS}, got {given[:80]!r}."
        )
    return min(most, int(given) / 1e3)


async def _segment_all(
    engine: Engine, order: Order[Any], progress: list[Progress], deadline: float
) -> list[Encoded]:
    """Segment every photo, at a time; the first failure is raised and ends the others."""

    async def one(upload: Upload, reached: Progress) -> Encoded:
        task = Task(upload.name, upload.data, order.answer)
        try:
            return await engine.segment(task, order.served, reached, deadline)
        except KNOWN as error:
            found = problem(error)
            if len(order.uploads) > 1:
                found.detail = f"{upload.name}: {found.detail}"
            raise found from error

    pairs = list(zip(order.uploads, progress, strict=True))
    if len(pairs) == 1:
        return [await one(*pairs[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in pairs]
    except BaseExceptionGroup as failures:
        # The first failure cancelled the other images, and is the one to tell the client.
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def while_connected(request: Request, work: Awaitable[R]) -> R:
    """The result of ``work``, which is cancelled when the client hangs up.

    Raises:
        ClientGone: when it did.
    """
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task is not None and not task.uncancel():
            raise ClientGone("The client closed the connection before the answer.") from None
        raise
    finally:
        watcher.cancel()


def _observe(engine: Engine, served: Served, parts: list[Encoded], total: float) -> None:
    """Note the seconds of each stage and of the whole in the metrics."""
    name = served.model.name
    engine.metrics.statistics[name].answered((part.seconds for part in parts), total)
    histogram = engine.metrics.stage_seconds
    for part in parts:
        for stage, seconds in part.seconds._asdict().items():
            histogram.labels(name, stage).observe(seconds)
    histogram.labels(name, "total").observe(total)


def _server_timing(parts: list[Encoded]) -> str:
    """The slowest image of each stage, in milliseconds."""
    return ", ".join(
        f"{stage};dur={max(getattr(part.seconds, stage) for part in parts) * 1e3:.1f}"
        for stage in _STAGES[1:]
    )
