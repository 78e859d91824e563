"""``POST /segment``: photos in, masks out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from ppool.service.codecs.answers import ZIP, Answer, Encoded, assemble, offers
from ppool.service.engine import Engine, Task
from ppool.service.http import openapi
from ppool.service.http.errors import (
    KNOWN,
    BadRequest,
    ClientGone,
    DeadlinePassed,
    NotAcceptable,
    problem,
)
from ppool.service.http.negotiation import choose
from ppool.service.http.uploads import Upload, read_uploads
from ppool.service.models import Served
from ppool.service.timing import Progress, Stage

__all__ = ["add_segment", "observe", "segment_all", "while_connected"]

TIMEOUT_HEADER = "X-Request-Timeout-Ms"

R = TypeVar("R")

STAGES: tuple[Stage, ...] = ("receive", "decode", "queue", "infer", "encode")

# A day; the server's own limit is far below.
_LONGEST_TIMEOUT_MS = 86_400_000

# A ZIP of more than this is packed on a thread, or it would hold up everyone else.
_INLINE_BYTES = 2**20


class SegmentQuery(BaseModel, extra="forbid"):
    """The query of ``POST /segment``."""

    model: str | None = Field(None, description="name of a loaded model; the first by default")
    alpha: Literal["none", "maps", "full"] = Field(
        "none",
        description="the pooling exponents: a summary and a picture of each stage (JSON, ZIP), "
        "or all of them as float16 (NPZ, ZIP)",
    )
    overlay: bool = Field(False, description="blend the class colours over the photo (PNG, ZIP)")
    mode: Literal["resize", "tile"] = Field(
        "resize",
        description="what becomes of a photo larger than the model's input: made smaller, or "
        "segmented at full resolution in overlapping windows, which takes longer (no alpha)",
    )
    mask: Literal["png", "rle"] = Field("png", description="how the JSON answer carries the mask")
    timeout_ms: int | None = Field(
        None,
        alias="X-Request-Timeout-Ms",
        ge=1,
        le=_LONGEST_TIMEOUT_MS,
        description="answer within this time or not at all; the server may allow less",
    )


def add_segment(app: FastAPI, engine: Engine) -> None:
    """Serve the route on ``engine``."""

    # FastAPI would read the parameters at three times the cost of the whole rest of the route.
    @app.post(
        "/segment",
        summary="Segment one or several images",
        tags=["segmentation"],
        response_class=Response,
        responses=openapi.SEGMENT_RESPONSES,
        openapi_extra={"requestBody": openapi.SEGMENT_BODY, "parameters": _parameters()},
    )
    async def segment(request: Request) -> Response:
        """The mask of a photo, at the photo's own size. `Accept` chooses the kind of answer.

        The same image gives the same mask, whatever else the service is working on.
        """
        query = _query(request)
        served = engine.served(query.model)
        limit = engine.settings.request_timeout_seconds
        if query.timeout_ms is not None:
            limit = min(limit, query.timeout_ms / 1e3)
        deadline = time.monotonic() + limit
        progress = [Progress()]
        with engine.admission(served, deadline) as hold:
            try:
                async with asyncio.timeout(limit):
                    uploads = await read_uploads(request, engine.settings, hold)
                    answer = _negotiate(request, query, len(uploads))
                    progress = [Progress() for _ in uploads]
                    work = _answer(engine, served, uploads, answer, progress, deadline)
                    parts, body = await while_connected(request, work)
            except TimeoutError:
                stages = (photo.stage for photo in progress)
                raise DeadlinePassed(min(stages, key=STAGES.index)) from None
        request.state.parts = parts
        observe(engine, served, parts, time.monotonic() - deadline + limit)
        headers = {
            "X-Model": served.model.name,
            "Server-Timing": _server_timing(parts),
            "Vary": "Accept",
        }
        return Response(body, headers=headers, media_type=answer.media)


def _query(request: Request) -> SegmentQuery:
    given = dict(request.query_params)
    timeout = request.headers.get(TIMEOUT_HEADER)
    if timeout is not None:
        given[TIMEOUT_HEADER] = timeout
    try:
        return SegmentQuery.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _parameters() -> list[dict[str, Any]]:
    """The fields of :class:`SegmentQuery` as OpenAPI has them."""
    schemas = SegmentQuery.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "header" if name == TIMEOUT_HEADER else "query",
            "description": schema.pop("description"),
            "schema": schema,
        }
        for name, schema in schemas.items()
    ]


def _negotiate(request: Request, query: SegmentQuery, count: int) -> Answer:
    if query.mode == "tile" and query.alpha != "none":
        raise BadRequest("There are no alpha maps with mode=tile; leave one of the two out.")
    rle = query.mask == "rle"
    available = offers(count, query.alpha, overlay=query.overlay, rle=rle)
    if not available:
        raise BadRequest(
            f"No answer has all of alpha={query.alpha}, overlay={query.overlay} and "
            f"mask={query.mask}; leave one out."
        )
    accept = request.headers.get("accept", "*/*")
    media = choose(accept, available)
    if media is None:
        raise NotAcceptable(
            f"This answer is available as {', '.join(available)}; Accept was {accept!r}.", available
        )
    return Answer(media, query.alpha, query.overlay, rle, tile=query.mode == "tile")


async def _answer(
    engine: Engine,
    served: Served,
    uploads: list[Upload],
    answer: Answer,
    progress: list[Progress],
    deadline: float,
) -> tuple[list[Encoded], bytes]:
    parts = await segment_all(engine, served, uploads, answer, progress, deadline)
    size = sum(len(content) for part in parts for content in part.files.values())
    if answer.media == ZIP and size > _INLINE_BYTES:
        return parts, await asyncio.to_thread(assemble, parts, answer.media)
    return parts, assemble(parts, answer.media)


async def segment_all(
    engine: Engine,
    served: Served,
    uploads: list[Upload],
    answer: Answer,
    progress: list[Progress],
    deadline: float,
) -> list[Encoded]:
    """Segment every photo, at a time; the first failure is raised and ends the others."""

    async def one(upload: Upload, reached: Progress) -> Encoded:
        task = Task(upload.name, upload.data, answer)
        try:
            return await engine.segment(task, served, reached, deadline)
        except KNOWN as error:
            found = problem(error)
            if len(uploads) > 1:
                found.detail = f"{upload.name}: {found.detail}"
            raise found from error

    if len(uploads) == 1:
        return [await one(uploads[0], progress[0])]
    try:
        async with asyncio.TaskGroup() as group:
            pairs = zip(uploads, progress, strict=True)
            tasks = [group.create_task(one(*pair)) for pair in pairs]
    except BaseExceptionGroup as failures:
        # The first failure cancelled the other images, and is the one to tell the client.
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def while_connected(request: Request, work: Coroutine[Any, Any, R]) -> R:
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


def observe(engine: Engine, served: Served, parts: list[Encoded], total: float) -> None:
    """Note the seconds of each stage and of the whole in the metrics."""
    histogram = engine.metrics.stage_seconds
    for part in parts:
        for stage, seconds in part.seconds._asdict().items():
            histogram.labels(served.model.name, stage).observe(seconds)
    histogram.labels(served.model.name, "total").observe(total)


def _server_timing(parts: list[Encoded]) -> str:
    """The slowest image of each stage, in milliseconds."""
    return ", ".join(
        f"{stage};dur={max(getattr(part.seconds, stage) for part in parts) * 1e3:.1f}"
        for stage in STAGES[1:]
    )
