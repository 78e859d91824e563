"""The service, and a Prometheus that watches it, as processes of their own on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

__all__ = ["MONITORING", "ROOT", "Prometheus", "alert_rules", "prometheus", "service"]

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "k8s" / "overlays" / "monitoring"
START_SECONDS = 60


@contextmanager
def service(**settings: object) -> Iterator[tuple[int, str]]:
    """Process id and address of a ready service with the shipped model.

    Raises:
        RuntimeError: if it ends before it is ready.
    """
    environment = {f"PPOOL_{name.upper()}": str(value) for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "service", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    ) as process:
        address = ""
        try:
            for line in process.stderr or ():
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    address = found[0]
                if "ready after" in line:
                    break
            else:
                raise RuntimeError("the service ended before it was ready; run it to see why")
            yield process.pid, address
        finally:
            process.terminate()
            process.communicate(timeout=60)


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
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
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
