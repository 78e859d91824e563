"""Connections that must move: limits on a request's head and on an answer that nobody takes."""

from __future__ import annotations

import asyncio
import fcntl
import termios
from array import array
from contextlib import suppress
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["limited"]

# Beyond what came with its first bytes; other servers allow 8 to 64 KiB.
_HEAD_BYTES = 64 * 1024


def limited(head_timeout_seconds: float) -> type[HttpToolsProtocol]:
    """The HTTP protocol of uvicorn, which by itself waits for ever and reads heads of any length.

    A connection is closed if no whole request head has come ``head_timeout_seconds`` after it was
    opened or, once used, after something came again; too long a head is answered with 431. It is
    closed, too, if the client takes nothing of an answer for as long.
    """
    return type("Limited", (_Limited,), {"head_timeout_seconds": head_timeout_seconds})


class _Limited(HttpToolsProtocol):
    head_timeout_seconds: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Whatever the kernel does not take counts as unread.
        transport.set_write_buffer_limits(high=0)
        self._start_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader(self._unread())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_expecting()

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
        self._stop_expecting()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.head_timeout_seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect_reader(self, unread: int) -> None:
        """Cut the connection off if all ``unread`` bytes of an answer are still there in a while.

        uvicorn would keep them for as long as the client stays.
        """
        self._stop_expecting()
        self._reading = self.loop.call_later(self.head_timeout_seconds, self._look, unread)

    def _look(self, unread: int) -> None:
        left = self._unread()
        if left < unread:
            self._expect_reader(left)
        else:
            self.transport.abort()

    def _unread(self) -> int:
        """Bytes that the client has not acknowledged, here and in the kernel (tcp(7), SIOCOUTQ).

        The kernel takes more only when a third of its megabytes are free, which would be no sign of
        life from a slow client for minutes.
        """
        queued = array("i", [0])
        with suppress(OSError):  # Linux tells; elsewhere what lies here must do
            fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + queued[0]

    def _stop_expecting(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _refuse(self) -> None:
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.transport.close()
