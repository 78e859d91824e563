"""``POST /segment``: photos in, masks out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from service import openapi
from service.answers import Answer, Encoded, assemble, encode, offers
from service.engine import Engine
from service.errors import BadRequest, ClientGone, DeadlinePassed, NotAcceptable, ServiceError
from service.models import Model
from service.negotiation import choose
from service.uploads import Upload, read_uploads
from service.workers import Journey, Stage

__all__ = ["segment_router"]

R = TypeVar("R")

STAGES: tuple[Stage, ...] = ("receive", "decode", "queue", "infer", "encode")


class SegmentQuery(BaseModel, extra="forbid"):
    """The query of ``POST /segment``."""

    model: str | None = Field(None, description="name of a loaded model; the first by default")
    alpha: Literal["none", "maps", "full"] = Field(
        "none",
        description="the pooling exponents: a summary and a picture of each stage (JSON, ZIP), "
        "or all of them as float16 (NPZ, ZIP)",
    )
    overlay: bool = Field(False, description="blend the class colours over the photo (PNG, ZIP)")
    mask: Literal["png", "rle"] = Field("png", description="how the JSON answer carries the mask")


def segment_router(engine: Engine) -> APIRouter:
    """The route, on ``engine``."""
    router = APIRouter()

    @router.post(
        "/segment",
        summary="Segment one or several images",
        tags=["segmentation"],
        response_class=Response,
        responses=openapi.SEGMENT_RESPONSES,
        openapi_extra={"requestBody": openapi.SEGMENT_BODY},
    )
    async def segment(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
        """The mask of a photo, at the photo's own size. `Accept` chooses the kind of answer.

        The same image gives the same mask, whatever else the service is working on.
        """
        model = engine.model(query.model)
        limit = engine.settings.request_timeout_seconds
        deadline = time.monotonic() + limit
        journeys = [Journey()]
        with engine.admission():
            try:
                async with asyncio.timeout(limit):
                    uploads = await read_uploads(request, engine.settings)
                    answer = _negotiate(request, query, len(uploads))
                    journeys = [Journey() for _ in uploads]
                    work = _answer(engine, model, uploads, answer, journeys, deadline)
                    body = await _while_connected(request, work)
            except TimeoutError:
                stages = (journey.stage for journey in journeys)
                raise DeadlinePassed(min(stages, key=STAGES.index)) from None
        _observe(engine, model, journeys, time.monotonic() - deadline + limit)
        headers = {
            "X-Model": model.name,
            "Server-Timing": _server_timing(journeys),
            "Vary": "Accept",
        }
        return Response(body, headers=headers, media_type=answer.media)

    return router


def _negotiate(request: Request, query: SegmentQuery, count: int) -> Answer:
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
    return Answer(media, query.alpha, query.overlay, rle)


async def _answer(
    engine: Engine,
    model: Model,
    uploads: list[Upload],
    answer: Answer,
    journeys: list[Journey],
    deadline: float,
) -> bytes:
    async def one(upload: Upload, journey: Journey) -> Encoded:
        try:
            found = await engine.segment(
                upload.data, model, journey, alpha=answer.alpha != "none", deadline=deadline
            )
        except ServiceError as error:
            if len(uploads) > 1:
                error.detail = f"{upload.name}: {error.detail}"
            raise
        journey.stage = "encode"
        return await engine.encode(lambda: encode(found, upload, answer, engine.limits, journey))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in zip(uploads, journeys, strict=True)]
    except BaseExceptionGroup as failures:
        # The first failure cancelled the other images, and is the one to tell the client about.
        raise failures.exceptions[0] from None
    parts = [task.result() for task in tasks]
    return await engine.encode(lambda: assemble(parts, answer.media))


async def _while_connected(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """The result of ``work``, which is cancelled when the client hangs up.

    Raises:
        ClientGone: when it did.
    """

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watcher = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone("The client closed the connection before the answer.")
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


def _observe(engine: Engine, model: Model, journeys: list[Journey], total: float) -> None:
    histogram = engine.metrics.stage_seconds
    for journey in journeys:
        for stage, seconds in journey.seconds.items():
            histogram.labels(model.name, stage).observe(seconds)
    histogram.labels(model.name, "total").observe(total)


def _server_timing(journeys: list[Journey]) -> str:
    """The slowest image of each stage, in milliseconds."""
    return ", ".join(
        f"{stage};dur={max(journey.seconds[stage] for journey in journeys) * 1e3:.1f}"
        for stage in STAGES[1:]
    )
