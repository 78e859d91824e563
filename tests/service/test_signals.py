"""Signals to a real server, at every stage of its life."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.traffic import PATIENCE_SECONDS, ROOT, served, until

# Measuring takes longer than any test waits.
LONG_START = {"PPOOL_TUNE_SECONDS": "60", "PPOOL_PORT": "0"}
PPOOL = (sys.executable, "-P", "-m", "ppool")
SOON_SECONDS = PATIENCE_SECONDS / 2

both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@contextmanager
def started(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    mask = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    assert mask
    return bool(int(mask[1], 16) >> (number - 1) & 1)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The first line of the log with the text."""
    assert process.stderr is not None
    return next(line for line in process.stderr if text in line)


def image_entry_point() -> list[str]:
    text = (ROOT / "Dockerfile").read_text()
    (entry,) = re.findall("^ENTRYPOINT (.*)$", text, re.M)
    words: list[str] = json.loads(entry)
    return words


@both_signals
@pytest.mark.parametrize(("command", "status"), [("serve", 0), ("tune", 128)])
def test_during_imports_it_ends_at_once(number: signal.Signals, command: str, status: int) -> None:
    with started(*PPOOL, command, **LONG_START) as process:
        until(lambda: heeds(process.pid, signal.SIGTERM))
        process.send_signal(number)
        assert process.wait(SOON_SECONDS) == (status and status + number)
        assert process.stderr is not None
        assert process.stderr.read() == ""


@both_signals
def test_while_it_loads_and_measures_it_ends_with_its_workers(number: signal.Signals) -> None:
    with started(*PPOOL, "serve", **LONG_START) as process:
        read_until(process, "listening on")
        if number == signal.SIGTERM:
            time.sleep(1)  # SIGINT comes while it loads, this one while it measures
        workers = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(SOON_SECONDS) == 0
        _, alive = psutil.wait_procs(workers, SOON_SECONDS)
        assert not alive


def test_as_process_1_of_a_container_it_heeds_the_first_signal() -> None:
    unshare = ("unshare", "--pid", "--fork")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make a process namespace")
    with started(*unshare, *PPOOL, "serve", **LONG_START) as process:
        outer = psutil.Process(process.pid)
        until(lambda: outer.children() and heeds(outer.children()[0].pid, signal.SIGTERM))
        outer.children()[0].terminate()
        assert process.wait(SOON_SECONDS) == 0


def test_as_the_image_starts_it_not_even_the_first_instant_is_lost() -> None:
    *entry, command, subcommand = image_entry_point()
    assert (command, subcommand) == ("ppool", "serve")
    unshare = ("unshare", "--pid", "--fork")
    if subprocess.run([*unshare, *entry, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make a process namespace, and env of coreutils 8.31")
    with started(*unshare, *entry, *PPOOL, "serve", **LONG_START) as process:
        outer = psutil.Process(process.pid)
        # Long before Python has started.
        until(lambda: outer.children() and "python" in outer.children()[0].exe())
        outer.children()[0].terminate()
        assert process.wait(SOON_SECONDS) == 0


def test_hangups_before_it_listens_do_no_harm(model_file: Path) -> None:
    with started(*PPOOL, "serve", str(model_file), "--port", "0", "--workers", "1") as process:
        until(lambda: heeds(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGHUP)
        line = read_until(process, "listening on")
        process.send_signal(signal.SIGHUP)
        read_until(process, "ready after")
        found = re.search(r"listening on (\S+),", line)
        assert found
        assert httpx.get(f"{found[1]}/readyz", timeout=PATIENCE_SECONDS).status_code == 200


def test_the_second_signal_ends_it_though_a_request_is_under_way(model_file: Path) -> None:
    with served(str(model_file), "--workers", "1") as server:
        workers = [psutil.Process(pid) for pid in server.workers()]
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST /segment HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nphoto")
            until(lambda: server.metric("ppool_requests_in_flight"))
            server.process.send_signal(signal.SIGTERM)
            # timeout(1) sends two: to its child, and to the group that this is in.
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(SOON_SECONDS) == 128 + signal.SIGTERM
        _, alive = psutil.wait_procs(workers, SOON_SECONDS)
        assert not alive
