"""Load on a running service: clients in a closed loop, or Poisson arrivals in an open one.

Usage: python -m benchmarks.load photos/*.jpg --url http://127.0.0.1:8000 --clients 64 --seconds 30
       python -m benchmarks.load photos/*.jpg --rate 100 --timeout-ms 1000 --seconds 600
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import linear_regression, quantiles
from typing import Annotated

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from benchmarks.clients import Request, closed_loop, open_loop
from benchmarks.measure import write

console = Console()

_MEMORY_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """What the clients saw, and what the service reports for the time.

    Latencies are those of the answers with status 200; the status of a broken connection is 0.
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


async def _metrics(http: httpx.AsyncClient, *names: str) -> float:
    """The sum of these metrics over all labels."""
    text = (await http.get("/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in names
    )


async def _watch_memory(http: httpx.AsyncClient, seen: list[tuple[float, float]]) -> None:
    """Note minutes and megabytes until cancelled."""
    while True:
        names = ("process_resident_memory_bytes", "ppool_device_memory_bytes")
        seen.append((time.monotonic() / 60, await _metrics(http, *names) / 1e6))
        await asyncio.sleep(_MEMORY_EVERY_SECONDS)


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
    headers = {"Content-Type": "image/jpeg"}
    if timeout_ms:
        headers["X-Request-Timeout-Ms"] = str(timeout_ms)
    choices = [Request.post(f"{url.rstrip('/')}/segment", photo, headers) for photo in photos]
    source = random.Random(0)  # noqa: S311 - the same photos in every run
    requests = (source.choice(choices) for _ in count())
    memory: list[tuple[float, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        (await http.get("/readyz")).raise_for_status()
        images = await _metrics(http, "ppool_batch_size_sum")
        batches = await _metrics(http, "ppool_batch_size_count")
        watching = asyncio.create_task(_watch_memory(http, memory))
        seen = await (
            open_loop(requests, rate, seconds) if rate else closed_loop(requests, clients, seconds)
        )
        watching.cancel()
        images = await _metrics(http, "ppool_batch_size_sum") - images
        batches = await _metrics(http, "ppool_batch_size_count") - batches
    cuts = [latency * 1e3 for latency in quantiles(seen.good, n=100)]
    return Load(
        seconds=round(seen.seconds, 1),
        requests_per_second=round(len(seen.statuses) / seen.seconds, 1),
        answered_per_second=round(len(seen.good) / seen.seconds, 1),
        p50_milliseconds=round(cuts[49], 1),
        p99_milliseconds=round(cuts[98], 1),
        statuses=dict(Counter(map(str, seen.statuses))),
        mean_batch_size=round(images / max(batches, 1), 2),
        memory_megabytes=round(memory[-1][1], 1),
        memory_megabytes_per_minute=round(_slope(memory), 2),
    )


def _slope(memory: Sequence[tuple[float, float]]) -> float:
    """Megabytes a minute over the second half, when caches and arenas have filled."""
    late = memory[len(memory) // 2 :]
    if len(late) < 2:
        return 0.0
    minutes, megabytes = zip(*late, strict=True)
    return linear_regression(minutes, megabytes).slope


def main(
    photos: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="JPEGs to send, one at random each time."),
    ],
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
