"""Connections that must move: limits on a request's head and on an answer that nobody takes.

And connections that stay what they are: offers to go on with another protocol are ignored.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import select
import sys
import termios
from array import array
from contextlib import suppress
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["limited"]

_logger = logging.getLogger("ppool.service")

# Beyond what came with its first bytes; other servers allow 8 to 64 KiB.
_HEAD_BYTES = 64 * 1024

# What an offer consists of (RFC 7540, section 3.2; RFC 9110, section 7.8).
_OFFER = {b"connection", b"upgrade", b"http2-settings"}

# All answers begin so.
_BEGINNING = b"HTTP/1.1 "
_LOOK_SECONDS = 0.1


def limited(head_timeout_seconds: float) -> type[HttpToolsProtocol]:
    """The HTTP protocol of uvicorn, which by itself waits for ever and reads heads of any length.

    A connection is closed if no whole request head has come ``head_timeout_seconds`` after it was
    opened or, once used, after something came again; too long a head is answered with 431. It is
    closed, too, if the client takes nothing of an answer for as long. A client that has closed its
    half of the connection gets what it asked for.
    """
    return type("Limited", (_Limited,), {"head_timeout_seconds": head_timeout_seconds})


class _Limited(HttpToolsProtocol):
    head_timeout_seconds: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _reading: asyncio.TimerHandle | None = None
    _data = b""
    _running: RequestResponseCycle | None = None
    _watching: asyncio.TimerHandle | None = None

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
        self._data = data
        super().data_received(data)
        self._data = b""
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
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Take the request for what it is without the offer, by reading it again.

        Java's HttpClient and ``curl --http2`` offer h2c with every request. The parser ends a
        request at its head then, and its body would be lost.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":  # which is such an offer by itself
            self.send_400_response("This is not a proxy.")
            return
        offer: Any = sys.exception()  # httptools.HttpParserUpgrade
        rest = self._data[offer.args[0] :]
        version = self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [b"%s: %s" % header for header in self.headers if header[0] not in _OFFER]
        if not self.parser.should_keep_alive():
            head.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*head, b"", rest]))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on for a client that has said all it will, as ``nc -N`` does.

        One that is gone looks the same. So the first bytes of an answer, which are always the same,
        are sent at once: from where nobody is left the system resets the connection.
        """
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()
        running = self._running
        if running is None or running.response_complete or running.more_body:
            return False
        if not running.response_started:
            running.waiting_for_100_continue = False
            self.transport.write(_BEGINNING)
            running.transport = _Begun(running)  # type: ignore[assignment]
        self._watch()
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._watching is not None and self._running and self._running.response_complete:
            self.transport.close()

    def _watch(self) -> None:
        """Notice that a client is gone of whom nothing more is read."""
        gone = select.poll()
        gone.register(self.transport.get_extra_info("socket"), 0)  # errors are always reported
        if gone.poll(0):
            self.transport.abort()
        else:
            self._watching = self.loop.call_later(_LOOK_SECONDS, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watching is not None:
            self._watching.cancel()
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
        _logger.debug("a head of more than %d bytes was refused", _HEAD_BYTES)
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.transport.close()


class _Begun:
    """The transport of an answer whose first bytes have been sent."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._transport = cycle, cycle.transport

    def write(self, data: bytes) -> None:
        self._cycle.transport = self._transport
        self._transport.write(data.removeprefix(_BEGINNING))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
