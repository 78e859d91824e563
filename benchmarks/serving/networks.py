"""The networks all serve: float NCHW in, logits of the input's size out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.serving.work import MEAN, STD
from research.fineshapes import FineShapes

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]

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

    def conv(
        self,
        channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        relu: bool = True,
        trained: Weights | None = None,
    ) -> None:
        """A convolution with the given weights and bias, or He-scaled random ones, and a ReLU."""
        weights, bias = trained or self._random((channels, self.channels, kernel, kernel))
        self._add("Conv", (weights, bias), pads=[kernel // 2] * 4, strides=[stride] * 2)
        self.channels = channels
        if relu:
            self._add("Relu")

    def _random(self, shape: tuple[int, ...]) -> Weights:
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights = (self._rng.standard_normal(shape) * spread).astype(np.float32)
        return weights, np.zeros(shape[0], np.float32)

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


# Channels and stride of the small network's convolutions; it doubles the size before the last two
# and after them.
_TINY = ((16, 2), (32, 2), (64, 2), (64, 1), (64, 1), (32, 1), (NUM_CLASSES, 1))
_ENCODER = 5
_STEPS = 400


def write_tiny(path: Path, side: int) -> None:
    """An encoder-decoder of about 0.3 billion multiply-adds at 256x256, trained on FineShapes."""
    network = _Network(seed=0)
    weights = iter(_trained())
    for index, (channels, stride) in enumerate(_TINY):
        if index >= _ENCODER:
            network.upsample(2)
        network.conv(channels, stride=stride, relu=channels != NUM_CLASSES, trained=next(weights))
    network.upsample(2)
    network.save(path, side)


class _Tiny(nn.Module):
    """What :func:`write_tiny` writes, to be trained: RGB as peers feed it to logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(channels for channels, _ in _TINY)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, channels, 3, stride, padding=1)
            for before, (channels, stride) in zip(widths, _TINY, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, conv in enumerate(self.convs):
            if index >= _ENCODER:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = conv(x)
            if index < len(self.convs) - 1:
                x = F.relu(x)
        return F.interpolate(x, scale_factor=2, mode="bilinear")


def _trained() -> list[Weights]:
    """Weights and bias of each convolution after half a minute of training, the same every time.

    With random weights a level of one pixel turns whole regions, and no two servers would agree.
    """
    torch.manual_seed(0)
    model = _Tiny()
    scenes = FineShapes(320, seed=0, height=128, width=128)
    samples = [scenes[index] for index in range(len(scenes))]
    images = torch.from_numpy(np.stack([(s.image - MEAN) / STD for s in samples]))
    images = images.movedim(3, 1).float()
    masks = torch.from_numpy(np.stack([s.mask for s in samples]).astype(np.int64))
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, _STEPS)
    for _ in range(_STEPS):
        chosen = torch.randint(len(samples), (8,))
        loss = F.cross_entropy(model(images[chosen]), masks[chosen], ignore_index=255)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    values = [p.detach().numpy() for p in model.parameters()]
    return list(zip(values[::2], values[1::2], strict=True))


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
