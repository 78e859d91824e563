"""Keys, deadlines that clients set, and the log."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ppool.service.logs import configure_logging
from ppool.service.settings import load_settings
from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo
from tests.service.traffic import PATIENCE_SECONDS, until

BODY = encoded(photo())
Serving = Callable[..., Any]


@pytest.fixture(scope="module")
def locked(serving: Serving) -> Iterator[Client]:
    with serving(api_keys="first-key,second-key") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer second-key"},
        {"X-API-Key": "second-key"},
        {"X-API-Key": "first-key", "Authorization": "Basic of-a-proxy"},
    ],
)
def test_a_valid_key_opens(locked: Client, headers: dict[str, str]) -> None:
    assert locked.segment(BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer first", "Basic first-key", "first-key, x"]
)
def test_without_a_valid_key_nothing_opens(locked: Client, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given, "X-API-Key": given}
    for method, path in (
        *(("POST", "/segment"), ("GET", "/models"), ("GET", "/v2"), ("GET", "/nothing")),
        *(("HEAD", "/models"), ("GET", "/livez/"), ("GET", "/playground/../models")),
    ):
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]
        if method != "HEAD" and not path.startswith("/v2"):
            assert answer.json()["type"] == "urn:ppool:problem:unauthorized"


def test_a_key_of_other_letters_is_refused_too(locked: Client) -> None:
    answer = locked.segment(BODY, headers={"Authorization": "Bearer \u00e9".encode("latin-1")})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        *("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
        *("/", "/playground/main.js", "/docs", "/docs-assets/start.js", "/openapi.json"),
    ],
)
def test_probes_metrics_and_pages_need_no_key(locked: Client, path: str) -> None:
    assert locked.get(path).status_code == 200


def test_the_description_says_how_to_give_a_key_and_where_none_is_needed(
    locked: Client, client: Client
) -> None:
    document = locked.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    assert document["security"] == [{"bearer": []}, {"key": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            open_to_all = locked.request(method, path).status_code != 401
            assert (operation.get("security") == []) == open_to_all, path
    assert "security" not in client.get("/openapi.json").json()


GETS = ["/livez", "/readyz", "/metrics", "/models", "/models/tiny", "/v2", "/v2/models/tiny/ready"]


@pytest.mark.parametrize("path", [*GETS, "/", "/docs", "/openapi.json", "/playground/main.js"])
def test_head_answers_as_get_without_a_body(client: Client, path: str) -> None:
    head, get = client.request("HEAD", path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # whose length changes
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(("path", "status"), [("/segment", 405), ("/x", 404), ("/models/x", 404)])
def test_head_of_what_cannot_be_got_is_refused_without_a_body(
    client: Client, path: str, status: int
) -> None:
    answer = client.request("HEAD", path)
    assert (answer.status_code, answer.content) == (status, b"")


def test_a_wrong_method_is_told_the_right_ones(client: Client) -> None:
    for method, path, allowed in (("PUT", "/segment", "POST"), ("POST", "/livez", "GET, HEAD")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


ORIGIN = "https://photos.example.org"


def preflight(client: Client, origin: str, method: str = "POST", headers: str = "") -> Any:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    asked |= {"Access-Control-Request-Headers": headers} if headers else {}
    return client.request("OPTIONS", "/segment", headers=asked)


@pytest.fixture(scope="module")
def shared(serving: Serving) -> Iterator[Client]:
    with serving(api_keys="key", cors_origins=f"{ORIGIN},http://localhost:3000") as client:
        yield client


def test_a_page_elsewhere_may_ask_if_its_origin_is_set(shared: Client) -> None:
    """The steps of a browser (Fetch, section 3.3); a preflight carries no key."""
    asked = "authorization,content-type,x-request-timeout-ms,x-api-key"
    answer = preflight(shared, ORIGIN, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    allowed = answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert set(asked.split(",")) <= set(allowed)
    assert "POST" in answer.headers["access-control-allow-methods"].replace(" ", "").split(",")
    headers = {"Origin": ORIGIN, "Authorization": "Bearer key"}
    answer = shared.segment(BODY, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower().replace(" ", "").split(",")
    assert {"x-request-id", "x-model", "server-timing", "retry-after"} <= set(exposed)
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers


def test_refusals_can_be_read_by_a_page_elsewhere_too(shared: Client) -> None:
    for answer in (
        shared.segment(BODY, headers={"Origin": ORIGIN}),
        shared.segment(b"x", headers={"Origin": ORIGIN, "X-API-Key": "key"}),
        shared.request("GET", "/x", headers={"Origin": ORIGIN, "X-API-Key": "key"}),
    ):
        assert answer.status_code >= 400
        assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://example.org", f"{ORIGIN}.evil.test", "null"])
def test_other_origins_get_no_leave(shared: Client, origin: str) -> None:
    headers = {"Origin": origin, "X-API-Key": "key"}
    for answer in (preflight(shared, origin), shared.segment(BODY, headers=headers)):
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


def test_without_the_setting_no_page_elsewhere_may_ask(client: Client) -> None:
    answer = client.segment(BODY, headers={"Origin": ORIGIN})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert preflight(client, ORIGIN).status_code == 405


@pytest.mark.parametrize("origin", ["photos.example.org", "https://a.test/", "https://*.a.test"])
def test_what_is_no_origin_stops_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        load_settings(cors_origins=origin)


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
def logged(form: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What calls read is the log so far, which a thread writes."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        configure_logging(form)
        try:
            yield path.read_text
        finally:
            root.handlers[:] = before
            root.setLevel(level)


def test_json_logs_carry_the_request(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with logged("json", path, monkeypatch) as log, serving(log_requests=True) as client:
        client.segment(b"broken", headers={"X-Request-Id": "r7"})
        until(lambda: '"path":"/segment"' in log().replace(": ", ":"))
        records = [json.loads(line) for line in log().splitlines()]
    record = next(record for record in records if record.get("path") == "/segment")
    assert record["request_id"] == "r7"
    assert (record["method"], record["status"]) == ("POST", 415)
    assert (record["reason"], record["level"]) == ("unsupported-image", "INFO")
    assert record["seconds"] >= 0


def test_json_logs_carry_the_traceback(
    serving: Serving,
    gated: Segmenter,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with logged("json", tmp_path / "log", monkeypatch) as log, serving(gated) as client:
        monkeypatch.setattr(client.app.state.engine, "served", lambda _: {}["cause"])
        assert client.segment(BODY).status_code == 500
        until(lambda: "KeyError" in log())
        records = [json.loads(line) for line in log().splitlines()]
    assert any("KeyError: 'cause'" in record.get("traceback", "") for record in records)


def test_text_logs_end_with_the_request(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with logged("text", path, monkeypatch) as log, serving(log_requests=True) as client:
        client.segment(BODY, headers={"X-Request-Id": "r8"})
        until(lambda: "[r8]" in log())
        assert "INFO POST /segment 200 ok" in log()
