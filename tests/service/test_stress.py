"""What must hold when things go wrong, on a real server; ``make stress`` runs it for longer."""

import asyncio
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat, takewhile
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.clients import Answers, closed_loop
from tests.service.harness import encoded, photo, tiny_model
from tests.service.traffic import PATIENCE_SECONDS, Server, served, until

SECONDS = float(os.environ.get("STRESS_SECONDS", "2"))
BODIES = int(os.environ.get("STRESS_BODIES", "300"))

# Decoding it takes some ten milliseconds, so that a few clients are a load.
LARGE = encoded(photo(1500, 1000), "JPEG")
SMALL = encoded(photo())
MEBIBYTE = 2**20


def closed(server: Server, body: bytes, clients: int, seconds: float) -> Answers:
    """What clients see that ask for the same photo again and again."""
    return asyncio.run(closed_loop(repeat(server.request(body)), clients, seconds))


def status(server: Server, body: bytes) -> int:
    """Of one answer."""
    (found,) = asyncio.run(closed_loop(iter([server.request(body)]), 1)).statuses
    return found


@contextmanager
def all_served_meanwhile(server: Server, body: bytes, clients: int) -> Iterator[None]:
    """Clients ask for the same photo again and again, and each time get their mask."""
    stop = threading.Event()
    requests = takewhile(lambda _: not stop.is_set(), repeat(server.request(body)))
    with ThreadPoolExecutor(1) as background:
        load = background.submit(asyncio.run, closed_loop(requests, clients))
        try:
            yield
        finally:
            stop.set()
        assert set(load.result().statuses) == {200}


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    with served(str(model_file), "--workers", "2") as server:
        yield server


def test_overload_is_refused_with_retry_after_and_leaves_no_trace(model_file: Path) -> None:
    """Four clients for every place, so that it is one however fast the machine is.

    That nobody is accepted whose deadline will pass is a matter of time: test_batching.py has it.
    """
    places = 32
    patience = {"PPOOL_REQUEST_TIMEOUT_SECONDS": str(PATIENCE_SECONDS)}
    with served(
        str(model_file), "--workers", "1", PPOOL_MAX_REQUESTS=str(places), **patience
    ) as server:
        before = closed(server, LARGE, 4 * places, 1.0)
        # What the full queue and the bodies on their way take is taken by now, and kept.
        memory = server.memory_bytes()
        seen = closed(server, LARGE, 4 * places, SECONDS)
        statuses = Counter(before.statuses + seen.statuses)
        assert set(statuses) == {200, 429}
        for code, reason in ((200, "ok"), (429, "overloaded")):
            line = f'ppool_requests_total{{reason="{reason}",status="{code}"}}'
            assert server.metric(line) == statuses[code]
        assert all(1 <= int(text or 0) <= 30 for text in seen.retry_after)
        assert server.memory_bytes() - memory < 128 * MEBIBYTE
        assert status(server, LARGE) == 200
        assert server.metric("ppool_queue_depth") == 0
        assert server.metric("ppool_requests_in_flight") == 0


def test_a_refusal_arrives_though_the_photo_was_never_read(server: Server) -> None:
    request = server.request(LARGE + bytes(4 * MEBIBYTE), **{"X-Request-Timeout-Ms": "0"})
    seen = asyncio.run(closed_loop(repeat(request, 20), 1))
    assert set(seen.statuses) == {400}


def test_killed_workers_lose_no_request_and_readiness_tells(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(tiny_model())
    with served(str(file), "--workers", "1") as server:
        (first,) = server.workers()
        with all_served_meanwhile(server, LARGE, 16):
            until(lambda: server.metric("ppool_queue_depth") > 0)
            # Without its file no worker can start, however late somebody looks.
            file.rename(tmp_path / "hidden")
            os.kill(first, signal.SIGKILL)
            until(lambda: server.get("/readyz").status_code == 503)
            assert server.get("/livez").status_code == 200
            (tmp_path / "hidden").rename(file)
            until(lambda: server.get("/readyz").status_code == 200)
        assert server.metric("ppool_worker_restarts_total") >= 1
        assert server.workers() != [first]


def test_with_a_worker_left_the_service_stays_ready(server: Server) -> None:
    restarts = server.metric("ppool_worker_restarts_total")
    with all_served_meanwhile(server, LARGE, 8):
        os.kill(server.workers()[0], signal.SIGKILL)
        until(lambda: server.metric("ppool_worker_restarts_total") > restarts)
        assert server.get("/readyz").status_code == 200
        until(lambda: server.metric("ppool_worker_up") == 2)
    assert server.metric("ppool_worker_restarts_total") == restarts + 1


def test_workers_that_hang_one_after_the_other_lose_no_request(model_file: Path) -> None:
    """One every five seconds, on a machine that starts a worker in that time; else as it can."""
    pace, end, hangs = min(SECONDS, 5.0), time.monotonic() + SECONDS, 0
    patience = {"PPOOL_REQUEST_TIMEOUT_SECONDS": str(2 * PATIENCE_SECONDS)}
    with served(str(model_file), "--workers", "2", **patience) as server:
        with all_served_meanwhile(server, LARGE, 16):
            while not hangs or time.monotonic() < end:
                until(lambda: server.metric("ppool_worker_up") >= 1)
                workers = server.workers()
                os.kill(workers[hangs % len(workers)], signal.SIGSTOP)
                hangs += 1
                time.sleep(pace)
            # A halted worker counts as up until its silence is noticed.
            until(lambda: server.metric("ppool_worker_restarts_total") > 0)
            until(lambda: server.metric("ppool_worker_up") == 2)
        replaced = server.metric("ppool_worker_restarts_total")
    print(f"{hangs} hangs in {SECONDS:g} s, {replaced:g} workers replaced, every request answered")
    assert 0 < replaced <= hangs


def test_workers_end_with_a_server_that_is_killed(model_file: Path) -> None:
    with served(str(model_file), "--workers", "2") as server:
        workers = server.workers()
        assert len(workers) == 2
        server.process.kill()
        server.process.wait()
        # An orphan that has ended stays as a zombie until whoever adopts it looks.
        until(lambda: not any(_alive(pid) for pid in workers))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_model_is_swapped_under_load_and_a_bad_file_is_not(tmp_path: Path) -> None:
    def put(content: bytes) -> None:
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").rename(tmp_path / "model.onnx")
        server.process.send_signal(signal.SIGHUP)

    def digest() -> str:
        return str(server.get("/models").json()[0]["sha256"])

    (tmp_path / "model.onnx").write_bytes(tiny_model())
    with served(str(tmp_path / "model.onnx"), "--workers", "2") as server:
        first = digest()
        with all_served_meanwhile(server, SMALL, 4):
            put(tiny_model(seed=1))
            until(lambda: digest() != first)
            second = digest()
            put(b"not an ONNX file")
            until(lambda: server.metric('ppool_model_reloads_total{model="tiny",outcome="failed"}'))
            assert digest() == second
        assert server.metric('ppool_model_reloads_total{model="tiny",outcome="loaded"}') == 1
        assert len(server.workers()) == 2


def test_models_of_a_folder_come_and_go(tmp_path: Path) -> None:
    def names() -> set[str]:
        return {model["name"] for model in server.get("/models").json()}

    def answering(query: str = "") -> str:
        address = f"{server.address}/segment{query}"
        answer = httpx.post(address, content=SMALL, timeout=PATIENCE_SECONDS)
        return answer.headers["x-model"]

    (tmp_path / "a.onnx").write_bytes(tiny_model())
    with served(str(tmp_path), PPOOL_RELOAD_SECONDS="0.1", PPOOL_WORKERS="1") as server:
        assert names() == {"tiny"}
        (tmp_path / "b.part").write_bytes(tiny_model(name="other"))
        (tmp_path / "b.part").rename(tmp_path / "b.onnx")
        until(lambda: names() == {"tiny", "other"})
        assert answering("?model=other") == "other"
        (tmp_path / "a.onnx").unlink()
        until(lambda: names() == {"other"})
        assert answering() == "other"


def test_clients_that_hang_up_leave_nothing_behind(server: Server) -> None:
    gone = server.metric('ppool_requests_total{reason="client-gone",status="499"}')
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LARGE)}\r\n\r\n".encode()
    for cut in (len(head) // 2, len(head) + 10, len(head) + len(LARGE) // 2, None):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall((head + LARGE)[:cut])
    # Those that broke off in the body, at least; the whole ones may be answered in time.
    until(
        lambda: (
            server.metric('ppool_requests_total{reason="client-gone",status="499"}') >= gone + 10
            and server.metric("ppool_requests_in_flight") == 0
        )
    )
    assert server.metric("ppool_queue_depth") == 0
    assert status(server, SMALL) == 200


def test_a_client_that_sends_too_slowly_is_answered_504(model_file: Path) -> None:
    with (
        served(str(model_file), PPOOL_REQUEST_TIMEOUT_SECONDS="0.5", PPOOL_WORKERS="1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as client,
    ):
        client.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
        assert client.recv(12) == b"HTTP/1.1 504"


LINE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def hasty(model_file: Path) -> Iterator[Server]:
    """A server that closes connections without a whole request head after a second."""
    with served(str(model_file), PPOOL_HEAD_TIMEOUT_SECONDS="1", PPOOL_WORKERS="1") as server:
        yield server


def dribble(client: socket.socket, drop: bytes) -> bytes:
    """What comes until the server closes, while ``drop`` is sent every 50 milliseconds."""
    client.settimeout(0.05)
    received, end = b"", time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if not (content := client.recv(4096)):
                return received
            received += content
        except TimeoutError:
            client.sendall(drop)
        except ConnectionError:
            return received
    raise AssertionError("never closed")


@pytest.mark.parametrize(
    ("first", "drop", "answers"),
    [
        (b"", b"", 0),
        (LINE, b"X-A: b\r\n", 0),
        (LINE + b"X-A: ", b"b", 0),
        (LINE + b"\r\n", LINE[:1], 1),
        (LINE + b"\r\n", b"\r\n", 1),
        (LINE + b"Content-Length: 9999\r\n\r\n", b"b", 1),
    ],
    ids=["silence", "headers", "a value", "a second request", "empty lines", "an unwanted body"],
)
def test_a_connection_with_no_whole_request_head_is_closed_in_time(
    hasty: Server, first: bytes, drop: bytes, answers: int
) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port)) as client:
        client.sendall(first)
        assert dribble(client, drop).count(b"HTTP/1.1 200 OK") == answers


def test_the_time_for_the_head_is_not_counted_against_body_or_answer(hasty: Server) -> None:
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SMALL)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", hasty.port)) as client:
        for _ in range(2):
            client.sendall(head)
            client.settimeout(1.5)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(PATIENCE_SECONDS)
            client.sendall(SMALL)
            assert client.recv(12) == b"HTTP/1.1 200"
            while b"IEND" not in client.recv(4096):
                pass


def test_too_long_a_request_head_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(LINE + b"X-A: ")
        assert dribble(client, b"b" * 2**15).startswith(b"HTTP/1.1 431")


def test_an_endless_request_head_is_cut_off(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(LINE + b"X-A: ")
        with pytest.raises(ConnectionError):
            client.sendall(b"b" * 20 * MEBIBYTE)


def mutated(body: bytes, source: random.Random) -> bytes:
    """``body`` with bytes changed, cut out, doubled or cut off."""
    content = bytearray(body)
    for _ in range(source.randint(1, 8)):
        at = source.randrange(len(content))
        match source.randrange(5):
            case 0:
                content[at] = source.randrange(256)
            case 1:
                content[at : at + 4] = source.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
            case 2:
                del content[at : at + source.randint(1, 64)]
            case 3:
                content[at:at] = content[at : at + source.randint(1, 64)]
            case 4:
                del content[max(at, 1) :]
        if not content:
            return b"\0"
    return bytes(content)


def test_mutated_photos_never_break_the_service(server: Server) -> None:
    source = random.Random(0)  # noqa: S311 - to be the same every time
    kinds = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
    modes = {"PNG": np.uint16, "TIFF": np.uint16}
    corpus = [encoded(photo(90, 60), kind) for kind in kinds]
    corpus += [encoded(photo()[:, :, 0].astype(dtype), kind) for kind, dtype in modes.items()]
    workers = server.workers()
    bodies = (mutated(source.choice(corpus), source) for _ in range(BODIES))
    memory = server.memory_bytes()
    seen = Counter(asyncio.run(closed_loop(map(server.request, bodies), 16)).statuses)
    assert seen.total() == BODIES
    assert set(seen) <= {200, 413, 415, 422}
    assert min(seen[200], seen[422]) > 0
    assert server.workers() == workers
    assert server.memory_bytes() - memory < 128 * MEBIBYTE


@contextmanager
def large_answer(server: Server) -> Iterator[socket.socket]:
    """A connection on which several MB begin to come, and of which little fits in between."""
    body = encoded(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
    head = f"POST /segment?overlay=true HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        yield client


def test_an_answer_that_nobody_takes_is_not_kept(hasty: Server) -> None:
    with large_answer(hasty) as client:
        open_files = Path(f"/proc/{hasty.process.pid}/fd")
        before = len(list(open_files.iterdir()))
        until(lambda: len(list(open_files.iterdir())) < before)
        rest = b"".join(iter(lambda: client.recv(MEBIBYTE), b""))
    assert b"IEND" not in rest


def test_an_answer_that_is_taken_slowly_comes_whole(hasty: Server) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.05)
    rest = b""
    with ours, theirs, large_answer(hasty) as client:
        while content := client.recv(2**18, socket.MSG_WAITALL):
            rest += content
            with pytest.raises(TimeoutError):
                ours.recv(1)
    assert b"IEND" in rest
