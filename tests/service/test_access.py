"""Keys, deadlines that clients set, and the log."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest

from ppool.service.logs import configure_logging
from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo
from tests.service.traffic import PATIENCE_SECONDS

BODY = encoded(photo())
Serving = Callable[..., Any]


@pytest.fixture(scope="module")
def locked(serving: Serving) -> Iterator[Client]:
    with serving(api_keys="first-key,second-key") as client:
        yield client


@pytest.mark.parametrize("given", ["Bearer first-key", "bearer second-key"])
def test_a_valid_key_opens(locked: Client, given: str) -> None:
    assert locked.segment(BODY, headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer first", "Basic first-key", "first-key"]
)
def test_without_a_valid_key_nothing_opens(locked: Client, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    for method, path in (("POST", "/segment"), ("GET", "/models"), ("GET", "/")):
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["type"] == "urn:ppool:problem:unauthorized"
        assert answer.headers["x-request-id"]


def test_a_key_of_other_letters_is_refused_too(locked: Client) -> None:
    answer = locked.segment(BODY, headers={"Authorization": "Bearer \u00e9".encode("latin-1")})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_and_metrics_need_no_key(locked: Client, path: str) -> None:
    assert locked.get(path).status_code == 200


@pytest.mark.parametrize(("asked_milliseconds", "seconds"), [("600000", 600), ("7200000", 3600)])
def test_a_client_can_ask_for_a_shorter_deadline_but_no_longer_one(
    serving: Serving, gated: Segmenter, gate: Gate, asked_milliseconds: str, seconds: int
) -> None:
    with serving(gated, workers=1, request_timeout_seconds=3600) as client:
        gate.close()
        headers = {"X-Request-Timeout-Ms": asked_milliseconds}
        pending = client.start("POST", "/segment", content=BODY, headers=headers)
        gate.arrived.acquire()
        client.skip(seconds)
        try:
            answer = pending.result(PATIENCE_SECONDS)
        finally:
            gate.open.set()
        assert answer.status_code == 504


@pytest.mark.parametrize("given", ["0", "-1", "soon", "1.5", "9" * 400])
def test_a_deadline_that_is_no_number_of_milliseconds_is_refused(
    client: Client, given: str
) -> None:
    answer = client.segment(BODY, headers={"X-Request-Timeout-Ms": given})
    assert answer.status_code == 400
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


@contextmanager
def logged(form: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    monkeypatch.setattr(sys, "stderr", StringIO())
    configure_logging(form)
    try:
        yield sys.stderr  # type: ignore[misc]
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_json_logs_carry_the_request(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with logged("json", monkeypatch) as log, serving(log_requests=True) as client:
        client.segment(b"broken", headers={"X-Request-Id": "r7"})
        records = [json.loads(line) for line in log.getvalue().splitlines()]
    record = next(record for record in records if record.get("path") == "/segment")
    assert record["request_id"] == "r7"
    assert (record["method"], record["status"]) == ("POST", 415)
    assert (record["reason"], record["level"]) == ("unsupported-image", "INFO")
    assert record["seconds"] >= 0


def test_json_logs_carry_the_traceback(
    serving: Serving, gated: Segmenter, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logged("json", monkeypatch) as log, serving(gated) as client:
        monkeypatch.setattr(client.app.state.engine, "served", lambda _: {}["cause"])
        assert client.segment(BODY).status_code == 500
        records = [json.loads(line) for line in log.getvalue().splitlines()]
    assert any("KeyError: 'cause'" in record.get("traceback", "") for record in records)


def test_text_logs_end_with_the_request(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with logged("text", monkeypatch) as log, serving(log_requests=True) as client:
        client.segment(BODY, headers={"X-Request-Id": "r8"})
        assert "INFO POST /segment 200 ok" in log.getvalue()
        assert "[r8]" in log.getvalue()
