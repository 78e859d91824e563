"""Around every request: its id, its count, and an answer even when a handler breaks."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine import Engine
from service.errors import InternalError, problem

__all__ = ["Envelope"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

_logger = logging.getLogger("ppool.service")


class Envelope:
    """Pure ASGI: Starlette's ``BaseHTTPMiddleware`` would hide that a client hangs up."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        sent_id = request.headers.get("x-request-id", "")
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
        request.state.reason = "ok"
        status = None

        async def send_labelled(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if self._engine.phase == "draining":
                    # Sends clients that keep connections open elsewhere before this process stops.
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_labelled)
        except Exception:
            _logger.exception("request %s failed", request_id)
            request.state.reason = InternalError.reason()
            if status is None:
                await problem(InternalError())(scope, receive, send_labelled)
        if scope["path"] == "/segment" and status is not None:
            self._engine.metrics.requests.labels(str(status), request.state.reason).inc()
