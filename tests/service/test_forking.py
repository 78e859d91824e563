"""Workers that are forked from one process, and what is done without it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.harness import encoded, photo
from tests.service.traffic import PATIENCE_SECONDS, Server, served, until

BODY = encoded(photo())


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    with served(str(model_file), "--workers", "2") as server:
        yield server


def template(server: Server) -> int:
    (pid,) = (pid for pid, name in server.children() if name == "ppool-template")
    return pid


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def replaced(server: Server) -> int:
    """The worker in place of one that was killed."""
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(server.workers()) - set(before)) == 1)
    until(lambda: server.metric("ppool_worker_up") == 2)
    (new,) = set(server.workers()) - set(before)
    return new


def test_workers_are_copies_of_a_process_of_one_thread(server: Server) -> None:
    assert len(server.workers()) == 2
    assert len(list(Path(f"/proc/{template(server)}/task").iterdir())) == 1
    assert replaced(server) in server.workers()
    for pid in server.workers():
        assert command(pid) == command(template(server))
        # Nothing of what another one hears and says, nor of the listening socket.
        files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
        assert sum(file.startswith("socket:") for file in files) == 2


def test_without_that_process_workers_start_each_by_itself(server: Server) -> None:
    os.kill(template(server), signal.SIGKILL)
    assert b"ppool.service.workers.child" in command(replaced(server))
    answer = httpx.post(f"{server.address}/segment", content=BODY, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    assert "ppool-template" not in [name for _, name in server.children()]
