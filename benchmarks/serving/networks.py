"""The networks all serve: float NCHW in, logits of the input's size out, random weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

NUM_CLASSES = 21
CLASSES = tuple(f"class{index}" for index in range(NUM_CLASSES))

# VGG-16's convolutions by stage; between stages a 2x2 max pooling, so the stride is 16.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class _Network:
    """A chain of nodes, built from the input on."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.float32]] = {}
        self.last, self.channels = "image", 3

    def _add(
        self, op: str, constants: Iterable[NDArray[np.float32]] = (), **attributes: Any
    ) -> None:
        name = f"{op}{len(self.nodes)}"
        inputs = [self.last]
        for index, values in enumerate(constants):
            self.constants[f"{name}/{index}"] = values
            inputs.append(f"{name}/{index}")
        if op == "Resize":
            inputs.insert(1, "")
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.last = name

    def conv(self, channels: int, *, kernel: int = 3, stride: int = 1, relu: bool = True) -> None:
        """A convolution with He-scaled weights, and a ReLU."""
        shape = (channels, self.channels, kernel, kernel)
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights = (self._rng.standard_normal(shape) * spread).astype(np.float32)
        bias = np.zeros(channels, np.float32)
        self._add("Conv", (weights, bias), pads=[kernel // 2] * 4, strides=[stride] * 2)
        self.channels = channels
        if relu:
            self._add("Relu")

    def max_pool(self) -> None:
        """2x2, stride 2."""
        self._add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])

    def upsample(self, factor: int) -> None:
        """Bilinear."""
        scales = np.array([1, 1, factor, factor], np.float32)
        self._add("Resize", (scales,), mode="linear", coordinate_transformation_mode="half_pixel")

    def save(self, path: Path, side: int) -> None:
        """Write the model, with a free batch size and a fixed side."""
        self.nodes[-1].output[0] = "logits"
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, side, side])
        logits = helper.make_tensor_value_info(
            "logits", TensorProto.FLOAT, ["N", NUM_CLASSES, side, side]
        )
        constants = [numpy_helper.from_array(v, name) for name, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, path.stem, [image], [logits], constants)
        opset = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def write_tiny(path: Path, side: int) -> None:
    """An encoder-decoder of about 0.3 billion multiply-adds at 256x256."""
    network = _Network(seed=0)
    for channels in (16, 32, 64):
        network.conv(channels, stride=2)
    network.conv(64)
    network.conv(64)
    for channels in (32, NUM_CLASSES):
        network.upsample(2)
        network.conv(channels, relu=channels != NUM_CLASSES)
    network.upsample(2)
    network.save(path, side)


def write_vgg16(path: Path, side: int) -> None:
    """VGG-16 at stride 16 with a 1x1 classifier: 20 billion multiply-adds at 256x256."""
    network = _Network(seed=0)
    for number, stage in enumerate(_VGG16):
        if number:
            network.max_pool()
        for channels in stage:
            network.conv(channels)
    network.conv(NUM_CLASSES, kernel=1, relu=False)
    network.upsample(16)
    network.save(path, side)
