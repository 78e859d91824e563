"""What one image costs the service: CPU time, time by stage, bytes."""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks.load import load
from benchmarks.measure import write
from benchmarks.running import ROOT, cpu_seconds, service

__all__ = ["Cost", "measure"]

PHOTO = ROOT / "ppool" / "service" / "playground" / "desk.jpg"
EDGES = ("decode", "encode")


@dataclass(frozen=True)
class Cost:
    """What one image takes; times in seconds.

    Attributes:
        cpu_seconds: CPU time of the whole service, all its processes, under load. Unlike the time
            on the clock it hardly changes when other programs want the same cores.
        edge_seconds: Decoding and encoding, on the clock, of the fastest of many sent one by one.
        photo_bytes: Size of the photo.
        mask_bytes: Size of its mask.
    """

    cpu_seconds: float
    edge_seconds: float
    photo_bytes: int
    mask_bytes: int


def _busy_seconds() -> float:
    """Time that the machine's cores were not idle, whoever used them."""
    times = psutil.cpu_times()
    return sum((times.user, times.nice, times.system, times.irq, times.softirq))


def measure(workers: int, rounds: int) -> Path:
    """Measure on this machine and store the result, with how busy others kept it."""
    photo = PHOTO.read_bytes()
    stages: dict[str, float] = {}
    by_round = []
    own_before = sum(os.times()[:4])
    busy, start = _busy_seconds(), time.monotonic()
    with (
        service("--workers", str(workers)) as (process, address),
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        for _ in range(20 * rounds):
            answer = http.post("/segment", content=photo).raise_for_status()
            for stage, text in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]):
                stages[stage] = min(stages.get(stage, 60.0), float(text) / 1e3)
        for _ in range(rounds):
            before = cpu_seconds(process.pid)
            result = asyncio.run(load(address, [photo], clients=8 * workers, seconds=5))
            answered = sum(result.statuses.values())
            by_round.append((cpu_seconds(process.pid) - before) / answered)
    elapsed = time.monotonic() - start
    foreign = _busy_seconds() - busy - (sum(os.times()[:4]) - own_before)
    cost = Cost(
        cpu_seconds=round(median(by_round), 4),
        edge_seconds=round(sum(stages[stage] for stage in EDGES), 4),
        photo_bytes=len(photo),
        mask_bytes=len(answer.content),
    )
    conditions = {
        "cpu_seconds_rounds": [round(seconds, 4) for seconds in by_round],
        "cores_taken_by_others": round(foreign / elapsed, 2),
    }
    command = f"python -m benchmarks.capacity measure --workers {workers} --rounds {rounds}"
    return write("capacity", command, {**asdict(cost), **conditions})
