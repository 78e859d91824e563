"""A tiny model that keeps the contract, a gate before it, a client, and photos to send."""

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import onnx
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ppool.metadata import METADATA_KEY, InputPolicy, LabelClass, ModelMetadata, Stage
from ppool.runtime import Session
from ppool.service.workers.child import Loader, serve

METADATA = ModelMetadata(
    name="tiny",
    network="threshold",
    classes=(
        LabelClass(0, "dark", "#202020"),
        LabelClass(1, "middle", "#c03030"),
        LabelClass(2, "bright", "#f0f0f0"),
    ),
    input=InputPolicy(max_side=128, multiple=16),
    stages=(
        Stage("pool1", "alpha/pool1", channels=3, stride=2, alpha_min=0.0, alpha_max=35.0),
        Stage("pool2", "alpha/pool2", channels=3, stride=4, alpha_min=0.0, alpha_max=35.0),
    ),
)


def tiny_model(seed: int = 0, name: str = METADATA.name) -> bytes:
    """Three classes by the brightness of a blurred photo; "alpha" is the mean of each window.

    A random 3x3 convolution of weight 1e-3 makes every pixel depend on its neighbours in float
    arithmetic, so that a batching that changes sums is noticed.
    """
    mix = np.random.default_rng(seed).standard_normal((3, 3, 3, 3)) * 1e-3
    mix[np.arange(3), np.arange(3), 1, 1] += 1.0
    constants = {
        "mix": mix.astype(np.float32),
        "thresholds": np.array([85.0, 170.0], np.float32).reshape(1, 2, 1, 1),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "mix"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["mixed", "channel"], ["grey"], keepdims=1),
        helper.make_node("Greater", ["grey", "thresholds"], ["above"]),
        helper.make_node("Cast", ["above"], ["steps"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["steps", "channel"], ["label"], keepdims=0),
        helper.make_node("Cast", ["label"], ["mask"], to=TensorProto.UINT8),
    ]
    for stage, source in zip(METADATA.stages, ("mixed", "alpha/pool1"), strict=True):
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("AveragePool", [source], [stage.output], **pool))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([1], np.int64), "channel"))
    value = helper.make_tensor_value_info
    outputs = [value("mask", TensorProto.UINT8, ["N", "H", "W"])]
    outputs += [
        value(stage.output, TensorProto.FLOAT, ["N", 3, f"h{stage.stride}", f"w{stage.stride}"])
        for stage in METADATA.stages
    ]
    inputs = [value("image", TensorProto.UINT8, ["N", "H", "W", 3])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: replace(METADATA, name=name).to_json()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Gate:
    """A session that runs when it is let; ``arrived`` and ``open`` tell the two sides."""

    def __init__(self, session: Session) -> None:
        self.metadata = session.metadata
        self.arrived, self.open = threading.Semaphore(0), threading.Event()
        self.sizes: list[int] = []
        self._run, self.sized = session.run, session.sized
        self.open.set()

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], **_: bool
    ) -> list[NDArray[Any]]:
        self.sizes.append(len(feeds["image"]))
        self.arrived.release()
        self.open.wait()
        return self._run(outputs, feeds)

    def close(self) -> None:
        """Hold up whatever comes now; forget what came before."""
        self.open.clear()
        self.sizes.clear()
        while self.arrived.acquire(blocking=False):
            pass


class ThreadWorker:
    """A worker in this process, behind the same socket as a real one."""

    pid = 0

    def __init__(self, connection: socket.socket, lanes: int, load: Loader) -> None:
        self._connection = connection

        def work() -> None:
            with self._connection:
                serve(self._connection, lanes, load)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Cut the line: the thread ends when it next looks."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def wait(self) -> int:
        """Until the thread has ended."""
        self._thread.join()
        return 0


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test can move on."""

    skipped = 0.0

    def time(self) -> float:
        """Seconds, of which some never passed."""
        return super().time() + self.skipped


class Client:
    """Speaks to an application in this process, from ordinary tests."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self.app = app
        self.portal = portal

    def start(self, method: str, path: str, **options: Any) -> "Future[httpx.Response]":
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return self.portal.start_task_soon(send)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.start(method, path, **options).result()

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def skip(self, seconds: float) -> None:
        """Move the event loop's clock on, so that nobody waits for a deadline, nor misses one."""

        async def move() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SkippingLoop)
            loop.skipped += seconds

        self.portal.call(move)

    def metric(self, line: str) -> float:
        """The value of the metric written as ``line``, summed over the labels it leaves out."""
        rows = (row.rsplit(" ", 1) for row in self.get("/metrics").text.splitlines())
        return sum(
            float(value) for name, value in rows if name == line or name.startswith(f"{line}{{")
        )

    def segment(
        self, body: bytes = b"", query: str = "", *, accept: str = "*/*", **options: Any
    ) -> httpx.Response:
        if body:
            options["content"] = body
        headers = {"Accept": accept, **options.pop("headers", {})}
        return self.request("POST", f"/segment{query}", headers=headers, **options)


def photo(width: int = 60, height: int = 40, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth blotches, uint8 [height, width, 3]: all three classes, at least at larger sizes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    """The file of an array or an image."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()
