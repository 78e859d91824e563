"""A real server in a process of its own, and a client that is cheap enough to overload it."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
# Longer than any pause of a busy machine; only a hang waits this long.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running ``ppool-serve``."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

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


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[Server]:
    """A server that is ready."""
    with subprocess.Popen(
        [sys.executable, "-m", "service", *arguments, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        address = ""
        try:
            for line in process.stderr:
                if found := re.search(r"listening on (\S+),", line):
                    address = found[1]
                if "ready after" in line:
                    break
            yield Server(process, address)
        finally:
            process.kill()


@dataclass(frozen=True)
class Answer:
    """What came back; ``status`` 0 if the connection broke."""

    status: int
    headers: dict[str, str]
    seconds: float


async def post(port: int, body: bytes, *headers: str) -> Answer:
    """Send one photo on a connection of its own."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = ("POST /segment HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers)
        writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode() + body)
        content = await reader.read()
    except ConnectionError:
        content = b""
    finally:
        writer.close()
    head = content.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in head[1:])
    status = int(head[0].split()[1]) if head[0] else 0
    return Answer(status, {k.lower(): v for k, _, v in pairs}, time.monotonic() - start)


async def closed_loop(port: int, body: bytes, clients: int, seconds: float) -> list[Answer]:
    """``clients`` that each send again as soon as they are answered."""
    answers: list[Answer] = []
    until = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < until:
            answers.append(await post(port, body))

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def open_loop(
    port: int, body: bytes, rate: float, seconds: float, *headers: str
) -> list[Answer]:
    """``rate`` requests a second, whether or not the ones before are answered."""
    start = time.monotonic()

    async def later(index: int) -> Answer:
        await asyncio.sleep(max(start + index / rate - time.monotonic(), 0))
        return await post(port, body, *headers)

    return await asyncio.gather(*(later(index) for index in range(int(rate * seconds))))
