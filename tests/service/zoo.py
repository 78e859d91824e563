"""Small networks of every odd kind, as strangers export them, with their own reading beside each.

Nothing here comes from ``ppool``: what a network is fed and how its answer becomes a mask is
written once more, in NumPy and PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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


INT64, INT32, UINT8 = TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8
FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
LAST = ("n", "h", "w", 3)
FIRST = [node("Transpose", ["x"], "ready", perm=[0, 3, 1, 2])]
TO_LAST = [node("Transpose", ["score"], "y", perm=[0, 2, 3, 1])]
BYTES = [node("Cast", ["x"], "float", to=FLOAT), node("Div", ["float", "white"], "ready")]
WHITE = {"white": np.array(255, np.float32)}
SIGMOID = [node("Sigmoid", ["score"], "y")]
SCALES = {"scales": np.array([1, 1, 2, 2], np.float32)}
RAW = {"preset": "raw"}


def arg_max(*, keep: int = 0, axis: int = 1) -> list[NodeProto]:
    return [node("ArgMax", ["score"], "y", axis=axis, keepdims=keep)]


def cast_labels(kind: int, *, keep: int = 0) -> list[NodeProto]:
    return [
        node("ArgMax", ["score"], "labels", axis=1, keepdims=keep),
        node("Cast", ["labels"], "y", to=kind),
    ]


def resized(**grid: Any) -> list[NodeProto]:
    return [node("Resize", ["score", "", "scales"], "y", **grid)]


def old_operators(opset: int) -> ModelProto:
    """Attributes that became inputs later: Upsample, Pad, Clip, Slice; BatchNormalization."""
    after = [
        node("BatchNormalization", ["score", "one", "zero", "zero", "one"], "normal", epsilon=0.0),
        node("Clip", ["normal"], "clipped", min=-4.0, max=4.0),
        node("Pad", ["clipped"], "padded", pads=[0, 0, 0, 0, 0, 0, 1, 1], mode="edge"),
        node("Slice", ["padded"], "cut", axes=[2, 3], starts=[0, 0], ends=[-1, -1]),
    ]
    after.append(
        node("Upsample", ["cut"], "y", mode="linear", scales=[1.0, 1.0, 2.0, 2.0])
        if opset < 9
        else node("Upsample", ["cut", "scales"], "y", mode="linear")
    )
    constants = {**SCALES, "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    net = Net(opset=opset, ir=4, after=after, output="y", constants=constants)
    return net()


def with_sizes(sizes: Sequence[int], model: ModelProto) -> ModelProto:
    """Sizes such as -1 and 0, written as some exporters do."""
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        dim.Clear()
        dim.dim_value = size
    return model


def unsorted(model: ModelProto) -> ModelProto:
    nodes = [*model.graph.node][::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def constants_as_inputs(model: ModelProto) -> ModelProto:
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return model


def renamed(model: ModelProto) -> ModelProto:
    """Tensors with the names that a wrapper would like to take."""
    names = {"x": "image", "wide": "mask", "positive": "size", "score": "logits", "w1": "scores"}
    for entry in model.graph.node:
        for held in (entry.input, entry.output):
            held[:] = [names.get(name, name) for name in held]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    return model


def with_branch() -> ModelProto:
    value = helper.make_tensor_value_info("y", FLOAT, None)
    branches = {
        name: helper.make_graph([node(kind, ["score"], "y")], name, [], [value])
        for name, kind in (("then_branch", "Neg"), ("else_branch", "Identity"))
    }
    return Net(
        after=[node("If", ["yes"], "y", **branches)],
        output="y",
        constants={"yes": np.array(True)},
    )()


def with_function() -> ModelProto:
    model = Net()()
    opsets = [helper.make_opsetid("", 17)]
    body = helper.make_function(
        "theirs", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], "b")], opsets
    )
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    model.graph.node.append(node("Twice", ["score"], "y", domain="theirs"))
    model.graph.output[0].name = "y"
    return model


def external(folder: Path) -> Path:
    path = folder / "external.onnx"
    onnx.save(Net()(), path, save_as_external_data=True, location="external.bin", size_threshold=64)
    return path


def quantised(style: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            quantize_dynamic,
            quantize_static,
        )

        source, target = folder / "plain.onnx", folder / f"{style}.onnx"
        onnx.save(Net()(), source)
        if style == "dynamic":
            quantize_dynamic(source, target, op_types_to_quantize=["Conv"])
            return target

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
                self.left = iter([{"x": nchw(image)} for image in images])

            def get_next(self) -> Any:
                return next(self.left, None)

        quantize_static(source, target, Reader(), quant_format=QuantFormat[style])
        return target

    return write


def case(name: str) -> Callable[[Path], Path]:
    return lambda _: Path(__file__).parents[1] / "export" / "cases" / f"{name}.onnx"


def options(**more: Any) -> dict[str, Any]:
    return {**IMAGENET, **more}


FIXED = (64, 96)
ZOO = [
    Kept("plain", Net()()),
    Kept("channels last in", Net(before=FIRST, sizes=LAST)(), feed=nhwc),
    Kept("channels last out", Net(after=TO_LAST, output="y")(), read=last_largest),
    Kept(
        "channels last",
        Net(before=FIRST, sizes=LAST, after=TO_LAST, output="y")(),
        feed=nhwc,
        read=last_largest,
    ),
    Kept("bytes", Net(before=BYTES, constants=WHITE, given=UINT8)(), RAW, raw),
    Kept(
        "bytes last",
        Net(
            before=[
                node("Transpose", ["x"], "first", perm=[0, 3, 1, 2]),
                node("Cast", ["first"], "float", to=FLOAT),
                node("Div", ["float", "white"], "ready"),
            ],
            constants=WHITE,
            given=UINT8,
            sizes=LAST,
        )(),
        RAW,
        raw_last,
    ),
    Kept(
        "whole numbers",
        Net(before=BYTES, constants=WHITE, given=INT32)(),
        RAW,
        as_type(np.int32, raw),
    ),
    Kept("Caffe's BGR", Net()(), {"preset": "caffe"}, caffe),
    Kept("from -1 to 1", Net()(), {"preset": "tf"}, from_minus_one),
    Kept("0 to 255", Net()(), RAW, as_type(np.float32, raw)),
    Kept(
        "grey",
        Net(channels=1, sizes=("n", 1, "h", "w"))(),
        {"mean": (0.5,), "std": (0.5,), "channels": "grey"},
        half_grey,
    ),
    Kept(
        "grey bytes",
        Net(channels=1, before=BYTES, constants=WHITE, given=UINT8, sizes=("n", 1, "h", "w"))(),
        {"mean": (0,), "std": (1,), "channels": "grey", "scale": 255},
        grey,
    ),
    Kept("float16", Net(dtype=HALF)(), feed=as_type(np.float16), allowed=1e-2),
    Kept(
        "float64",
        Net(before=[node("Cast", ["x"], "ready", to=FLOAT)], given=DOUBLE)(),
        feed=as_type(np.float64),
    ),
    Kept("one size", Net(sizes=(1, 3, *FIXED))(), size=FIXED),
    Kept("one size, any batch", Net(sizes=("n", 3, *FIXED))(), size=FIXED),
    Kept(
        "one size, channels last",
        Net(before=FIRST, sizes=(1, *FIXED, 3), after=TO_LAST, output="y")(),
        feed=nhwc,
        read=last_largest,
        size=FIXED,
    ),
    Kept(
        "one size, enlarged inside",
        Net(
            sizes=(1, 3, *FIXED),
            after=resized(mode="linear", coordinate_transformation_mode="half_pixel"),
            output="y",
            constants=SCALES,
        )(),
        size=FIXED,
    ),
    Kept("stretched", Net()(), options(size=(96, 64)), size=(96, 64)),
    Kept("one channel of logits", Net(classes=1)(), read=above(0)),
    Kept(
        "one channel of probabilities", Net(classes=1, after=SIGMOID, output="y")(), read=above(0.5)
    ),
    Kept(
        "a threshold of 0.3",
        Net(classes=1, after=SIGMOID, output="y")(),
        options(threshold=0.3),
        read=above(0.3),
    ),
    Kept(
        "no axis of channels",
        Net(
            classes=1,
            after=[node("Squeeze", ["score", "one"], "y")],
            output="y",
            constants={"one": np.array([1])},
        )(),
        read=above(0),
    ),
    Kept("one channel, last", Net(classes=1, after=TO_LAST, output="y")(), read=above(0)),
    Kept(
        "one channel, one size", Net(classes=1, sizes=(1, 3, *FIXED))(), read=above(0), size=FIXED
    ),
    Kept("softmax inside", Net(after=[node("Softmax", ["score"], "y", axis=1)], output="y")()),
    Kept("sigmoids", Net(after=SIGMOID, output="y")()),
    Kept("overlapping logits", Net()(), options(head="multilabel"), read=overlapping(0)),
    Kept(
        "overlapping probabilities",
        Net(after=SIGMOID, output="y")(),
        options(head="multilabel", threshold=0.6),
        read=overlapping(0.6),
    ),
    Kept("labels", Net(stride=1, after=arg_max(), output="y", gives=INT64)(), read=nearest),
    Kept("coarse labels", Net(after=arg_max(), output="y", gives=INT64)(), read=nearest),
    Kept(
        "labels, int32",
        Net(after=cast_labels(INT32, keep=1), output="y", gives=INT32)(),
        read=nearest,
    ),
    Kept("labels, bytes", Net(after=cast_labels(UINT8), output="y", gives=UINT8)(), read=nearest),
    Kept(
        "labels, floats",
        Net(after=cast_labels(FLOAT, keep=1), output="y", gives=FLOAT)(),
        read=nearest,
    ),
    Kept(
        "labels, one size",
        Net(sizes=(1, 3, *FIXED), after=arg_max(keep=1), output="y", gives=INT64)(),
        read=nearest,
        size=FIXED,
    ),
    Kept(
        "labels, channels last",
        Net(
            after=[
                *TO_LAST[:0],
                node("Transpose", ["score"], "last", perm=[0, 2, 3, 1]),
                node("ArgMax", ["last"], "y", axis=3, keepdims=1),
            ],
            output="y",
            gives=INT64,
        )(),
        read=nearest,
    ),
    Kept("opset 7", old_operators(7)),
    Kept("opset 8", old_operators(8)),
    Kept("opset 9", old_operators(9)),
    Kept(
        "opset 10",
        Net(
            opset=10,
            ir=5,
            after=[node("Resize", ["score", "scales"], "y", mode="nearest")],
            output="y",
            constants=SCALES,
        )(),
    ),
    Kept(
        "opset 11, labels",
        Net(opset=11, ir=6, after=arg_max(), output="y", gives=INT64)(),
        read=nearest,
    ),
    Kept(
        "opset 12",
        Net(opset=12, ir=7, after=[node("Softmax", ["score"], "y", axis=1)], output="y")(),
    ),
    Kept("opset 22", Net(opset=22, ir=10)()),
    Kept(
        "corners aligned",
        Net(
            after=resized(mode="linear", coordinate_transformation_mode="align_corners"),
            output="y",
            constants=SCALES,
        )(),
    ),
    Kept(
        "a last resize, fused",
        Net(
            after=resized(mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
            output="y",
            constants=SCALES,
        )(),
    ),
    Kept("cubic", Net(after=resized(mode="cubic"), output="y", constants=SCALES)()),
    Kept("sizes of -1", with_sizes((-1, 3, -1, -1), Net()())),
    Kept("sizes of 0", with_sizes((0, 3, 0, 0), Net()())),
    Kept("no shape", Net(sizes=None)()),
    Kept("unsorted", unsorted(Net()())),
    Kept("constants as inputs", constants_as_inputs(Net(opset=8)())),
    Kept("our own names", renamed(Net()())),
    Kept("a branch", with_branch()),
    Kept("a function", with_function()),
    Kept("weights beside it", external),
    Kept("quantised at run time", quantised("dynamic"), allowed=1e-2),
    Kept("QDQ", quantised("QDQ"), allowed=1e-2),
    Kept("QOperator", quantised("QOperator"), allowed=1e-2),
    Kept("no padding", Net(pad=0)()),
    Kept("stride 8", Net(stride=8)()),
    Kept("many classes", Net(classes=150)()),
    Kept("two classes", Net(classes=2)()),
    Kept(
        "no axis of photos",
        Net(
            sizes=(3, "h", "w"),
            before=[node("Unsqueeze", ["x", "zero"], "ready")],
            after=[node("Squeeze", ["score", "zero"], "y")],
            output="y",
            constants={"zero": np.array([0])},
        )(),
        feed=lambda image: nchw(image)[0],
        read=lambda output, size: largest(output[None], size),
    ),
    Kept(
        "several outputs",
        Net(after=SIGMOID, output="score", more=[("y", FLOAT)])(),
        options(output="score"),
    ),
    Kept("asymmetric Upsample", case("up9_linear")),
    Kept("asymmetric Resize", case("rs10_linear")),
    Kept("an axis of 1 inside", case("se_batch1")),
]
