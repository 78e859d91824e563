"""What the odd networks of the zoo are made of, and how each is fed and read.

Nothing here comes from ``ppool``: what a network is fed and how its answer becomes a mask is
written once more, in NumPy and PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = {"preset": "imagenet"}
FREE: tuple[Any, ...] = ("n", 3, "h", "w")


def nchw(image: Array) -> Array:
    x = (image / 255 - np.array(MEAN)) / np.array(STD)
    return x.transpose(2, 0, 1)[None].astype(np.float32)


def nhwc(image: Array) -> Array:
    return nchw(image).transpose(0, 2, 3, 1)


def as_type(dtype: Any, feed: Callable[[Array], Array] = nchw) -> Callable[[Array], Array]:
    return lambda image: feed(image).astype(dtype)


def raw(image: Array) -> Array:
    return image.transpose(2, 0, 1)[None]


def raw_last(image: Array) -> Array:
    return image[None]


def caffe(image: Array) -> Array:
    x = image[..., ::-1].astype(np.float32) - np.array((103.939, 116.779, 123.68), np.float32)
    return x.transpose(2, 0, 1)[None]


def from_minus_one(image: Array) -> Array:
    return (image / 127.5 - 1).transpose(2, 0, 1)[None].astype(np.float32)


def grey(image: Array) -> Array:
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))[None, None]


def half_grey(image: Array) -> Array:
    return ((grey(image) / 255 - 0.5) / 0.5).astype(np.float32)


def fine(output: Array, size: tuple[int, int]) -> Array:
    """Half-pixel bilinear resizing of [1, K, h, w]."""
    x = torch.from_numpy(np.ascontiguousarray(output, np.float64))
    return torch.nn.functional.interpolate(x, size, mode="bilinear").numpy()


def largest(output: Array, size: tuple[int, int]) -> Array:
    return fine(output, size).argmax(1)[0]


def last_largest(output: Array, size: tuple[int, int]) -> Array:
    return largest(output.transpose(0, 3, 1, 2), size)


def above(level: float) -> Callable[[Array, tuple[int, int]], Array]:
    return lambda output, size: fine(output.reshape(1, 1, *_plane(output)), size)[0, 0] > level


def _plane(output: Array) -> tuple[int, int]:
    sizes = [side for side in output.shape if side > 1]
    return sizes[0], sizes[1]


def overlapping(level: float) -> Callable[[Array, tuple[int, int]], Array]:
    def read(output: Array, size: tuple[int, int]) -> Array:
        resized = fine(output, size)[0]
        return np.where(resized.max(0) > level, resized.argmax(0) + 1, 0)

    return read


def nearest(output: Array, size: tuple[int, int]) -> Array:
    plane = output.reshape(_plane(output))
    rows, columns = (
        ((np.arange(wanted) + 0.5) * had / wanted).astype(int)
        for wanted, had in zip(size, plane.shape, strict=True)
    )
    return plane[rows][:, columns]


@dataclass(frozen=True)
class Kept:
    """One network.

    Attributes:
        name: What is odd about it.
        model: The network, or a function that writes it into a folder and gives its path.
        options: For ``Adoption``; ``preset`` and ``channels`` are of its normalisation.
        feed: A photo, uint8 [H, W, 3], as the network takes it.
        read: Its output as a mask of a size.
        size: Of photos that it takes; ``None`` is any.
        allowed: Share of pixels that may differ.
    """

    name: str
    model: ModelProto | Callable[[Path], Path]
    options: dict[str, Any] = field(default_factory=lambda: dict(IMAGENET))
    feed: Callable[[Array], Array] = nchw
    read: Callable[[Array, tuple[int, int]], Array] = largest
    size: tuple[int, int] | None = None
    allowed: float = 1e-3


def weights(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Random, summing to zero over what they are multiplied with, so that grey says nothing."""
    values = np.random.default_rng(seed).standard_normal(shape)
    if len(shape) == 4:
        values -= values.mean((1, 2, 3), keepdims=True)
    return values.astype(dtype)


def node(kind: str, inputs: Sequence[str], output: str, **settings: Any) -> NodeProto:
    return helper.make_node(kind, [*inputs], [output], **settings)


@dataclass
class Net:
    """Convolutions from ``x`` to ``score`` at half the size, and whatever is put around them."""

    classes: int = 4
    channels: int = 3
    opset: int = 17
    stride: int = 2
    pad: int = 1
    dtype: int = TensorProto.FLOAT
    given: int | None = None
    sizes: Sequence[Any] | None = FREE
    ir: int = 8
    before: Sequence[NodeProto] = ()
    after: Sequence[NodeProto] = ()
    output: str = "score"
    gives: int | None = None
    constants: dict[str, Array] = field(default_factory=dict)
    more: Sequence[tuple[str, int]] = ()

    def __call__(self) -> ModelProto:
        kind = helper.tensor_dtype_to_np_dtype(self.dtype)
        first = weights(8, self.channels, 3, 3, dtype=kind)
        tensors = {
            "w1": first,
            "w2": weights(self.classes, 8, 3, 3, seed=1, dtype=kind),
            **self.constants,
        }
        start = "ready" if self.before else "x"
        pads = [self.pad] * 4
        nodes = [
            *self.before,
            node("Conv", [start, "w1"], "wide", strides=[self.stride] * 2, pads=pads),
            node("Relu", ["wide"], "positive"),
            node("Conv", ["positive", "w2"], "score", pads=pads),
            *self.after,
        ]
        value = helper.make_tensor_value_info
        given = self.given or self.dtype
        outputs = [value(self.output, self.gives or self.dtype, None)]
        outputs += [value(name, kind, None) for name, kind in self.more]
        graph = helper.make_graph(
            nodes,
            "net",
            [value("x", given, self.sizes)],
            outputs,
            [numpy_helper.from_array(array, name) for name, array in tensors.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir)
