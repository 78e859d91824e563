"""Load on a running service: clients in a closed loop, or Poisson arrivals in an open one.

Usage: python -m benchmarks.load photos/*.jpg --url http://127.0.0.1:8000 --clients 64 --seconds 30
       python -m benchmarks.load photos/*.jpg --rate 100 --timeout-ms 1000 --seconds 600
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression, quantiles
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from benchmarks.measure import write

console = Console()

_MEMORY_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """What the clients saw, and what the service reports for the time.

    Latencies are those of the answers with status 200; in an open loop they count from the moment
    the request was due, so that a generator held up by the service does not flatter it.
    """

    seconds: float
    requests_per_second: float
    answered_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    statuses: dict[str, int]
    mean_batch_size: float
    memory_megabytes: float
    memory_megabytes_per_minute: float


class _Client:
    """Posts photos over connections that are kept; a tenth of the CPU time of a whole HTTP library.

    An overloaded service must wait for its load, never the load for itself.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes, headers: str) -> str:
        """The status, or the name of what broke the connection."""
        try:
            reader, writer = (
                self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
            )
            writer.write(
                f"POST /segment HTTP/1.1\r\nHost: {self._address[0]}\r\n"
                f"Content-Length: {len(body)}\r\n{headers}\r\n".encode()
                + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError) as error:
            return type(error).__name__
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return head[9:12].decode()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


class _Run:
    def __init__(self, url: str, photos: Sequence[bytes], timeout_ms: int) -> None:
        self._client = _Client(url)
        self._photos = photos
        self._headers = "Content-Type: image/jpeg\r\n"
        if timeout_ms:
            self._headers += f"X-Request-Timeout-Ms: {timeout_ms}\r\n"
        # The same arrivals and photos in every run.
        self._random = random.Random(0)  # noqa: S311
        self.seen: list[tuple[str, float]] = []
        self.memory: list[tuple[float, float]] = []

    async def closed(self, clients: int, seconds: float) -> None:
        until = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < until:
                await self._send(time.monotonic())

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, seconds: float) -> None:
        due = start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while (due := due + self._random.expovariate(rate)) < start + seconds:
                await asyncio.sleep(max(due - time.monotonic(), 0))
                group.create_task(self._send(due))

    async def watch_memory(self, http: httpx.AsyncClient) -> None:
        while True:
            names = ("process_resident_memory_bytes", "ppool_device_memory_bytes")
            self.memory.append((time.monotonic() / 60, await _metrics(http, *names) / 1e6))
            await asyncio.sleep(_MEMORY_EVERY_SECONDS)

    def close(self) -> None:
        self._client.close()

    async def _send(self, due: float) -> None:
        status = await self._client.post(self._random.choice(self._photos), self._headers)
        self.seen.append((status, time.monotonic() - due))


async def _metrics(http: httpx.AsyncClient, *names: str) -> float:
    """The sum of these metrics over all labels."""
    text = (await http.get("/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in names
    )


async def load(
    url: str,
    photos: Sequence[bytes],
    *,
    clients: int = 1,
    rate: float = 0.0,
    timeout_ms: int = 0,
    seconds: float,
) -> Load:
    """Run ``clients`` closed loops, or an open one where ``rate`` is not 0."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        (await http.get("/readyz")).raise_for_status()
        run = _Run(url, photos, timeout_ms)
        images = await _metrics(http, "ppool_batch_size_sum")
        batches = await _metrics(http, "ppool_batch_size_count")
        start = time.monotonic()
        watching = asyncio.create_task(run.watch_memory(http))
        await (run.open(rate, seconds) if rate else run.closed(clients, seconds))
        elapsed = time.monotonic() - start
        watching.cancel()
        run.close()
        images = await _metrics(http, "ppool_batch_size_sum") - images
        batches = await _metrics(http, "ppool_batch_size_count") - batches
    accepted = [latency * 1e3 for status, latency in run.seen if status == "200"]
    cuts = quantiles(accepted, n=100)
    return Load(
        seconds=round(elapsed, 1),
        requests_per_second=round(len(run.seen) / elapsed, 1),
        answered_per_second=round(len(accepted) / elapsed, 1),
        p50_milliseconds=round(cuts[49], 1),
        p99_milliseconds=round(cuts[98], 1),
        statuses=dict(Counter(status for status, _ in run.seen)),
        mean_batch_size=round(images / max(batches, 1), 2),
        memory_megabytes=round(run.memory[-1][1], 1),
        memory_megabytes_per_minute=round(_slope(run.memory), 2),
    )


def _slope(memory: Sequence[tuple[float, float]]) -> float:
    """Megabytes a minute over the second half, when caches and arenas have filled."""
    late = memory[len(memory) // 2 :]
    if len(late) < 2:
        return 0.0
    minutes, megabytes = zip(*late, strict=True)
    return linear_regression(minutes, megabytes).slope


def main(
    photos: Annotated[list[Path], typer.Argument(help="JPEGs to send, one at random each time.")],
    url: Annotated[str, typer.Option(help="Where the service listens.")] = "http://127.0.0.1:8000",
    clients: Annotated[int, typer.Option(help="Closed loop: requests under way at a time.")] = 64,
    rate: Annotated[float, typer.Option(help="Open loop: arrivals a second; 0: closed.")] = 0.0,
    timeout_ms: Annotated[int, typer.Option(help="Deadline to ask for; 0: the service's.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long.")] = 30.0,
    name: Annotated[str, typer.Option(help="Name of the result file.")] = "load",
) -> None:
    """Load a running service and print what its clients saw."""
    bodies = [photo.read_bytes() for photo in photos]
    options = {"clients": clients, "rate": rate, "timeout_ms": timeout_ms, "seconds": seconds}
    result = asyncio.run(
        load(url, bodies, clients=clients, rate=rate, timeout_ms=timeout_ms, seconds=seconds)
    )
    console.print(asdict(result))
    flags = " ".join(f"--{key.replace('_', '-')} {value:g}" for key, value in options.items())
    names = " ".join(photo.name for photo in photos)
    path = write(name, f"python -m benchmarks.load {names} {flags}", asdict(result))
    console.print(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
