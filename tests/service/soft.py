"""Networks whose scores are known, what they mean taken in NumPy and PyTorch, and questions."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ppool.export import PRESETS, Adoption, adopt_model
from tests.service.harness import Client, encoded

Array = NDArray[Any]
SIDE = 96


def network(
    channels: int,
    end: str | None = None,
    *,
    pads: int = 1,
    sizes: tuple[Any, ...] = ("n", 3, "h", "w"),
    spread: float = 4.0,
) -> onnx.ModelProto:
    """A convolution of stride 4 on raw bytes, and an operator behind it."""
    rng = np.random.default_rng(channels)
    weight = rng.standard_normal((channels, 3, 7, 7))
    weight -= weight.mean((1, 2, 3), keepdims=True)
    weight *= spread / 255 / 4
    nodes = [
        helper.make_node("Div", ["in", "white"], ["x"]),
        helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], strides=[4, 4], pads=[3 * pads] * 4, name="conv"
        ),
    ]
    if end == "ArgMax":
        nodes.append(helper.make_node("ArgMax", ["y"], ["out"], axis=1))
    else:
        settings = {"axis": 1} if end == "Softmax" else {}
        nodes.append(helper.make_node(end or "Identity", ["y"], ["out"], **settings))
    constants = {
        "white": np.float32(1),
        "w": weight.astype(np.float32),
        "b": rng.uniform(-0.5, 0.5, channels).astype(np.float32),
    }
    value = helper.make_tensor_value_info
    kind = TensorProto.INT64 if end == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [value("in", TensorProto.FLOAT, sizes)],
        [value("out", kind, [None] * 4)],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def photo(height: int = 64, width: int = SIDE) -> Array:
    coarse = np.random.default_rng(7).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def fine(coarse: Array, size: tuple[int, int]) -> Array:
    x = torch.from_numpy(np.ascontiguousarray(coarse, np.float64))
    return torch.nn.functional.interpolate(x, size, mode="bilinear").numpy()[0]


def softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(0))
    return raised / raised.sum(0)


def sigmoid(scores: Array) -> Array:
    return 1 / (1 + np.exp(-scores))


def with_background(probabilities: Array) -> Array:
    return np.concatenate((1 - probabilities.max(0, keepdims=True), probabilities))


@dataclass(frozen=True)
class Case:
    """A network, how it is adopted, and what becomes of its output resized to the photo."""

    model: onnx.ModelProto
    read: Callable[[Array], Array]
    options: dict[str, Any]

    def truth(self, image: Array, size: tuple[int, int] | None = None) -> Array:
        """Probabilities of all classes at the photo's size, float64 [K, H, W]."""
        session = onnxruntime.InferenceSession(self.model.SerializeToString())
        x = image.transpose(2, 0, 1)[None].astype(np.float32)
        (output,) = session.run(None, {"in": x})
        return self.read(fine(output, size or image.shape[:2]))


def adopted(case: Case, folder: Path) -> Path:
    source, path = folder / "network.onnx", folder / "adopted.onnx"
    onnx.save(case.model, source)
    options = {"classes": (), "normalisation": PRESETS["raw"], "multiple": 32, **case.options}
    adopt_model(source, path, Adoption(**options))
    return path


def opened(answer: Any) -> dict[str, Array]:
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def grey(content: bytes) -> Array:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def arrays(client: Client, image: Array, **query: Any) -> dict[str, Array]:
    return opened(ask(client, image, accept="application/x-npz", **query))


def ask(client: Client, image: Array, accept: str = "*/*", **query: Any) -> Any:
    return client.segment(encoded(image), accept=accept, params=query)


def from_rle(text: str, size: tuple[int, int]) -> Array:
    """COCO's run lengths undone, as ``rleFrString`` of the COCO API does it."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << 5 * shift
            more = bool(bits & 0x20)
            place += 1
            shift += 1
            if not more and bits & 0x10:
                value |= -1 << 5 * shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    values = np.arange(len(counts)) % 2
    return np.repeat(values, counts).reshape(size[::-1]).T


def ask_protocol(client: Client, image: Array, *names: str) -> Any:
    tensor = {
        "name": "image",
        "shape": [1, *image.shape],
        "datatype": "UINT8",
        "data": image.ravel().tolist(),
    }
    question = {"inputs": [tensor], "outputs": [{"name": name} for name in names]}
    (model,) = (entry["name"] for entry in client.get("/models").json())
    return client.request("POST", f"/v2/models/{model}/infer", json=question)


def infer(client: Client, image: Array, *names: str) -> dict[str, Array]:
    answer = ask_protocol(client, image, *names)
    assert answer.status_code == 200, answer.text
    return {
        entry["name"]: np.array(entry["data"]).reshape(entry["shape"])[0]
        for entry in answer.json()["outputs"]
    }


# Above which overlapping probabilities count.
LEVEL = 0.3
CASES = {
    "logits": Case(network(5), softmax, {}),
    "softmax inside": Case(network(5, "Softmax"), lambda p: p, {}),
    "sigmoids that compete": Case(network(4, "Sigmoid"), lambda p: p, {"head": "argmax"}),
    "one logit": Case(network(1), lambda x: with_background(sigmoid(x)), {}),
    "one logit above 1": Case(
        network(1), lambda x: with_background(sigmoid(x)), {"threshold": 1.0}
    ),
    "one probability": Case(network(1, "Sigmoid"), with_background, {"threshold": LEVEL}),
    "overlapping logits": Case(
        network(4), lambda x: with_background(sigmoid(x)), {"head": "multilabel"}
    ),
    "overlapping probabilities": Case(
        network(4, "Sigmoid"), with_background, {"head": "multilabel", "threshold": LEVEL}
    ),
    "scores off the grid": Case(network(5, pads=0), softmax, {}),
    "one size, letterboxed": Case(
        network(5, sizes=(1, 3, SIDE, SIDE)), softmax, {"pad": (114, 114, 114)}
    ),
}
