"""``ppool.client`` against scripted answers, and against the service."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ppool import client as module
from ppool.client import AsyncClient, Problem, Segmentation
from ppool.client import Client as SyncClient
from ppool.service.workers.inference import Segmenter
from tests.service.harness import encoded, photo
from tests.service.test_segment import outputs_of
from tests.service.traffic import ROOT, served

PHOTO = encoded(photo())
BUSY = {"type": "urn:ppool:problem:overloaded", "status": 429, "detail": "Retry in 3 s."}

Call = Callable[..., Segmentation]


def good() -> httpx.Response:
    file = io.BytesIO()
    np.savez(file, mask=np.ones((2, 3), np.uint8))
    return httpx.Response(200, content=file.getvalue(), headers={"x-model": "m"})


def busy(**headers: str) -> httpx.Response:
    return httpx.Response(429, json=BUSY, headers=headers)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Segments one photo with one of the two clients; keywords are the client's."""

    def by_sync(**options: Any) -> Segmentation:
        with SyncClient("http://test", **options) as client:
            return client.segment(PHOTO)

    def by_async(**options: Any) -> Segmentation:
        async def run() -> Segmentation:
            async with AsyncClient("http://test", **options) as client:
                return await client.segment(PHOTO)

        return asyncio.run(run())

    return by_sync if request.param == "sync" else by_async


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses taken, on a clock that moves by them alone."""
    taken: list[float] = []

    async def rest(seconds: float) -> None:
        taken.append(seconds)

    class Clock:
        monotonic = staticmethod(lambda: sum(taken))
        sleep = staticmethod(taken.append)

    class Loop:
        sleep = staticmethod(rest)

    monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(module, "asyncio", Loop)
    return taken


def script(*answers: httpx.Response) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answers[len(asked) - 1]

    return httpx.MockTransport(answer), asked


def test_it_waits_as_long_as_it_is_told(call: Call, pauses: list[float]) -> None:
    transport, asked = script(busy(**{"Retry-After": "3"}), busy(), good())
    found = call(transport=transport, api_key="secret")
    assert pauses == [3.0, 1.0]
    assert (found.mask.shape, found.model) == ((2, 3), "m")
    assert {request.headers["authorization"] for request in asked} == {"Bearer secret"}
    assert {request.content for request in asked} == {PHOTO}


def test_its_patience_ends_before_a_pause_that_is_too_long(call: Call, pauses: list[float]) -> None:
    transport, _ = script(*[busy(**{"Retry-After": "3"})] * 4)
    with pytest.raises(Problem, match="Retry in 3 s") as caught:
        call(transport=transport, patience_seconds=7)
    assert pauses == [3.0, 3.0]
    assert (caught.value.status, caught.value.type) == (429, BUSY["type"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status_code": 422, "json": BUSY | {"detail": "It is cut off."}}, "It is cut off"),
        ({"status_code": 502, "text": "<html>bad"}, "status 502 from http://test/segment"),
        ({"status_code": 502, "json": ["bad"]}, "status 502 from http://test/segment"),
    ],
)
def test_other_refusals_are_raised_at_once(
    answer: dict[str, Any], message: str, call: Call, pauses: list[float]
) -> None:
    transport, asked = script(httpx.Response(**answer))
    with pytest.raises(Problem, match=message):
        call(transport=transport)
    assert (len(asked), pauses) == (1, [])


def test_masks_and_alpha_maps_come_as_arrays(
    model_file: Path, tmp_path: Path, segmenter: Segmenter
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PHOTO)
    expected = outputs_of(segmenter, photo())
    with served(str(model_file)) as server, SyncClient(server.address) as client:
        assert [model["name"] for model in client.models()] == ["tiny"]
        found = client.segment(path, model="tiny", alpha=True)
        with pytest.raises(Problem, match="a page from 1 to 1"):
            client.segment(path, page=2)
        planes = client.segment(path, planes=["middle"]).planes
        with pytest.raises(Problem, match="cats"):
            client.segment(path, model="cats")
    np.testing.assert_array_equal(found.mask, expected["mask"])
    np.testing.assert_allclose(found.alpha["pool2"], expected["alpha/pool2"], rtol=1e-3)
    np.testing.assert_array_equal(planes["middle"], expected["mask"] == 1)
    assert found.request_id


def test_it_imports_neither_torch_nor_onnx_runtime() -> None:
    code = (
        "import sys, ppool.client;"
        "bad = {'torch', 'onnxruntime', 'ppool.service'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
