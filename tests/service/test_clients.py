"""What other people's HTTP clients send, byte for byte, and what they can then read."""

import http.client
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.service.harness import encoded, photo
from tests.service.traffic import PATIENCE_SECONDS, Server, served

BODY = encoded(photo())
H2C = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA",
}

JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;

public class Segment {
    public static void main(String[] given) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest request = HttpRequest.newBuilder(URI.create(given[0] + "/segment"))
            .POST(HttpRequest.BodyPublishers.ofFile(Path.of(given[1]))).build();
        for (int i = 0; i < 2; i++) {  // the second goes over the same connection
            var answer = client.send(request, HttpResponse.BodyHandlers.ofFile(Path.of(given[2])));
            if (answer.statusCode() != 200) throw new Exception("" + answer.statusCode());
        }
    }
}
"""


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    with served(str(model_file), "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def mask(server: Server) -> bytes:
    return exchange(server, head("POST", "/segment") + BODY)[1]


def head(method: str, path: str, length: int = len(BODY), **more: str) -> bytes:
    """The head of a request of that much body."""
    headers = {"Host": "test", "Content-Length": str(length)} | more
    lines = [f"{method} {path} HTTP/1.1", *map(": ".join, headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def exchange(server: Server, *pieces: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request in ``pieces``; the answer."""
    with sent(server, *pieces) as connection:
        method = pieces[0].split(b" ", 1)[0].decode()
        with closing(http.client.HTTPResponse(connection, method=method)) as answer:
            answer.begin()
            return answer, answer.read()


def sent(server: Server, *pieces: bytes) -> socket.socket:
    """A connection over which ``pieces`` were sent, one by one."""
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        connection.sendall(piece)
    return connection


@pytest.mark.parametrize("offer", [H2C, {"Connection": "upgrade", "Upgrade": "websocket"}])
@pytest.mark.parametrize("split", [None, 1, -1])
def test_an_offer_of_another_protocol_is_ignored_and_the_body_kept(
    server: Server, mask: bytes, offer: dict[str, str], split: int | None
) -> None:
    """Whether the body comes with the head, a byte of it does, or all but one."""
    request = head("POST", "/segment", **offer) + BODY
    cut = len(request) - len(BODY) + (split % len(BODY)) if split else len(request)
    answer, body = exchange(server, request[:cut], request[cut:])
    assert (answer.status, body) == (200, mask)


def test_a_chunked_body_behind_an_offer_is_kept(server: Server, mask: bytes) -> None:
    start = head("POST", "/segment", **H2C, **{"Transfer-Encoding": "chunked"})
    start = start.replace(b"Content-Length: %d\r\n" % len(BODY), b"")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    answer, body = exchange(server, start + chunks)
    assert (answer.status, body) == (200, mask)


def test_an_offer_of_another_protocol_ends_neither_connection_nor_pipeline(server: Server) -> None:
    plain, offering = head("GET", "/livez", 0), head("GET", "/livez", 0, **H2C)
    last = head("GET", "/livez", 0, Connection="close")
    with sent(server, plain + offering + offering + last) as connection:
        answers = connection.makefile("rb").read()
    assert answers.count(b'{"status":"alive"}') == 4


def test_an_offer_by_someone_who_leaves_is_answered_before_the_end(server: Server) -> None:
    offer = H2C | {"Connection": "close, Upgrade, HTTP2-Settings"}
    answer, _ = exchange(server, head("GET", "/livez", 0, **offer))
    assert answer.getheader("connection") == "close"


def test_it_is_no_proxy(server: Server) -> None:
    answer, _ = exchange(server, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert answer.status == 400


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_offering_http_2(server: Server, mask: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(BODY)
    command = ["curl", "--http2", "--fail", "--data-binary", "@photo.png"]
    found = subprocess.run(
        [*command, f"{server.address}/segment"], cwd=tmp_path, capture_output=True, check=True
    )
    assert found.stdout == mask


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_java_offering_http_2(server: Server, mask: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(BODY)
    (tmp_path / "Segment.java").write_text(JAVA)
    command = ["java", "Segment.java", server.address, "photo.png", "mask.png"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=PATIENCE_SECONDS)
    assert (tmp_path / "mask.png").read_bytes() == mask
