"""A day of traffic on autoscaled pods, second by second; deterministic.

A fluid model: images are real numbers, every pod gets an equal share of what arrives, serves what
its measured rate allows and refuses what its queue cannot hold. It shows what scaling does; the
queueing below a second, which ``queueing`` computes, is not in it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.capacity.autoscaler import SYNC_SECONDS, Autoscaler, Observation, Rules

__all__ = ["Day", "Site", "Traffic", "run"]

CPU_WINDOW_SECONDS = 30  # over which the kubelet's CPU use is averaged
SCRAPE_SECONDS = 15  # how old a custom metric can be

Traffic = Callable[[int], float]


def daily(mean: float, swing: float, burst: float, seconds: int = 86_400) -> Traffic:
    """Images a second at second t: lowest at 04:00, and ``burst`` times as many from 14:00.

    The burst comes within a minute, lasts 20 and goes as fast.
    """

    def traffic(second: int) -> float:
        base = mean * (1 - swing * math.cos(2 * math.pi * (second / seconds - 4 / 24)))
        into = second - seconds * 14 / 24
        share = min(max(into / 60, 0.0), 1.0, max((21 * 60 - into) / 60, 0.0))
        return base * (1 + (burst - 1) * share)

    return traffic


@dataclass(frozen=True)
class Site:
    """The pods: what one serves (images a second), holds, and how long one takes to be ready."""

    images_per_second: float
    queue_images: int
    start_seconds: int


@dataclass
class Day:
    """What happened in each second; images."""

    arrived: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        """Of all images."""
        return sum(self.refused) / sum(self.arrived)

    @property
    def replica_hours(self) -> float:
        """Paid for, starting ones included."""
        return sum(self.replicas) / 3600

    def wait_percentile(self, share: float) -> float:
        """Seconds that ``share`` of the served images waited at most."""
        left = share * sum(self.served)
        for wait, served in sorted(zip(self.wait_seconds, self.served, strict=True)):
            left -= served
            if left <= 0:
                return wait
        return max(self.wait_seconds, default=0.0)


class _Pods:
    """Queues of the ready pods, those that leave, and the times at which new ones are ready."""

    def __init__(self, site: Site, count: int) -> None:
        self._site = site
        self.queues = [0.0] * count
        self.leaving: list[float] = []
        self.starting: deque[int] = deque()

    @property
    def replicas(self) -> int:
        return len(self.queues) + len(self.starting)

    def step(self, now: int, arriving: float) -> tuple[float, float]:
        """One second: images served and refused."""
        while self.starting and self.starting[0] <= now:
            self.starting.popleft()
            self.queues.append(0.0)
        share = arriving / len(self.queues)
        served = refused = 0.0
        for pods in (self.queues, self.leaving):
            for index, queue in enumerate(pods):
                there = queue + (share if pods is self.queues else 0.0)
                done = min(there, self._site.images_per_second)
                kept = min(there - done, self._site.queue_images)
                pods[index] = kept
                served += done
                refused += there - done - kept
        self.leaving = [queue for queue in self.leaving if queue]
        return served, refused

    def scale(self, now: int, replicas: int) -> None:
        """Start pods, or stop the youngest: those still starting first, then the emptiest."""
        while self.replicas < replicas:
            self.starting.append(now + self._site.start_seconds)
        while self.replicas > replicas:
            if self.starting:
                self.starting.pop()
            else:
                emptiest = min(range(len(self.queues)), key=self.queues.__getitem__)
                self.leaving.append(self.queues.pop(emptiest))


def run(traffic: Traffic, site: Site, rules: Rules | int, seconds: int = 86_400) -> Day:
    """Simulate; ``rules`` is an autoscaler's, or a fixed number of replicas."""
    fixed = rules if isinstance(rules, int) else None
    scaler = None if isinstance(rules, int) else Autoscaler(rules)
    start = math.ceil(traffic(0) / site.images_per_second / 0.7)
    pods = _Pods(site, fixed or max(start, rules.minimum if isinstance(rules, Rules) else 1))
    day = Day()
    busy: list[float] = []
    for now in range(seconds):
        arriving = traffic(now)
        served, refused = pods.step(now, arriving)
        waiting = sum(pods.queues) + sum(pods.leaving)
        day.arrived.append(arriving)
        day.served.append(served)
        day.refused.append(refused)
        day.waiting.append(waiting)
        day.wait_seconds.append(sum(pods.queues) / len(pods.queues) / site.images_per_second)
        day.ready.append(len(pods.queues))
        day.replicas.append(pods.replicas + len(pods.leaving))
        busy.append(min(served / (len(pods.queues) * site.images_per_second), 1.0))
        if scaler and now % SYNC_SECONDS == 0 and now:
            means = {
                "cpu": _mean(busy[-CPU_WINDOW_SECONDS:]),
                "ppool_queue_seconds": day.wait_seconds[max(0, now - SCRAPE_SECONDS)],
            }
            seen = Observation(len(pods.queues), len(pods.starting), means)
            pods.scale(now, scaler.decide(now, seen))
    return day


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
