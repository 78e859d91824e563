"""A real server in a process of its own, and how to ask it."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

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
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for file in children for pid in file.read_text().split()]

    def memory_bytes(self) -> int:
        """Resident memory of the server and its workers."""
        files = [Path(f"/proc/{pid}/statm") for pid in (self.process.pid, *self.workers())]
        return sum(int(file.read_text().split()[1]) for file in files) * os.sysconf("SC_PAGE_SIZE")


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
