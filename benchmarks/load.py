"""Closed-loop load on a running service: N clients, each waiting for its answer.

Usage: python -m benchmarks.load --url http://127.0.0.1:8000 --clients 64 --seconds 30
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from benchmarks.measure import write

console = Console()


@dataclass(frozen=True)
class Load:
    """What the clients saw, and the mean batch size the service reports for the time."""

    clients: int
    seconds: float
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    statuses: dict[str, int]
    mean_batch_size: float


async def _client(
    http: httpx.AsyncClient, photo: bytes, until: float, seen: list[tuple[str, float]]
) -> None:
    while time.monotonic() < until:
        start = time.monotonic()
        try:
            answer = await http.post(
                "/segment", content=photo, headers={"content-type": "image/jpeg"}
            )
            status = str(answer.status_code)
        except httpx.HTTPError as error:
            status = type(error).__name__
        seen.append((status, time.monotonic() - start))


async def _batches(http: httpx.AsyncClient) -> tuple[float, float]:
    """Images and batches so far, over all models."""
    text = (await http.get("/metrics")).text
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        if family.name == "ppool_batch_size"
        for sample in family.samples
    }
    return samples.get("ppool_batch_size_sum", 0), samples.get("ppool_batch_size_count", 0)


async def load(url: str, photo: bytes, clients: int, seconds: float) -> Load:
    """Run ``clients`` closed loops for ``seconds``."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        (await http.get("/readyz")).raise_for_status()
        images, batches = await _batches(http)
        seen: list[tuple[str, float]] = []
        start = time.monotonic()
        until = start + seconds
        await asyncio.gather(*(_client(http, photo, until, seen) for _ in range(clients)))
        elapsed = time.monotonic() - start
        images_after, batches_after = await _batches(http)
    cuts = quantiles([latency * 1e3 for _, latency in seen], n=100)
    return Load(
        clients=clients,
        seconds=round(elapsed, 1),
        requests_per_second=round(len(seen) / elapsed, 1),
        p50_milliseconds=round(cuts[49], 1),
        p99_milliseconds=round(cuts[98], 1),
        statuses=dict(Counter(status for status, _ in seen)),
        mean_batch_size=round((images_after - images) / max(batches_after - batches, 1), 2),
    )


def main(
    photo: Annotated[Path, typer.Argument(help="A JPEG to send.")],
    url: Annotated[str, typer.Option(help="Where the service listens.")] = "http://127.0.0.1:8000",
    clients: Annotated[int, typer.Option(help="Requests under way at a time.")] = 64,
    seconds: Annotated[float, typer.Option(help="How long.")] = 30.0,
    name: Annotated[str, typer.Option(help="Name of the result file.")] = "load",
) -> None:
    """Load a running service and print what its clients saw."""
    result = asdict(asyncio.run(load(url, photo.read_bytes(), clients, seconds)))
    console.print(result)
    command = f"python -m benchmarks.load {photo.name} --clients {clients} --seconds {seconds:g}"
    console.print(f"wrote {write(name, command, result)}")


if __name__ == "__main__":
    typer.run(main)
