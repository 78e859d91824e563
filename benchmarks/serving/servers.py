"""The contestants: how each is started, asked, watched and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.clients import Request
from benchmarks.running import ROOT, cpu_seconds, free_port

__all__ = ["PEERS", "PPOOL", "Network", "Running", "Server", "serving"]

START_SECONDS = 60


class Ask(Protocol):
    """Makes the request for a photo, with the milliseconds its client waits where that is known."""

    def __call__(self, url: str, photo: bytes, deadline_ms: int | None = None) -> Request:
        """The bytes to send to the server at ``url``."""


@dataclass(frozen=True)
class Network:
    """One network on disk: ``plain`` as others export it, ``adopted`` in ppool's contract.

    ``int8`` is that with convolutions in int8.
    """

    name: str
    side: int
    plain: Path
    adopted: Path
    int8: Path


def _ppool(url: str, photo: bytes, deadline_ms: int | None = None) -> Request:
    headers = {"Content-Type": "image/jpeg"}
    if deadline_ms is not None:
        headers["X-Request-Timeout-Ms"] = str(deadline_ms)
    return Request.post(f"{url}/segment", photo, headers)


def _raw(url: str, photo: bytes, deadline_ms: int | None = None) -> Request:
    return Request.post(f"{url}/segment", photo, {"Content-Type": "image/jpeg"})


def _mosec(url: str, photo: bytes, deadline_ms: int | None = None) -> Request:
    return Request.post(f"{url}/inference", photo, {"Content-Type": "image/jpeg"})


def _multipart(url: str, photo: bytes, deadline_ms: int | None = None) -> Request:
    boundary = "b5f1c0de"
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + photo + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    return Request.post(f"{url}/segment", body, {"Content-Type": kind})


def _triton(url: str, photo: bytes, deadline_ms: int | None = None) -> Request:
    payload = len(photo).to_bytes(4, "little") + photo
    tensor = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(payload)},
    }
    output = {"name": "mask", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Request.post(f"{url}/v2/models/segment/infer", head + payload, headers)


@dataclass(frozen=True)
class Server:
    """One contestant.

    Attributes:
        name: As printed.
        command: Its command line; ``{python}`` and ``{triton}`` (the interpreters of the peers'
            environments), ``{port}``, ``{adopted}`` and ``{int8}`` (files of ppool) are filled in.
        ask: Makes the request for a photo.
        ready: Path that answers 200 when it is ready.
        threads: Threads inside one inference, measured best on two cores.
        workers: Workers, likewise.
    """

    name: str
    command: tuple[str, ...]
    ask: Ask
    ready: str
    threads: int = 1
    workers: int = 1
    environment: dict[str, str] = field(default_factory=dict)


def _peer(module: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"benchmarks.serving.peers.{module}")


def _own(name: str, model: str) -> Server:
    return Server(name, (sys.executable, "-m", "ppool.service", model), _ppool, "/readyz")


PPOOL = (_own("ppool", "{adopted}"), _own("ppool-int8", "{int8}"))
PEERS = (
    Server("fastapi", _peer("fastapi_app"), _raw, "/ready"),
    Server("litserve", _peer("litserve_app"), _multipart, "/health", workers=2),
    Server(
        "mosec",
        (*_peer("mosec_app"), "--port", "{port}", "--timeout", "60000", "--log-level", "warning"),
        _mosec,
        "/",
        workers=2,
    ),
    Server(
        "bentoml",
        ("{python}", "-m", "bentoml", "serve", "benchmarks.serving.peers.bentoml_app:Segment",
         "--port", "{port}"),
        _multipart,
        "/readyz",
        threads=2,
        environment={"DO_NOT_TRACK": "True", "BENTOML_DO_NOT_TRACK": "True"},
    ),
    Server(
        "rayserve",
        _peer("rayserve_app"),
        _raw,
        "/segment",
        workers=2,
        environment={"RAY_USAGE_STATS_ENABLED": "0"},
    ),
    Server(
        "pytriton",
        ("{triton}", "-m", "benchmarks.serving.peers.pytriton_app"),
        _triton,
        "/v2/models/segment/ready",
        threads=2,
        # Triton's Python backend must find the interpreter's own libpython, not the system's.
        environment={"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    server: Server
    url: str
    process: psutil.Process
    start_seconds: float

    def cpu_seconds(self) -> float:
        """Processor time of the whole process tree so far."""
        return cpu_seconds(self.process.pid)

    def memory_megabytes(self) -> float:
        """Proportional set size of the whole process tree."""
        return sum(map(_pss, [self.process, *self.process.children(recursive=True)])) / 2**20


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


@contextmanager
def serving(server: Server, network: Network, environments: Path) -> Iterator[Running]:
    """Start ``server`` on ``network``, wait until it is ready, stop it and its children at the end.

    Raises:
        RuntimeError: if it does not become ready; the message ends with what it printed.
    """
    port = free_port()
    fill = {
        "python": str(environments / "peers" / "bin" / "python"),
        "triton": str(environments / "triton" / "bin" / "python"),
        "port": str(port),
        "adopted": str(network.adopted),
        "int8": str(network.int8),
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PPOOL_PORT": str(port),
        "PEER_PORT": str(port),
        "PEER_MODEL": str(network.plain),
        "PEER_SIDE": str(network.side),
        "PEER_THREADS": str(server.threads),
        "PEER_WORKERS": str(server.workers),
        **server.environment,
    }
    log = network.plain.with_name(f"{server.name}.log")
    begin = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [part.format(**fill) for part in server.command],
            cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    tree = psutil.Process(process.pid)
    try:
        while not _answers(url + server.ready):
            if process.poll() is not None or time.perf_counter() - begin > START_SECONDS:
                raise RuntimeError(f"{server.name} did not start: {log.read_text()[-1500:]}")
            time.sleep(0.02)
        yield Running(server, url, tree, time.perf_counter() - begin)
    finally:
        _stop(process, tree)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes], tree: psutil.Process) -> None:
    try:
        family = tree.children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    _, left = psutil.wait_procs(family, timeout=5)
    for child in left:
        child.kill()
