"""Answers that are never put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

__all__ = ["Pieces"]


class Pieces(Response):
    """All at once it would hold up everyone else, and take twice the memory."""

    def __init__(self, pieces: Sequence[bytes | memoryview], **options: Any) -> None:
        super().__init__(**options)
        self._pieces = pieces
        self.headers["Content-Length"] = str(sum(map(len, pieces)))

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
