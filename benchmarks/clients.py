"""Clients that cost little, to load a service with: raw HTTP/1.1, closed or open loop."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Answers", "Request", "closed_loop", "open_loop"]


@dataclass(frozen=True)
class Request:
    """What to POST, as the bytes on the wire.

    With the header ``Connection: close`` it has a connection of its own, and is never sent twice.
    """

    host: str
    port: int
    wire: bytes

    @classmethod
    def post(cls, url: str, body: bytes, headers: dict[str, str]) -> Request:
        """A POST of ``body``."""
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        fields = {"Host": f"{host}:{port}", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        wire = f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + body
        return cls(host, port, wire)


@dataclass
class Answers:
    """What the clients saw.

    Attributes:
        seconds: How long it took.
        statuses: Of each answer; 0 is a broken connection.
        latencies: Of each answer, in seconds.
        retry_after: Of each answer with status 429, where it has one.
        last_body: Of an answer with status 200.
    """

    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    retry_after: list[str | None] = field(default_factory=list)
    last_body: bytes = b""

    def note(self, status: int, latency: float, headers: dict[bytes, bytes], body: bytes) -> None:
        """Add one answer."""
        self.statuses.append(status)
        self.latencies.append(latency)
        if status == 429:
            self.retry_after.append(headers.get(b"retry-after", b"").decode() or None)
        if status == 200:
            self.last_body = body

    @property
    def good(self) -> list[float]:
        """Seconds of the answers with status 200."""
        return [s for s, status in zip(self.latencies, self.statuses, strict=True) if status == 200]


class _Connection:
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the answer.

        A kept connection may have been closed by the server meanwhile; then, as clients do, once
        more on a new one.

        Raises:
            OSError, asyncio.IncompleteReadError: if the server closed the connection.
        """
        if self._streams is not None:
            with suppress(OSError, asyncio.IncompleteReadError):
                return await self._exchange(request)
        return await self._exchange(request)

    async def _exchange(self, request: Request) -> tuple[int, dict[bytes, bytes], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(request.host, request.port, limit=2**22)
        reader, writer = self._streams
        try:
            writer.write(request.wire)
            head = await reader.readuntil(b"\r\n\r\n")
            status, *lines = head.split(b"\r\n")
            pairs = (line.partition(b":") for line in lines if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            if headers.get(b"transfer-encoding") == b"chunked":
                body = b""
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                body = await reader.readexactly(int(headers[b"content-length"]))
        except BaseException:
            self.close()
            raise
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return int(status.split()[1]), headers, body

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _ask(connection: _Connection, request: Request, start: float, seen: Answers) -> None:
    try:
        status, headers, body = await connection.send(request)
    except (OSError, asyncio.IncompleteReadError):
        status, headers, body = 0, {}, b""
    seen.note(status, time.perf_counter() - start, headers, body)


async def closed_loop(
    requests: Iterator[Request], clients: int, seconds: float = math.inf
) -> Answers:
    """``clients`` that each send the next request when their last is answered.

    Ends after ``seconds``, or when there are no more requests.
    """
    seen = Answers()
    begin = time.perf_counter()

    async def client() -> None:
        connection = _Connection()
        while (start := time.perf_counter()) < begin + seconds:
            request = next(requests, None)
            if request is None:
                break
            await _ask(connection, request, start, seen)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    seen.seconds = time.perf_counter() - begin
    return seen


async def open_loop(
    requests: Iterator[Request], rate: float, seconds: float, seed: int = 0
) -> Answers:
    """Poisson arrivals at ``rate`` a second, whatever the server does.

    ``requests`` must not end before ``seconds``. Latencies count from the moment a request was due,
    so that clients which the server holds up do not flatter it.
    """
    rng, seen = random.Random(seed), Answers()  # noqa: S311 - arrival times, not secrets
    idle: list[_Connection] = []
    due = begin = time.perf_counter()

    async def arrival(request: Request, due: float) -> None:
        connection = idle.pop() if idle else _Connection()
        await _ask(connection, request, due, seen)
        idle.append(connection)

    async with asyncio.TaskGroup() as group:
        while (due := due + rng.expovariate(rate)) < begin + seconds:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            group.create_task(arrival(next(requests), due))
    for connection in idle:
        connection.close()
    seen.seconds = time.perf_counter() - begin
    return seen
