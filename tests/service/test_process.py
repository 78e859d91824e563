"""The real command, in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton

from ppool._cli import MisuseError
from ppool.service import cli
from ppool.service.http.app import create_app
from ppool.service.rpc.server import RpcServer
from ppool.service.settings import Settings
from tests.service.harness import encoded, photo
from tests.service.test_segment import png
from tests.service.traffic import PATIENCE_SECONDS, ROOT, served, until


def test_it_serves_and_sigterm_under_load_loses_nothing_and_exits_0(model_file: Path) -> None:
    body = encoded(photo(1500, 1000), "JPEG")
    with (
        served(str(model_file), "--name", "mine", PPOOL_DRAIN_DELAY_SECONDS="3600") as server,
        httpx.Client(base_url=server.address, timeout=PATIENCE_SECONDS) as client,
        ThreadPoolExecutor(8) as clients,
    ):
        assert client.get("/readyz").status_code == 200
        assert client.post("/segment", content=body).headers["x-model"] == "mine"

        def send_until_told_to_go_elsewhere() -> list[int]:
            statuses = []
            while True:
                answer = client.post("/segment", content=body)
                statuses.append(answer.status_code)
                if answer.headers.get("connection") == "close":
                    return statuses

        pending = [clients.submit(send_until_told_to_go_elsewhere) for _ in range(8)]
        answered = r'ppool_requests_total\{reason="ok",status="200"\} \d\d'
        while not re.search(answered, client.get("/metrics").text):
            pass
        server.process.send_signal(signal.SIGTERM)
        statuses = [status for future in pending for status in future.result()]
        assert len(statuses) >= 10
        assert set(statuses) == {200}
        # The second says to wait no longer for clients that have not noticed.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 0


def test_without_clients_it_exits_0_when_the_time_to_notice_is_over(model_file: Path) -> None:
    with served(str(model_file), PPOOL_DRAIN_DELAY_SECONDS="0.1", PPOOL_WORKERS="1") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 0


def test_workers_are_started_before_the_web_framework_is_imported() -> None:
    code = (
        "import sys, ppool.service.cli;"
        "late = {'fastapi', 'numpy', 'rich', 'uvicorn'} & set(sys.modules);"
        "sys.exit(f'imported {late}' if late else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_server_loads_no_networks_no_arrays_and_nothing_to_validate_answers() -> None:
    code = (
        "import sys, ppool.service.cli, ppool.service.http.server as server;"
        "server.create_app(ppool.service.cli.load_settings(None));"
        "unused = {'torch', 'onnx', 'onnxruntime', 'numpy', 'simplejpeg', 'pydantic.v1', 'grpc'};"
        "bad = unused & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["nowhere.onnx"], {}, "pages-int8, got 'nowhere.onnx', which does not exist"),
        ([], {"PPOOL_PORT": "http"}, "setting port (PPOOL_PORT): expected a valid integer"),
    ],
)
def test_a_bad_start_says_why_and_exits_2(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ppool.service", *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_says_so(model_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [sys.executable, "-m", "ppool.service", str(model_file), "--port", port],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 2
    assert "choose another --port" in result.stderr


def test_a_gpu_that_cannot_be_used_ends_the_start_with_the_reason(model_file: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there may be a GPU")
    result = subprocess.run(
        [sys.executable, "-P", "-m", "ppool", "serve", str(model_file), "--port", "0"],
        env=os.environ | {"PPOOL_DEVICES": "cuda:0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert result.returncode == 1
    reason = "error: setting devices (PPOOL_DEVICES): no GPU can be used: the onnxruntime that is"
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_grpc_is_answered_and_what_it_accepted_is_finished(model_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    photos = np.stack([photo(1500, 1100, seed) for seed in range(4)])
    with served(str(model_file), PPOOL_GRPC_PORT=str(port), PPOOL_WORKERS="1") as server:
        entry = triton.InferInput("image", photos.shape, "UINT8").set_data_from_numpy(photos)
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as asked:
            found = asked.infer("tiny", [entry]).as_numpy("mask")
            content = httpx.post(f"{server.address}/segment", content=encoded(photos[3])).content
            np.testing.assert_array_equal(found[3], np.asarray(png(content)))
            with ThreadPoolExecutor(3) as threads:
                pending = [threads.submit(asked.infer, "tiny", [entry]) for _ in range(3)]
                until(lambda: server.metric("ppool_requests_in_flight"))
                server.process.send_signal(signal.SIGTERM)
                finished = [answer.exception(PATIENCE_SECONDS) for answer in pending]
                answers = [
                    one.result() for one, error in zip(pending, finished, strict=True) if not error
                ]
                for again in answers:
                    np.testing.assert_array_equal(again.as_numpy("mask"), found)
        assert answers
        # What came after the signal.
        late = [error for error in finished if error]
        assert all(error.status() == "StatusCode.UNAVAILABLE" for error in late)
        assert server.process.wait(PATIENCE_SECONDS) == 0


def test_a_port_that_is_taken_ends_the_start(serving: Callable[..., Any]) -> None:
    failures = list[str]()
    with serving(rpc=True) as client:
        settings = Settings(workers=1)
        beside = RpcServer(settings, client.rpc_port)
        other = create_app(settings, failed=failures.append, beside=beside)

        async def start() -> None:
            async with other.router.lifespan_context(other):
                pass

        client.portal.call(start)
    assert "choose another PPOOL_GRPC_PORT" in failures[0]


def test_grpc_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ppool.service.rpc.server", None)
    with pytest.raises(MisuseError, match=r"install ppool\[grpc\]"):
        cli._grpc(Settings(), 8001)
