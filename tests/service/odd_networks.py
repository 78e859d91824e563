"""Small networks of every odd kind, as strangers export them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.service.odd_files import FILES
from tests.service.zoo import (
    IMAGENET,
    Kept,
    Net,
    above,
    as_type,
    caffe,
    from_minus_one,
    grey,
    half_grey,
    largest,
    last_largest,
    nchw,
    nearest,
    nhwc,
    node,
    overlapping,
    raw,
    raw_last,
)

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


def with_functions_of_functions() -> ModelProto:
    """As PyTorch's exporter wrote files in 2023 and 2024: a module is a function of functions."""
    library = "pkg.onnxscript.torch_lib"
    imports = f'"" : 17, "{library}" : 1, "{library}.common" : 1'
    functions = [
        f"""<opset_import: [{imports}], domain: "pkg.torch.2.3.0">
        Net (x, w1, w2) => (score) {{
            wide = {library}.aten_conv2d <strides = [2, 2]> (x, w1)
            positive = {library}.aten_relu (wide)
            score = {library}.aten_conv2d (positive, w2)
        }}""",
        f"""<opset_import: [{imports}], domain: "{library}">
        aten_conv2d <strides: ints = [1, 1]> (x, w) => (y) {{
            y = Conv <pads = [1, 1, 1, 1], strides: ints = @strides> (x, w)
        }}""",
        f"""<opset_import: [{imports}], domain: "{library}">
        aten_relu (x) => (y) {{
            alone = {library}.common.IsScalar (x)
            y = If (alone) <
                then_branch = as_it_is () => (same) {{ same = Identity (x) }},
                else_branch = each () => (positive) {{ positive = Relu (x) }}
            >
        }}""",
        f"""<opset_import: [{imports}], domain: "{library}.common">
        IsScalar (x) => (y) {{
            shape = Shape (x)
            rank = Size (shape)
            zero = Constant <value = int64 {{0}}> ()
            y = Equal (rank, zero)
        }}""",
    ]
    model = Net()()
    del model.graph.node[:]
    model.graph.node.append(node("Net", ["x", "w1", "w2"], "score", domain="pkg.torch.2.3.0"))
    model.functions.extend(map(onnx.parser.parse_function, functions))
    for domain in ("pkg.torch.2.3.0", library, f"{library}.common"):
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


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
    Kept("stretched, bicubic", Net()(), options(size=(96, 64), resample="bicubic"), size=(96, 64)),
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
    Kept("functions of functions", with_functions_of_functions()),
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
    *FILES,
]
