"""A tiny model that keeps the contract, a gate before it, a client, and photos to send."""

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import onnx
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from ppool.metadata import METADATA_KEY, InputPolicy, LabelClass, ModelMetadata, Stage
from ppool.runtime import Session
from ppool.service.workers.child import Loader, serve
from ppool.service.workers.launch import Launched

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


@dataclass(frozen=True)
class Odd:
    """A mask other than the class ids, by nodes from ``label``, int32 [N, H, W]."""

    nodes: Sequence[NodeProto]
    kind: int = TensorProto.UINT8


def _cast(source: str) -> NodeProto:
    return helper.make_node("Cast", [source], ["mask"], to=TensorProto.UINT8)


def _constant(name: str, values: Any) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values)))


def slow(iterations: int, height: int) -> Odd:
    """A mask that takes so many iterations of a loop, each some microseconds, at this height."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.INT32, None),
        ],
        [value("goes", TensorProto.BOOL, []), value("after", TensorProto.INT32, None)],
    )
    return Odd(
        [
            helper.make_node("Shape", ["label"], ["rows"], start=1, end=2),
            _constant("these", np.int64([height])),
            helper.make_node("Equal", ["rows", "these"], ["so"]),
            _constant("many", np.int64([iterations])),
            _constant("few", np.int64([1])),
            helper.make_node("Where", ["so", "many", "few"], ["times"]),
            _constant("yes", np.bool_(True)),
            helper.make_node("Loop", ["times", "yes", "label"], ["looped"], body=body),
            _cast("looped"),
        ]
    )


ODD_MASKS = {
    "another type": Odd([helper.make_node("Identity", ["label"], ["mask"])], TensorProto.INT32),
    "half the size": Odd(
        [
            _constant("from", np.int64([0, 0])), _constant("to", np.int64([9999, 9999])),
            _constant("axes", np.int64([1, 2])), _constant("steps2", np.int64([2, 2])),
            helper.make_node("Slice", ["label", "from", "to", "axes", "steps2"], ["half"]),
            _cast("half"),
        ]
    ),
    "labels beyond the classes": Odd(
        [_constant("one", np.int32(1)), helper.make_node("Add", ["label", "one"], ["more"]),
         _cast("more")]
    ),
}  # fmt: skip

ODD_STAGES = {
    "a stage that is missing": Stage("pool3", "alpha/pool3", 3, 8, 0.0, 35.0),
    "stride 0": replace(METADATA.stages[0], stride=0),
    "another stride": replace(METADATA.stages[0], stride=4),
    "other channels": replace(METADATA.stages[0], channels=4),
}


def odd_model(kind: str, name: str = METADATA.name) -> bytes:
    """A model whose outputs are not what its file says of them."""
    if kind in ODD_MASKS:
        return tiny_model(name=name, mask=ODD_MASKS[kind])
    return tiny_model(name=name, metadata=replace(METADATA, stages=(ODD_STAGES[kind],)))


def tiny_model(
    seed: int = 0,
    name: str = METADATA.name,
    *,
    metadata: ModelMetadata = METADATA,
    mask: Odd | None = None,
) -> bytes:
    """Three classes by the brightness of a blurred photo; "alpha" is the mean of each window.

    A random 3x3 convolution of weight 1e-3 makes every pixel depend on its neighbours in float
    arithmetic, so that a batching that changes sums is noticed.

    Args:
        seed: Of the convolution.
        name: Of the model.
        metadata: What the file says of itself.
        mask: Instead of the class ids.
    """
    mask = mask or Odd([_cast("label")])
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
        *mask.nodes,
    ]
    for stage, source in zip(METADATA.stages, ("mixed", "alpha/pool1"), strict=True):
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("AveragePool", [source], [stage.output], **pool))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([1], np.int64), "channel"))
    value = helper.make_tensor_value_info
    outputs = [value("mask", mask.kind, ["N", None, None])]
    outputs += [
        value(stage.output, TensorProto.FLOAT, ["N", 3, f"h{stage.stride}", f"w{stage.stride}"])
        for stage in METADATA.stages
    ]
    inputs = [value("image", TensorProto.UINT8, ["N", "H", "W", 3])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: replace(metadata, name=name).to_json()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Gate:
    """A session that runs when it is let; ``arrived`` and ``open`` tell the two sides."""

    def __init__(self, session: Session) -> None:
        self.metadata = session.metadata
        self.arrived, self.open = threading.Semaphore(0), threading.Event()
        self.sizes: list[int] = []
        self._run, self.sized, self.release = session.run, session.sized, session.release
        self.open.set()

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], **_: Any
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
    """A worker in this process, behind the same sockets as a real one."""

    pid = 0

    def __init__(self, work: socket.socket, control: socket.socket, lanes: int, load: Loader):
        self._sockets = (work, control)

        def live() -> None:
            with work, control:
                serve(work, control, lanes, load)

        self._thread = threading.Thread(target=live, daemon=True)
        self._thread.start()

    @classmethod
    def launch(cls, lanes: int, load: Loader) -> Launched:
        """Start one, as ``launch_process`` does."""
        (work, theirs), (control, others) = socket.socketpair(), socket.socketpair()
        return Launched(cls(theirs, others, lanes, load), work, control)

    def kill(self) -> None:
        """Cut the lines: the thread ends when it next looks."""
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def join(self, seconds: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(seconds)

    def poll(self) -> int | None:
        """0 once the thread has ended."""
        return None if self._thread.is_alive() else 0


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test can move on."""

    skipped = 0.0

    def time(self) -> float:
        """Seconds, of which some never passed."""
        return super().time() + self.skipped


class Client:
    """Speaks to an application in this process, from ordinary tests."""

    rpc_port = 0

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
