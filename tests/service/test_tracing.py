"""The spans of a request."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ppool.service.tracing import exporting_provider
from tests.service.harness import encoded, photo

BODY = encoded(photo())


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


def test_a_request_is_a_child_of_its_client_and_parent_of_its_stages(
    serving: Callable[..., Any], provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with serving(tracing=provider) as client:
        client.segment(BODY, headers={"traceparent": f"00-{trace}-{caller}-01"})
    *stages, request = spans.get_finished_spans()
    assert request.name == "POST /segment"
    assert request.kind == SpanKind.SERVER
    assert f"{request.context.trace_id:032x}" == trace
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == caller
    assert dict(request.attributes or {})["http.response.status_code"] == 200
    assert [stage.name for stage in stages] == ["queue", "decode", "infer", "encode"]
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        assert stage.parent is not None
        assert stage.parent.span_id == request.context.span_id
        assert stage.start_time is not None
        assert request.start_time is not None
        assert request.start_time <= stage.start_time
        assert stage.end_time == (following.start_time if following else request.end_time)


def test_failures_are_told_apart(
    serving: Callable[..., Any],
    provider: TracerProvider,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(tracing=provider) as client:
        client.segment(b"broken")
        monkeypatch.setattr(client.app.state.engine, "served", lambda _: {}["cause"])
        client.segment(BODY)
    refused, failed = spans.get_finished_spans()
    assert refused.status.status_code == StatusCode.UNSET
    assert dict(refused.attributes or {})["ppool.reason"] == "unsupported-image"
    assert failed.status.status_code == StatusCode.ERROR


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert exporting_provider() is None
