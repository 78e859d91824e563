"""Around every request: its id, its key, its count, and an answer even when a handler breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ppool.service.engine import Engine
from ppool.service.http.access import Access
from ppool.service.http.accounts import Accounts
from ppool.service.http.errors import PROBLEM_JSON, InternalError, ServiceError, Unauthorized
from ppool.service.logs import begin_request
from ppool.service.tracing import Asked, Record

__all__ = ["Envelope", "answer_error", "error_response"]


_DISCARD_SECONDS = 2.0

_logger = logging.getLogger("ppool.service")


def error_response(
    path: str, document: Mapping[str, Any], headers: Mapping[str, str] | None
) -> Response:
    """The answer to a failed request, from its problem document.

    On ``/v2`` it has the form of the Open Inference Protocol.
    """
    if path == "/v2" or path.startswith("/v2/"):
        content = orjson.dumps({"error": document["detail"]})
        return Response(content, document["status"], headers, "application/json")
    return Response(orjson.dumps(document), document["status"], headers, PROBLEM_JSON)


def answer_error(request: Request, error: ServiceError) -> Response:
    """The answer to a request that ended with ``error``, which is noted for log and metrics."""
    request.state.reason = error.reason()
    return error_response(request.scope["path"], error.document(), error.headers)


class Envelope:
    """Pure ASGI: Starlette's ``BaseHTTPMiddleware`` would hide that a client hangs up.

    Args:
        app: What is around the routes.
        engine: What they speak to.
        record: Takes the spans.
        direct: By path, what answers POST without all that: it takes an eighth of the time.
    """

    def __init__(
        self, app: ASGIApp, engine: Engine, record: Record | None, direct: Mapping[str, ASGIApp]
    ) -> None:
        self._app = app
        self._direct = direct
        self._engine = engine
        self._accounts = Accounts(engine, record)
        self._access = Access(engine.settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        identity = begin_request(request.headers.get("x-request-id"))
        request.state.reason = "ok"
        start = time.monotonic()
        status = 0
        body = _Body(receive)
        is_post = scope["method"] == "POST"
        app = self._direct.get(scope["path"], self._app) if is_post else self._app
        head = scope["method"] == "HEAD"
        if head:  # whatever answers to GET does
            scope = {**scope, "method": "GET"}

        async def send_labelled(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = identity
                if self._engine.phase == "draining":
                    # Sends clients that keep connections open elsewhere before this process stops.
                    headers["Connection"] = "close"
                if status >= 400:
                    await body.discard(self._engine.settings.max_body_bytes)
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            if self._access.allowed(scope["path"], request.headers):
                await app(scope, body.receive, send_labelled)
            else:
                await answer_error(request, Unauthorized())(scope, body.receive, send_labelled)
        except Exception:
            _logger.exception("request %s failed", identity)
            answer = answer_error(request, InternalError())
            if not status:
                await answer(scope, body.receive, send_labelled)
        masks = scope["path"] == "/segment" or scope["path"].endswith(("/infer", "/predict"))
        parts = getattr(request.state, "parts", ())
        asked = Asked(request.method, scope["path"], request.headers, request.state.reason, parts)
        self._accounts.close(asked, status, time.monotonic() - start, masks=masks)


class _Body:
    """What the client sends, of which a refusal may have left some unread."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        self._bytes = 0

    async def receive(self) -> Message:
        """The next part."""
        message = await self._receive()
        self._ended = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        return message

    async def discard(self, limit_bytes: int) -> None:
        """Read the rest, until ``limit_bytes`` have been read in all or it takes too long.

        Closing a connection with bytes unread resets it, and the client would lose its answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while not self._ended and self._bytes <= limit_bytes:
                    await self.receive()
