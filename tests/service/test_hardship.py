"""What platforms and people do to a running service: workers that hang, files that are wrong."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.service.harness import encoded, odd_model, photo, slow, tiny_model
from tests.service.traffic import PATIENCE_SECONDS, ROOT, Server, served, until

BODY = encoded(photo())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(tiny_model())
    return tmp_path


def put(content: bytes, path: Path) -> None:
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def post(server: Server, query: str = "", **headers: str) -> httpx.Response:
    address = f"{server.address}/segment{query}"
    return httpx.post(address, content=BODY, headers=headers, timeout=PATIENCE_SECONDS)


def models(server: Server) -> list[str]:
    return [model["name"] for model in server.get("/models").json()]


def start_up(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A start that fails."""
    return subprocess.run(
        [sys.executable, "-m", "ppool.service", *arguments, "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    with served(str(model_file), "--workers", "2") as server:
        yield server


def test_with_all_workers_stopped_every_photo_is_answered_and_readiness_tells(
    server: Server,
) -> None:
    restarts = server.metric("ppool_worker_restarts_total")
    for worker in server.workers():
        os.kill(worker, signal.SIGSTOP)
    assert post(server).status_code == 200
    until(lambda: server.metric("ppool_worker_restarts_total") == restarts + 2)
    until(lambda: server.metric("ppool_worker_up") == 2)


def test_what_nobody_waits_for_leaves_its_lane(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(tiny_model())
    (tmp_path / "b.onnx").write_bytes(tiny_model(name="slow", mask=slow(10**10, height=48)))
    with served(str(tmp_path), "--workers", "1") as server:
        (worker,) = server.workers()
        body = encoded(photo(40, 40))
        answer = httpx.post(
            f"{server.address}/segment?model=slow",
            content=body,
            headers={"X-Request-Timeout-Ms": "500"},
            timeout=PATIENCE_SECONDS,
        )
        assert (answer.status_code, answer.json()["stage"]) == (504, "infer")
        assert post(server).status_code == 200
        assert server.workers() == [worker]


def test_short_of_file_descriptors_it_goes_on_once_there_are_some(model_file: Path) -> None:
    with (
        served(str(model_file), "--workers", "2", PPOOL_HEAD_TIMEOUT_SECONDS="60") as server,
        ExitStack() as clients,
    ):
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        for _ in range(100):
            clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        first = server.workers()
        os.kill(first[0], signal.SIGKILL)
        time.sleep(1)
        clients.close()
        until(lambda: server.metric("ppool_worker_up") == 2)
        assert post(server).status_code == 200


@pytest.mark.parametrize("kind", ["half the size", "stride 0"])
def test_a_file_that_does_not_do_what_it_says_ends_the_start(tmp_path: Path, kind: str) -> None:
    (tmp_path / "odd.onnx").write_bytes(odd_model(kind))
    failed = start_up(str(tmp_path / "odd.onnx"), "--workers", "1")
    assert failed.returncode == 1
    assert "odd.onnx" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_worker_that_cannot_start_ends_the_start_with_its_reason(model_file: Path) -> None:
    code = (
        "import os, resource, sys; import ppool.service.http.server;"
        "from ppool.service.workers import launch;"
        "launch.sys = type('sys', (), {'executable': '/bin/false'});"
        "sys.modules['ppool.service.workers.child'] = None;"
        f"sys.argv[1:] = [{str(model_file)!r}, '--port', '0', '--workers', '1'];"
        "from ppool.service.__main__ import main; main()"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert failed.returncode == 1
    assert "worker cpu-0 cannot start: ended with status 1 (3 tries)" in failed.stderr


def test_a_folder_with_odd_entries_is_served_and_reloaded(folder: Path) -> None:
    (folder / "a.onnx").symlink_to("nowhere")
    os.mkfifo(folder / "b.onnx")
    with served(str(folder), "--workers", "1", PPOOL_RELOAD_SECONDS="0.1") as server:
        assert models(server) == ["tiny"]
        put(odd_model("another type", name="odd"), folder / "c.onnx")
        put(tiny_model(name="second"), folder / "d.onnx")
        until(lambda: models(server) == ["second", "tiny"])
        until(lambda: server.metric('ppool_model_reloads_total{model="c",outcome="failed"}'))


def test_the_first_by_path_answers_whatever_came_when(tmp_path: Path) -> None:
    put(tiny_model(name="b"), tmp_path / "b.onnx")
    put(tiny_model(name="c"), tmp_path / "c.onnx")
    with served(str(tmp_path), "--workers", "1", PPOOL_RELOAD_SECONDS="0.1") as server:
        assert post(server).headers["x-model"] == "b"
        put(tiny_model(name="a"), tmp_path / "a.onnx")
        until(lambda: models(server) == ["a", "b", "c"])
        assert post(server).headers["x-model"] == "a"
        put(tiny_model(seed=1, name="a"), tmp_path / "a.onnx")
        until(lambda: server.metric('ppool_model_reloads_total{model="a",outcome="loaded"}') == 2)
        assert post(server).headers["x-model"] == "a"


def test_a_new_worker_has_the_old_model_whatever_became_of_its_file(folder: Path) -> None:
    with served(str(folder), "--workers", "1") as server:
        before = server.get("/models").json()
        (folder / "m.onnx").write_bytes(b"cut off in the middle of a copy")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        assert post(server).status_code == 200
        assert server.workers() != [worker]
        assert server.get("/models").json() == before


def test_a_worker_that_is_killed_while_it_loads_is_not_held_against_the_file(folder: Path) -> None:
    def digest() -> str:
        return str(server.get("/models").json()[0]["sha256"])

    with served(str(folder), "--workers", "1") as server:
        before, (worker,) = digest(), server.workers()
        os.kill(worker, signal.SIGSTOP)
        put(tiny_model(seed=1), folder / "m.onnx")
        server.process.send_signal(signal.SIGHUP)
        # It takes the message, but never answers.
        time.sleep(0.2)
        os.kill(worker, signal.SIGKILL)
        until(lambda: digest() != before)
        assert post(server).status_code == 200
