"""A span for every request for masks, with one for each stage inside it (OpenTelemetry)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppool.service.answers import Encoded
from ppool.service.timing import Stage, StageSeconds

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["Asked", "Record", "exporting_provider", "recorder"]

_ORDER: tuple[Stage, ...] = ("queue", "decode", "infer", "encode")


@dataclass
class Asked:
    """A request, whichever protocol it came by; ``reason`` and ``parts`` say what became of it."""

    method: str
    path: str
    headers: Mapping[str, str]
    reason: str = "ok"
    parts: Sequence[Encoded] = ()


# Notes an answered request: its status and the seconds it took.
Record = Callable[[Asked, int, float], None]


def exporting_provider() -> TracerProvider | None:
    """Sends spans to ``OTEL_EXPORTER_OTLP_ENDPOINT``; ``None`` where that is not set.

    Every other ``OTEL_`` variable is honoured too; the exporter reads them.

    Raises:
        ValueError: if it is set and the packages are missing.
    """
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ValueError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set but OpenTelemetry is not installed; install "
            "ppool[otel]"
        ) from error
    os.environ.setdefault("OTEL_SERVICE_NAME", "ppool")
    provider = SdkProvider(resource=Resource.create())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def recorder(provider: TracerProvider) -> Record:
    """Records requests with ``provider``, as children of the ``traceparent`` that was sent."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("ppool.service")
    propagator = TraceContextTextMapPropagator()

    def record(asked: Asked, status: int, seconds: float) -> None:
        end = time.time_ns()
        span = tracer.start_span(
            f"{asked.method} {asked.path}",
            context=propagator.extract(dict(asked.headers)),
            kind=trace.SpanKind.SERVER,
            start_time=end - _nanoseconds(seconds),
            attributes={
                "http.request.method": asked.method,
                "url.path": asked.path,
                "http.response.status_code": status,
                "ppool.reason": asked.reason,
            },
        )
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR, asked.reason)
        for part in asked.parts:
            inside = trace.set_span_in_context(span)
            for stage, start, stop in _timeline(part.seconds, end):
                child = tracer.start_span(
                    stage, context=inside, start_time=start, attributes={"ppool.image": part.name}
                )
                child.end(stop)
        span.end(end)

    return record


def _timeline(seconds: StageSeconds, end: int) -> list[tuple[Stage, int, int]]:
    """Stage, start and end in nanoseconds: one after the other, the last at ``end``.

    A worker tells durations only, and its clock need not be the server's.
    """
    rows: list[tuple[Stage, int, int]] = []
    for stage in reversed(_ORDER):
        start = end - _nanoseconds(getattr(seconds, stage))
        rows.append((stage, start, end))
        end = start
    return rows[::-1]


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
