"""Models that are replaced, renamed and removed while the service is at work."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.service.harness import encoded, photo, tiny_model
from tests.service.traffic import PATIENCE_SECONDS, Server, served, until

BODY = encoded(photo())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "v1.onnx").write_bytes(tiny_model())
    return tmp_path


def files(server: Server) -> list[str]:
    return [model["file"] for model in server.get("/models").json()]


def put(model: bytes, path: Path) -> None:
    """In one step, as deployments do."""
    path.with_suffix(".new").write_bytes(model)
    path.with_suffix(".new").replace(path)


def reload(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)


def test_a_photo_that_was_coming_in_while_its_model_was_swapped_is_answered(folder: Path) -> None:
    with served(str(folder), PPOOL_WORKERS="1") as server:
        (old,) = server.get("/models").json()
        head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as client:
            client.sendall(head.encode() + BODY[:9])
            until(lambda: server.metric("ppool_requests_in_flight"))
            put(tiny_model(seed=1), folder / "v1.onnx")
            reload(server)
            until(lambda: server.get("/models").json()[0]["sha256"] != old["sha256"])
            client.sendall(BODY[9:])
            assert client.recv(12) == b"HTTP/1.1 200"


def test_a_file_under_another_name_takes_the_place_of_the_one_that_is_gone(folder: Path) -> None:
    with served(str(folder), PPOOL_WORKERS="1") as server:
        put(tiny_model(seed=1), folder / "v2.onnx")
        (folder / "v1.onnx").unlink()
        reload(server)
        until(lambda: files(server) == ["v2.onnx"])


def test_a_name_that_was_taken_is_free_once_the_other_file_is_gone(folder: Path) -> None:
    with served(str(folder), PPOOL_WORKERS="1") as server:
        put(tiny_model(seed=1), folder / "v2.onnx")
        reload(server)
        until(lambda: server.metric('ppool_model_reloads_total{model="v2",outcome="failed"}'))
        assert files(server) == ["v1.onnx"]
        (folder / "v1.onnx").unlink()
        reload(server)
        until(lambda: files(server) == ["v2.onnx"])


def test_the_only_model_goes_on_when_its_file_gives_way_to_a_bad_one(folder: Path) -> None:
    with served(str(folder), PPOOL_WORKERS="1") as server:
        put(b"no model", folder / "v2.onnx")
        (folder / "v1.onnx").unlink()
        reload(server)
        until(lambda: server.metric('ppool_model_reloads_total{model="v2",outcome="failed"}'))
        assert files(server) == ["v1.onnx"]


def test_a_name_that_was_given_stays_when_the_file_gets_another_one(folder: Path) -> None:
    with served(str(folder), "--name", "given", PPOOL_WORKERS="1") as server:
        (folder / "v1.onnx").rename(folder / "v2.onnx")
        reload(server)
        until(lambda: files(server) == ["v2.onnx"])
        assert [model["name"] for model in server.get("/models").json()] == ["given"]


def test_a_reload_without_a_worker_is_no_reason_not_to_look_again(folder: Path) -> None:
    with served(str(folder), PPOOL_WORKERS="1", PPOOL_RELOAD_SECONDS="0.05") as server:
        (worker,) = server.workers()
        # Stopped, it neither loads the file nor is it known to be gone.
        os.kill(worker, signal.SIGSTOP)
        put(tiny_model(name="second"), folder / "v2.onnx")
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.get("/readyz").status_code == 200 and server.workers() != [worker])
        put(tiny_model(name="third"), folder / "v3.onnx")
        until(lambda: "v3.onnx" in files(server))
