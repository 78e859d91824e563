"""``/docs``: what it is made of, and that its requests reach the service from behind a proxy."""

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.service.chromium import CHROMIUM, chromium_page
from tests.service.harness import Client
from tests.service.traffic import ROOT, served

# Of the package swagger-ui-dist 5.35.0.
DIGESTS = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_swagger_ui_is_as_its_makers_released_it(name: str) -> None:
    content = (ROOT / "service" / "http" / "swagger" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize(
    ("prefix", "servers"),
    [
        (None, None),
        ("/vision/segment", [{"url": "/vision/segment"}]),
        ("/vision/", [{"url": "/vision"}]),
        ("//evil.test", None),
        ("https://evil.test", None),
        ("/a/../b c", None),
    ],
)
def test_the_description_says_where_a_proxy_put_it(
    client: Client, prefix: str | None, servers: list[dict[str, str]] | None
) -> None:
    headers = {"X-Forwarded-Prefix": prefix} if prefix is not None else {}
    answer = client.request("GET", "/openapi.json", headers=headers)
    assert answer.json().get("servers") == servers
    assert answer.headers["vary"] == "X-Forwarded-Prefix"


@contextmanager
def proxied(address: str, prefix: str) -> Iterator[str]:
    """The service under a prefix that it is not told of, as nginx's ``proxy_pass`` puts it."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            request = urllib.request.Request(address + self.path.removeprefix(prefix))  # noqa: S310
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.read())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_it_can_be_tried_out_with_a_key_behind_a_prefix(model_file: Path, tmp_path: Path) -> None:
    with (
        served(str(model_file), "--workers", "1", PPOOL_API_KEYS="secret") as server,
        proxied(server.address, "/vision") as address,
        chromium_page(tmp_path) as page,
    ):
        page.open(f"{address}/docs#/operations/livez")
        tried = "document.querySelector('.try-out__btn')"
        page.wait_for(f"{tried} !== null")
        page.run(f"{tried}.click()")
        page.wait_for("document.querySelector('.execute') !== null")
        page.run("document.querySelector('.execute').click()")
        row = ".live-responses-table tr.response"
        answered = f"document.querySelector('{row} .response-col_status')"
        page.wait_for(f"{answered} !== null")
        assert page.run(f"{answered}.textContent").startswith("200")
        url = page.run("document.querySelector('.request-url pre').textContent")
        assert url == f"{address}/livez"
        assert page.run("document.querySelector('.authorize') !== null")
        assert page.complaints == []
