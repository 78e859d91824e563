"""Stores to fetch models from: files over TLS, and a registry of the OCI distribution spec."""

import hashlib
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

__all__ = ["Shop", "digest", "shop"]

TITLE = "org.opencontainers.image.title"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Shop:
    """What is served, and what was asked.

    Attributes:
        files: Content by path; its SHA-256 is its ETag.
        redirects: Target by path.
        statuses: Of paths that have no content to give.
        stalled: Paths that send half and then nothing until the end.
        cut: Paths that send half and close.
        asked: Path and status of each answer.
        token: What a registry's clients need; they get it for ``password``.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.statuses: dict[str, int] = {}
        self.stalled: set[str] = set()
        self.cut: set[str] = set()
        self.asked: Counter[tuple[str, int]] = Counter()
        self.token = ""
        self.password = ""
        self.end = threading.Event()
        self.address = ""

    def push(self, repository: str, tag: str, files: dict[str, bytes]) -> str:
        """Put an artifact into the registry as ``oras push`` does; the manifest's digest."""
        layers = []
        for name, content in files.items():
            sha256 = f"sha256:{digest(content)}"
            self.files[f"/v2/{repository}/blobs/{sha256}"] = content
            about = {"annotations": {TITLE: name}} if name else {}
            kind = "application/vnd.oci.image.layer.v1.tar"
            layers.append({"mediaType": kind, "digest": sha256, "size": len(content), **about})
        kind = "application/vnd.oci.empty.v1+json"
        config = {"mediaType": kind, "digest": f"sha256:{digest(b'{}')}", "size": 2}
        self.files[f"/v2/{repository}/blobs/{config['digest']}"] = b"{}"
        kind = "application/vnd.oci.image.manifest.v1+json"
        about = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}
        manifest = json.dumps(about).encode()
        for reference in (tag, f"sha256:{digest(manifest)}"):
            self.files[f"/v2/{repository}/manifests/{reference}"] = manifest
        return digest(manifest)


class _Handler(BaseHTTPRequestHandler):
    shop: Shop
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/token":
            right = self.headers.get("Authorization") == f"Basic {self.shop.password}"
            self._send(path, 200 if right else 401, json.dumps({"token": self.shop.token}).encode())
        elif self.shop.token and path.startswith("/v2/") and not self._allowed():
            realm = f'Bearer realm="{self.shop.address}/token",service="shop"'
            self._send(path, 401, b"", {"WWW-Authenticate": realm})
        elif path in self.shop.redirects:
            self._send(path, 302, b"", {"Location": self.shop.redirects[path]})
        elif path in self.shop.statuses:
            self._send(path, self.shop.statuses[path], b"why")
        elif path not in self.shop.files:
            self._send(path, 404, b"")
        else:
            content = self.shop.files[path]
            tag = f'"{digest(content)}"'
            if self.headers.get("If-None-Match") == tag:
                self._send(path, 304, b"", {"ETag": tag})
            else:
                self._send(path, 200, content, {"ETag": tag})

    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.shop.token}"

    def _send(self, path: str, status: int, content: bytes, headers: Any = ()) -> None:
        self.shop.asked[path, status] += 1
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if path in self.shop.stalled | self.shop.cut:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if path in self.shop.stalled:
                self.shop.end.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    # Clients that gave up, or do not trust us, are part of the tests.
    def handle_error(self, *_: Any) -> None: ...


@contextmanager
def shop(authority: trustme.CA | None) -> Iterator[Shop]:
    """A server on a free port of 127.0.0.1, with TLS if there is an authority."""
    shop = Shop()
    handler = type("Handler", (_Handler,), {"shop": shop})
    with _Server(("127.0.0.1", 0), handler) as server:
        scheme = "http"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        shop.address = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield shop
        finally:
            shop.end.set()
            server.shutdown()
