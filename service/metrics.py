"""What Prometheus sees: seconds, ``ppool_`` prefix, a registry of our own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

__all__ = ["Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)


class Metrics:
    """Every instrument of the service."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "ppool_requests",
            "Answered POST /segment requests; reason is ok or the slug of the problem type.",
            ("status", "reason"),
            registry=registry,
        )
        self.refused = Counter(
            "ppool_refused",
            "Requests refused by admission control.",
            ("reason",),
            registry=registry,
        )
        self.in_flight = Gauge(
            "ppool_requests_in_flight", "Requests being answered.", registry=registry
        )
        self.stage_seconds = Histogram(
            "ppool_stage_seconds",
            "Time an image spent decoding (with the wait for a thread), queueing, in inference, "
            "encoding; and in total.",
            ("model", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "ppool_batch_size", "Images in one inference.", ("model",), buckets=SIZES,
            registry=registry,
        )  # fmt: skip
        self.pad_waste = Histogram(
            "ppool_pad_waste_ratio",
            "Share of the pixels of one inference that is padding.",
            ("model",),
            buckets=FRACTIONS,
            registry=registry,
        )
        self._queue_depth = Gauge(
            "ppool_queue_depth", "Decoded images waiting for a worker.", registry=registry
        )
        self._build = Gauge(
            "ppool_build_info",
            "Always 1; what is running, in the labels.",
            ("version", "model", "kernels", "provider"),
            registry=registry,
        )

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Read the queue depth from ``depth`` at every scrape."""
        self._queue_depth.set_function(depth)

    def loaded(self, *, version: str, model: str, kernels: str, provider: str) -> None:
        """Note a loaded model."""
        self._build.labels(version, model, kernels, provider).set(1)

    def render(self) -> bytes:
        """The text of ``GET /metrics``."""
        return generate_latest(self._registry)
