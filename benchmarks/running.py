"""The service, and a Prometheus that watches it, as processes of their own on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

__all__ = [
    "MONITORING",
    "ROOT",
    "Prometheus",
    "alert_rules",
    "cpu_seconds",
    "free_port",
    "prometheus",
    "service",
]

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "k8s" / "overlays" / "monitoring"
START_SECONDS = 60


@contextmanager
def service(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Process and address of ``ppool serve``, ready; killed at the end.

    Raises:
        RuntimeError: if it ends before it is ready.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "ppool.service", *arguments, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    ) as process:
        address = ""
        try:
            for line in process.stderr or ():
                if found := re.search(r"listening on (\S+),", line):
                    address = found[1]
                if "ready after" in line:
                    break
            else:
                raise RuntimeError("the service ended before it was ready; run it to see why")
            yield process, address
        finally:
            process.kill()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, living and gone."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # gone meanwhile
            total += sum(one.cpu_times()[:4])
    return total


def alert_rules() -> dict[str, Any]:
    """The rule groups that ship, as Prometheus itself reads them."""
    manifest = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    rules: dict[str, Any] = manifest["spec"]
    return rules


@dataclass(frozen=True)
class Prometheus:
    """A running one, at ``url``."""

    url: str

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.TransportError:
            return False

    def ask(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The ``data`` of an answer of its API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query)
        return answer.raise_for_status().json()["data"]


def free_port() -> int:
    """A port of loopback that nobody listens on, for programs that cannot find one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def prometheus(target: str, folder: Path, scrape_seconds: float) -> Iterator[Prometheus]:
    """A Prometheus with the shipped rules that scrapes the service at ``target``.

    Raises:
        RuntimeError: if it is not ready within a minute.
    """
    (folder / "rules.yaml").write_text(yaml.safe_dump(alert_rules()))
    interval = f"{scrape_seconds * 1e3:.0f}ms"
    job = {
        "job_name": "ppool",
        "static_configs": [{"targets": [target.removeprefix("http://")]}],
    }
    configuration = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    listen = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with subprocess.Popen(
        [*command, f"--web.listen-address={listen}"], cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        try:
            server = Prometheus(f"http://{listen}")
            deadline = time.monotonic() + START_SECONDS
            while not server.ready():
                if time.monotonic() > deadline:
                    raise RuntimeError("Prometheus did not become ready; run it by hand to see why")
            yield server
        finally:
            process.terminate()
