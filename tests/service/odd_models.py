"""What the odd networks are made of: pieces to put around convolutions, and whole models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.service.zoo import Net, node

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


def oddly_named() -> ModelProto:
    """Names as TensorFlow and people write them."""
    names = {"x": "serving_default_images:0", "wide": "a/b;c d", "score": "Identity \u00e4:0"}
    model = Net()()
    for entry in model.graph.node:
        for held in (entry.input, entry.output):
            held[:] = [names.get(name, name) for name in held]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    model.graph.name = "my network/\u00e4"
    return model


def in_grey(*nodes: NodeProto) -> ModelProto:
    """Bytes from 0 to 255."""
    after = [
        *nodes,
        node("Mul", ["share", "white"], "large"),
        node("Round", ["large"], "whole"),
        node("Cast", ["whole"], "y", to=UINT8),
    ]
    constants = {**WHITE, "zero": np.array(0, np.float32)}
    return Net(classes=1, after=after, output="y", gives=UINT8, constants=constants)()


def from_black_to_white(image: NDArray[Any]) -> NDArray[Any]:
    return (image / 255).transpose(2, 0, 1)[None].astype(np.float32)


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
