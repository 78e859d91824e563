"""Connections that must say what they want: a limit in seconds and bytes on a request's head."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["limited"]

# Beyond what came with its first bytes; other servers allow 8 to 64 KiB.
_HEAD_BYTES = 64 * 1024


def limited(head_timeout_seconds: float) -> type[HttpToolsProtocol]:
    """The HTTP protocol of uvicorn, which by itself waits for ever and reads heads of any length.

    A connection is closed if no whole request head has come ``head_timeout_seconds`` after it was
    opened or, once used, after something came again; too long a head is answered with 431.
    """
    return type("Limited", (_Limited,), {"head_timeout_seconds": head_timeout_seconds})


class _Limited(HttpToolsProtocol):
    head_timeout_seconds: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            # It was idle. uvicorn now stops its own timer, whatever this is.
            self._start_timer()
        in_head = self._in_head
        super().data_received(data)
        if in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.head_timeout_seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self) -> None:
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.transport.close()
