"""What becomes of connections, and of a log that nobody reads, on a real server."""

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ppool.service.listening import listen
from ppool.service.logs import _WAITING_LINES, _Json
from tests.service.harness import encoded, photo
from tests.service.traffic import PATIENCE_SECONDS, Server, served, until

HEAD = "POST /segment HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    """On all addresses of both families; it logs everything, to a pipe that nobody reads."""
    environment = {"PPOOL_HOST": "::", "PPOOL_LOG_LEVEL": "debug", "PPOOL_LOG_FORMAT": "json"}
    with served(str(model_file), "--workers", "1", **environment) as server:
        yield server


@contextmanager
def connected(server: Server, *said: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as client:
        for part in said:
            client.sendall(part)
        yield client


def post() -> bytes:
    body = encoded(photo())
    return HEAD.format(len(body)).encode() + body


def everything(client: socket.socket) -> bytes:
    with client.makefile("rb") as stream:
        return stream.read()


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_closes_its_half_gets_its_answers(server: Server, requests: int) -> None:
    with connected(server, post() * requests) as client:
        client.shutdown(socket.SHUT_WR)
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1 ") == requests
    assert answer.count(b"\x89PNG") == requests


@pytest.mark.parametrize("cut", [-1, 30, 0])
def test_one_that_closes_it_too_soon_is_let_go(server: Server, cut: int) -> None:
    with connected(server, post()[:cut]) as client:
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b""


def test_one_that_closes_all_of_it_is_noticed(server: Server) -> None:
    worker = psutil.Process(server.workers()[0])
    worker.suspend()
    try:
        with connected(server, post()):
            until(lambda: server.metric("ppool_requests_in_flight") == 1)
        until(lambda: server.metric("ppool_requests_in_flight") == 0)
    finally:
        worker.resume()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_all_addresses_are_of_both_families(server: Server, host: str) -> None:
    assert httpx.get(f"http://{host}:{server.port}/livez").status_code == 200


def test_a_log_that_nobody_reads_holds_up_nobody(server: Server) -> None:
    for _ in range(30):
        with connected(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") as client:
            assert everything(client).startswith(b"HTTP/1.1 400 ")
    request = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
    rounds, end = 20, time.monotonic() + float(os.environ.get("STRESS_SECONDS", "0"))
    while rounds > 0 or time.monotonic() < end:
        rounds -= 1
        with connected(server, request * (_WAITING_LINES // 10)) as client:
            client.shutdown(socket.SHUT_WR)
            assert everything(client).count(b"HTTP/1.1 404 ") == _WAITING_LINES // 10
        with connected(server, post()) as client:
            client.shutdown(socket.SHUT_WR)
            assert everything(client).startswith(b"HTTP/1.1 200 ")
    assert server.process.stderr is not None
    complaints = 0
    for line in server.process.stderr:
        entry = json.loads(line)
        complaints += "Invalid HTTP request" in entry["message"]
        if "lines of the log were dropped, because nobody read them" in entry["message"]:
            assert int(entry["message"].split()[0]) > 100
            break
        if "/nowhere" in entry["message"]:
            assert (entry["level"], entry["status"], entry["reason"]) == ("DEBUG", 404, "http")
    assert 1 <= complaints <= 5


def test_a_unix_socket_serves_where_one_was_left(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "ppool.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with served(str(model_file), "--workers", "1", PPOOL_UDS=str(path)) as server:
        assert server.address == f"unix:{path}"
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://ppool"
        ) as client:
            assert client.post("/segment", content=encoded(photo())).status_code == 200
        with pytest.raises(ValueError, match=f"cannot listen on {path}: Address already in use"):
            listen("127.0.0.1", 0, path)
        server.process.terminate()
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("host", "path", "said"),
    [
        ("", "/nowhere/a.sock", "cannot listen on /nowhere/a.sock: No such file"),
        ("", "/" + 200 * "a", "AF_UNIX path too long; choose another --uds"),
        ("", "/etc/passwd", "cannot listen on /etc/passwd: Address already in use"),
        ("nowhere.invalid", "", "cannot listen on nowhere.invalid:8000: "),
        ("a" * 70, "", "choose another --port or --host"),
    ],
)
def test_where_it_cannot_listen_it_says_so(host: str, path: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        listen(host, 8000, Path(path) if path else None)


def test_a_file_name_that_is_no_text_can_be_logged() -> None:
    record = logging.LogRecord("ppool", logging.INFO, "", 0, "%s", ("\udcff.onnx",), None)
    assert json.loads(_Json().format(record))["message"] == "\udcff.onnx"
