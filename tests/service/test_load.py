"""Too much, too slow, gone: what happens when a request cannot simply be answered."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from ppool.service.errors import Refused
from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo
from tests.service.traffic import until

BODY = encoded(photo())
Serving = Callable[..., Any]


def test_a_full_service_answers_429_with_retry_after_and_recovers(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1, max_requests=3) as client:
        gate.close()
        held = [client.start("POST", "/segment", content=BODY) for _ in range(3)]
        gate.arrived.acquire()
        refused = client.segment(BODY)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.json()["retry_after_seconds"] == int(refused.headers["retry-after"])
        assert client.metric('ppool_refused_total{reason="requests"}') == 1
        assert client.metric("ppool_requests_in_flight") == 3
        gate.open.set()
        assert [answer.result().status_code for answer in held] == [200] * 3
        assert client.segment(BODY).status_code == 200
        assert client.metric('ppool_requests_total{reason="overloaded",status="429"}') == 1
        assert client.metric("ppool_requests_in_flight") == 0


def test_a_full_queue_refuses_before_the_body_is_read(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1, queue_images=2) as client:
        gate.close()
        held = [client.start("POST", "/segment", content=BODY)]
        gate.arrived.acquire()
        held += [client.start("POST", "/segment", content=BODY) for _ in range(2)]
        until(lambda: client.metric("ppool_queue_depth") == 2)
        assert client.segment(b"not even an image").status_code == 429
        assert client.metric('ppool_refused_total{reason="queue"}') == 1
        gate.open.set()
        assert [answer.result().status_code for answer in held] == [200] * 3


def test_what_waits_in_two_buckets_of_one_shape_is_one_series(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1) as client:
        gate.close()
        held = [client.start("POST", "/segment", content=BODY)]
        gate.arrived.acquire()
        for query in ("", "?alpha=full"):
            headers = {"Accept": "application/x-npz"}
            held.append(client.start("POST", f"/segment{query}", content=BODY, headers=headers))
        until(lambda: client.metric("ppool_queue_depth") == 2)
        rows = client.get("/metrics").text.splitlines()
        gate.open.set()
        assert [answer.result().status_code for answer in held] == [200] * 3
    assert sum(row.startswith("ppool_queue_depth{") for row in rows) == 1


def test_what_waits_shares_a_batch(serving: Serving, gated: Segmenter, gate: Gate) -> None:
    with serving(gated, workers=1, max_batch_size=8) as client:
        gate.close()
        first = client.start("POST", "/segment", content=BODY)
        gate.arrived.acquire()
        waiting = [client.start("POST", "/segment", content=BODY) for _ in range(13)]
        until(lambda: client.metric("ppool_queue_depth") == 13)
        gate.open.set()
        bodies = {answer.result().content for answer in [first, *waiting]}
        assert gate.sizes == [1, 8, 4, 1]
        assert len(bodies) == 1


def test_other_outputs_and_other_shapes_do_not_share_a_batch(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1, max_batch_size=8) as client:
        gate.close()
        held = [client.start("POST", "/segment", content=BODY)]
        gate.arrived.acquire()
        for query, body in (("", BODY), ("?alpha=full", BODY), ("", encoded(photo(120, 90)))):
            held += [client.start("POST", f"/segment{query}", content=body) for _ in range(2)]
        until(lambda: client.metric("ppool_queue_depth") == 6)
        gate.open.set()
        assert [answer.result().status_code for answer in held] == [200] * 7
        assert gate.sizes == [1, 2, 2, 2]


def test_sixty_four_clients_make_batches_of_more_than_two(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1, max_batch_size=8) as client:
        gate.close()
        pending = [client.start("POST", "/segment", content=BODY)]
        gate.arrived.acquire()
        pending += [client.start("POST", "/segment", content=BODY) for _ in range(63)]
        until(lambda: client.metric("ppool_queue_depth") == 63)
        gate.open.set()
        assert {answer.result().status_code for answer in pending} == {200}
        batches = client.metric('ppool_batch_size_count{model="tiny"}')
        assert client.metric('ppool_batch_size_sum{model="tiny"}') == 64
        assert batches == 1 + 7 + 3


@pytest.mark.parametrize("queued", [False, True])
def test_a_passed_deadline_names_the_stage(
    serving: Serving, gated: Segmenter, gate: Gate, *, queued: bool
) -> None:
    with serving(gated, workers=1) as client:
        gate.close()
        pending = [client.start("POST", "/segment", content=BODY) for _ in range(1 + queued)]
        gate.arrived.acquire()
        until(lambda: client.metric("ppool_queue_depth") == queued)
        client.skip(client.app.state.engine.settings.request_timeout_seconds)
        answers = [answer.result() for answer in pending]
        assert [answer.status_code for answer in answers] == [504] * len(answers)
        stages = sorted(answer.json()["stage"] for answer in answers)
        assert stages == ["infer", "queue"][: len(stages)]
        assert client.metric("ppool_queue_depth") == 0
        gate.open.set()
        assert client.segment(BODY).status_code == 200
        assert len(gate.sizes) == 2


async def call(client: Client, messages: list[dict[str, Any]], last: Any) -> list[dict[str, Any]]:
    """Speak ASGI by hand: ``messages``, then whatever awaiting ``last`` gives."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/segment",
        "raw_path": b"/segment",
        "query_string": b"",
        "headers": [(b"host", b"test")],
    }

    async def receive() -> Any:
        return messages.pop(0) if messages else await last()

    async def send(message: Any) -> None:
        sent.append(message)

    await client.app(scope, receive, send)
    return sent


def test_a_client_that_hangs_up_leaves_the_queue(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1) as client:
        gate.close()
        first = client.start("POST", "/segment", content=BODY)
        gate.arrived.acquire()

        async def hang_up_once_queued() -> dict[str, Any]:
            while not client.app.state.engine.buckets():
                await anyio.lowlevel.checkpoint()
            return {"type": "http.disconnect"}

        body = {"type": "http.request", "body": BODY}
        sent = client.portal.call(call, client, [body], hang_up_once_queued)
        assert sent[0]["status"] == 499
        assert client.metric("ppool_queue_depth") == 0
        gate.open.set()
        assert first.result().status_code == 200
        assert len(gate.sizes) == 1
        assert client.metric('ppool_requests_total{reason="client-gone",status="499"}') == 1


def test_a_client_that_hangs_up_while_sending_is_let_go(client: Client) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    part = {"type": "http.request", "body": BODY[:50], "more_body": True}
    assert client.portal.call(call, client, [part], gone)[0]["status"] == 499


def test_a_client_that_never_finishes_sending_gets_504(serving: Serving) -> None:
    with serving(request_timeout_seconds=0.1) as client:
        part = {"type": "http.request", "body": BODY[:50], "more_body": True}
        sent = client.portal.call(call, client, [part], anyio.sleep_forever)
        assert sent[0]["status"] == 504
        assert b'"stage":"receive"' in sent[1]["body"]


def test_an_endless_body_is_cut_off(serving: Serving) -> None:
    with serving(max_body_bytes=1000) as client:
        chunks = 0

        async def more() -> dict[str, Any]:
            nonlocal chunks
            chunks += 1
            return {"type": "http.request", "body": bytes(100), "more_body": True}

        sent = client.portal.call(call, client, [], more)
        assert sent[0]["status"] == 413
        assert (b"connection", b"close") in sent[0]["headers"]
        assert chunks == 11


def test_an_announced_oversize_is_refused_unread(serving: Serving) -> None:
    with serving(max_body_bytes=1000) as client:
        assert client.segment(bytes(1001)).status_code == 413
        assert client.segment(b"x", headers={"Content-Length": "1001"}).status_code == 413


def test_a_failing_inference_is_a_500_without_its_cause_and_the_worker_goes_on(
    serving: Serving, gated: Segmenter, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(gated, workers=1) as client:
        run = gate._run
        gate._run = lambda *_: {}["secret"]
        answer = client.segment(BODY)
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:ppool:problem:internal-error"
        assert "secret" not in answer.text
        assert "KeyError" in caplog.text
        gate._run = run
        assert client.segment(BODY).status_code == 200


def test_a_device_without_memory_for_one_image_is_a_429(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1")

    with serving(gated, workers=1) as client:
        gate._run = full
        answer = client.segment(BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_a_wrong_number_of_results_is_noticed(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1) as client:
        gate._run = lambda *_: [[]]  # type: ignore[list-item]
        assert client.segment(BODY).status_code == 500


def test_a_broken_handler_is_a_500_with_its_request_id_in_the_log(
    serving: Serving, segmenter: Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(dataclasses.replace(segmenter)) as client:

        def broken(_: str | None) -> None:
            raise KeyError

        client.app.state.engine.served = broken
        answer = client.segment(BODY, headers={"X-Request-Id": "r1"})
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] == "r1"
        assert "request r1 failed" in caplog.text
        assert client.metric('ppool_requests_total{reason="internal-error",status="500"}') == 1


def test_before_the_model_is_warm_requests_get_503(serving: Serving) -> None:
    with serving() as client:
        engine = client.app.state.engine
        engine.phase = "starting"
        assert client.segment(BODY).status_code == 503
        assert client.get("/readyz").status_code == 503
        engine.phase = "ready"
        assert client.segment(BODY).status_code == 200


def test_stopping_finishes_what_was_accepted(
    serving: Serving, gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, workers=1) as client:
        gate.close()
        pending = [client.start("POST", "/segment", content=BODY) for _ in range(4)]
        gate.arrived.acquire()
        until(lambda: client.metric("ppool_queue_depth") == 3)
        stopping = client.portal.start_task_soon(client.app.state.engine.stop)
        until(lambda: client.get("/readyz").json() == {"status": "draining"})
        gate.open.set()
        stopping.result()
        assert [answer.result().status_code for answer in pending] == [200] * 4


def test_bodies_that_are_coming_in_count_against_the_bytes(serving: Serving) -> None:
    with serving(queue_bytes=1000) as client:
        engine = client.app.state.engine
        request = partial(engine.admission, engine.served(None), math.inf)
        with request() as first, request() as second:
            first(999)
            with pytest.raises(Refused):
                second(2)
        assert client.metric('ppool_refused_total{reason="bytes"}') == 1
        with request() as alone:
            alone(10_000)
        assert client.segment(BODY).status_code == 200
