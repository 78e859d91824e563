"""What Prometheus sees: seconds, ``ppool_`` prefix, a registry of our own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ppool.service.statistics import ModelStatistics

__all__ = ["BucketState", "Build", "Metrics", "Watched", "WorkerState"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
FILLS = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class BucketState:
    """Images of one model and padded shape that wait; ``age_seconds`` is that of the oldest."""

    model: str
    bucket: str
    depth: int
    age_seconds: float


@dataclass(frozen=True)
class WorkerState:
    """One worker: whether it takes work, how often it was restarted, its resident bytes."""

    worker: str
    device: str
    up: bool
    restarts: int
    memory_bytes: int


@dataclass(frozen=True)
class Build:
    """A model in service and how it runs."""

    version: str
    model: str
    file: str
    kernels: str
    provider: str


class Watched(Protocol):
    """What is read at every scrape instead of being counted."""

    def ready(self) -> bool:
        """Whether requests are welcome."""

    def queue_seconds(self) -> float:
        """How long an image that came now would wait, as estimated."""

    def buckets(self) -> Iterable[BucketState]:
        """What waits."""

    def workers(self) -> Iterable[WorkerState]:
        """Who works."""

    def builds(self) -> Iterable[Build]:
        """What is served."""


class Metrics:
    """Every instrument of the service.

    Attributes:
        statistics: For ``/v2``, by the name of the model.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.statistics: defaultdict[str, ModelStatistics] = defaultdict(ModelStatistics)
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "ppool_requests",
            "Answered requests for masks; reason is ok or the slug of the problem type.",
            ("status", "reason"),
            registry=registry,
        )
        self.refused = Counter(
            "ppool_refused",
            "Requests refused by admission control: too many requests, images in the queue or "
            "bytes in it, or a deadline that could not be met.",
            ("reason",),
            registry=registry,
        )
        self.in_flight = Gauge(
            "ppool_requests_in_flight", "Requests being answered.", registry=registry
        )
        self.stage_seconds = Histogram(
            "ppool_stage_seconds",
            "Time an image spent in decode, queue, infer and encode, and a request in total.",
            ("model", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "ppool_batch_size", "Images in one inference.", ("model",), buckets=SIZES,
            registry=registry,
        )  # fmt: skip
        self.batch_fill = Histogram(
            "ppool_batch_fill_ratio",
            "Images in one inference over the most there could be.",
            ("model",),
            buckets=FILLS,
            registry=registry,
        )
        self.pad_waste = Histogram(
            "ppool_pad_waste_ratio",
            "Share of the pixels of one inference that is padding.",
            ("model",),
            buckets=FRACTIONS,
            registry=registry,
        )
        self.reloads = Counter(
            "ppool_model_reloads",
            "Model files that changed; outcome is loaded or failed (the old one goes on).",
            ("model", "outcome"),
            registry=registry,
        )
        # Without a first value a counter's first refusal would be invisible to rate().
        for reason in ("requests", "queue", "bytes", "deadline"):
            self.refused.labels(reason)
        # Finding the series of labels takes as long as counting in it.
        per_model = (self.stage_seconds, self.batch_size, self.batch_fill, self.pad_waste)
        for instrument in (self.requests, *per_model):
            vars(instrument)["labels"] = lru_cache(1024)(instrument.labels)

    def watch(self, watched: Watched) -> None:
        """Read ``watched`` at every scrape."""
        self._registry.register(_Scrape(watched))

    def render(self) -> bytes:
        """The text of ``GET /metrics``."""
        return generate_latest(self._registry)


class _Scrape(Collector):
    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ppool_ready", "1 while requests are welcome.", value=float(self._watched.ready())
        )
        yield GaugeMetricFamily(
            "ppool_queue_seconds",
            "Estimated wait of an image that came now; scale on this.",
            value=self._watched.queue_seconds(),
        )
        labels = ("version", "model", "file", "kernels", "provider")
        build = GaugeMetricFamily(
            "ppool_build_info", "Always 1; what is running, in the labels.", labels=labels
        )
        for entry in self._watched.builds():
            build.add_metric(astuple(entry), 1.0)
        yield build
        yield from self._queue()
        yield from self._workers()

    def _queue(self) -> Iterator[Metric]:
        labels = ("model", "bucket")
        depth = GaugeMetricFamily("ppool_queue_depth", "Images waiting.", labels=labels)
        age = GaugeMetricFamily(
            "ppool_queue_age_seconds", "Time the oldest waiting image has waited.", labels=labels
        )
        for state in self._watched.buckets():
            depth.add_metric((state.model, state.bucket), state.depth)
            age.add_metric((state.model, state.bucket), state.age_seconds)
        yield from (depth, age)

    def _workers(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("ppool_worker_up", "1 while it takes work.", labels=("worker",))
        restarts = CounterMetricFamily(
            "ppool_worker_restarts", "Restarts after a crash.", labels=("worker",)
        )
        memory: dict[str, int] = {}
        for state in self._watched.workers():
            up.add_metric((state.worker,), float(state.up))
            restarts.add_metric((state.worker,), state.restarts)
            memory[state.device] = memory.get(state.device, 0) + state.memory_bytes
        used = GaugeMetricFamily(
            "ppool_device_memory_bytes",
            "Resident memory of the workers on this device; on a GPU, that of their host side.",
            labels=("device",),
        )
        for device, size in memory.items():
            used.add_metric((device,), size)
        yield from (up, restarts, used)
