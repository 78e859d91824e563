"""The photos and options of a request: a raw body, or a form."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from ppool.service.http.bodies import read_body, stream_body
from ppool.service.http.errors import BadRequest
from ppool.service.http.forms import PART, Form, FormReader, Upload
from ppool.service.settings import Settings

__all__ = ["read_uploads"]


async def read_uploads(request: Request, settings: Settings, hold: Callable[[int], None]) -> Form:
    """Read the whole body; ``hold`` is called with the bytes of every part that came.

    Raises:
        ServiceError: as :func:`ppool.service.http.bodies.stream_body`.
        BadRequest: if the multipart form is broken or has no part called ``image``.
    """
    limit, content_type = settings.max_body_bytes, request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/"):
        data = await read_body(request, limit, hold)
        if not data:
            raise BadRequest(f"Send an image as the body, or as a multipart part called {PART!r}.")
        return Form([Upload(PART, data)])
    reader = FormReader(content_type, settings.max_images)
    async for piece in stream_body(request, limit, hold):
        reader.feed(piece)
    form = reader.close()
    if not form.uploads:
        raise BadRequest(f"Send each image as a multipart file part called {PART!r}.")
    return form
