"""A real server in a process of its own, and how to ask it."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.clients import Request
from benchmarks.running import ROOT, service

__all__ = ["PATIENCE_SECONDS", "ROOT", "Server", "served", "until"]

# Longer than any pause of a busy machine; only a hang waits this long.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running ``ppool serve``."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def request(self, photo: bytes, **headers: str) -> Request:
        """To segment a photo, on a connection of its own."""
        own = {"Connection": "close"}
        return Request.post(f"{self.address}/segment", photo, own | headers)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address + path, timeout=PATIENCE_SECONDS)

    def metric(self, line: str) -> float:
        """The value of the metric written as ``line``, summed over the labels it leaves out."""
        rows = (row.rsplit(" ", 1) for row in self.get("/metrics").text.splitlines())
        return sum(float(v) for name, v in rows if name == line or name.startswith(f"{line}{{"))

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return [pid for pid, name in self.children() if name == "ppool-worker"]

    def children(self) -> list[tuple[int, str]]:
        """Process ids and names of the workers, and of what they are forked from."""
        found = []
        for file in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in file.read_text().split():
                with suppress(OSError):  # gone meanwhile
                    found.append((int(pid), Path(f"/proc/{pid}/comm").read_text().strip()))
        return found

    def memory_bytes(self) -> int:
        """Memory of the server and its workers; what several share counts once."""
        process = psutil.Process(self.process.pid)
        total = 0
        for one in (process, *process.children()):
            with suppress(psutil.Error):  # gone meanwhile
                total += one.memory_full_info().pss
        return total


def until(condition: Callable[[], object]) -> None:
    """Ask until ``condition`` holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[Server]:
    """A server that is ready."""
    with service(*arguments, **environment) as (process, address):
        yield Server(process, address)
