"""``POST /segment``: photos in, masks out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.types import ASGIApp, Receive, Scope, Send

from ppool.service.answers import Encoded
from ppool.service.engine import Engine
from ppool.service.http import openapi
from ppool.service.http.errors import KNOWN, BadRequest, NotAcceptable, problem
from ppool.service.http.exchange import Hold, Order, exchange
from ppool.service.http.media import MEDIA_TYPES, offers
from ppool.service.http.middleware import answer_error
from ppool.service.http.negotiation import choose
from ppool.service.http.options import SegmentOptions
from ppool.service.http.pieces import Pieces
from ppool.service.http.uploads import read_uploads

__all__ = ["add_segment"]

# More than this is put together on a thread, or it would hold up everyone else.
_INLINE_BYTES = 2**20

# Of a query, and of a name or value that is told back.
_QUERY_BYTES, _SHOWN = 4096, 80

# Options that not every form of answer can have.
_OF_ANSWERS = {"alpha", "overlay", "cutout", "answers", "mask", "probability", "planes"}


def add_segment(app: FastAPI, engine: Engine) -> ASGIApp:
    """Serve the route on ``engine``; what is returned is the same with nothing between."""

    async def segment(request: Request) -> Response:
        """The mask of a photo, at the photo's own size. `Accept` chooses the kind of answer.

        The same image gives the same mask, whatever else the service is working on.
        """
        query = _query(request)
        asked = _options(query)
        served = engine.served(asked.model)

        async def read(hold: Hold) -> Order[Response]:
            form = await read_uploads(request, engine.settings, hold)
            options = _options([*query, *form.options]) if form.options else asked
            kind = _negotiate(request, options, len(form.uploads))
            media, chosen = MEDIA_TYPES[kind], engine.served(options.model)

            async def render(images: list[Encoded]) -> Response:
                size = sum(len(content) for image in images for content in image.files.values())
                if size > _INLINE_BYTES:
                    pieces = await asyncio.to_thread(media.assemble, images)
                else:
                    pieces = media.assemble(images)
                headers = {"Vary": "Accept"}
                if len(pieces) > 1:
                    return Pieces(pieces, headers=headers, media_type=kind)
                return Response(pieces[0], headers=headers, media_type=kind)

            answer = media.answer(options, chosen.model)
            return Order(form.uploads, answer, render, chosen)

        return await exchange(engine, request, served, read)

    async def direct(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            answer = await segment(request)
        except KNOWN as error:
            answer = answer_error(request, problem(error))
        await answer(scope, receive, send)

    app.router.add_api_route(
        "/segment",
        segment,
        methods=["POST"],
        summary="Segment one or several images",
        tags=["segmentation"],
        response_class=Response,
        responses=openapi.SEGMENT_RESPONSES,
        openapi_extra=openapi.segment_request(SegmentOptions.model_json_schema()["properties"]),
    )
    return direct


def _query(request: Request) -> list[tuple[str, str]]:
    if len(request.scope["query_string"]) > _QUERY_BYTES:
        raise BadRequest(f"Send a query of at most {_QUERY_BYTES} bytes.")
    return request.query_params.multi_items()


def _options(given: Iterable[tuple[str, str]]) -> SegmentOptions:
    values: dict[str, str] = {}
    for name, value in given:
        if values.setdefault(name, value) != value:
            raise BadRequest(f"{name[:_SHOWN]}: given twice, and differently; leave one out.")
    try:
        return SegmentOptions.model_validate(values)
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors()]
        raise BadRequest(f"Correct the options: {'; '.join(faults[:4])}.") from error


def _fault(error: ErrorDetails) -> str:
    name = str(error["loc"][0])[:_SHOWN]
    if error["type"] == "extra_forbidden":
        return f"{name}: there is none of that name; /docs lists all"
    return f"{name}: {error['msg']}, got {error['input'][:_SHOWN]!r}"


def _negotiate(request: Request, options: SegmentOptions, count: int) -> str:
    if options.mode == "tile" and options.alpha != "none":
        raise BadRequest("There are no alpha maps with mode=tile; leave one of the two out.")
    if part := options.without_names:
        raise BadRequest(f"Say which classes the {part} is of: {part}=NAMES, with commas between.")
    available = offers(count, options)
    if not available:
        asked = options.model_dump(include=_OF_ANSWERS, exclude_defaults=True)
        named = ", ".join(f"{name}={str(value)[:_SHOWN]}" for name, value in asked.items())
        raise BadRequest(f"No answer has all of {named}; leave one out.")
    # Several lines are one list (RFC 9110, section 5.3).
    accept = ", ".join(request.headers.getlist("accept"))
    media = choose(accept, available)
    if media is None:
        raise NotAcceptable(
            f"This answer is available as {', '.join(available)}; Accept was {accept[:_SHOWN]!r}.",
            available,
        )
    return media
