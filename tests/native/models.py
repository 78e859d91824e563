"""One-node ONNX models of domain ``ai.ppool``, and sessions that run them natively."""

from typing import Any

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from ppool._library import custom_ops_library
from ppool.window import Window

ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
PLUGIN = {"plugin_namespace": "ai.ppool", "plugin_version": "1"}
BRANCH = {"input_scale": 100.0, "alpha_min": 1e-4, "alpha_max": 35.0}


def window_attributes(window: Window, signed: bool = False) -> dict[str, Any]:
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": window.padding * 2,
        "dilations": window.dilation,
        "ceil_mode": int(window.ceil_mode),
        "signed": int(signed),
    }


def model(
    op: str,
    dtype: str,
    inputs: dict[str, tuple[str | int, ...]],
    outputs: tuple[str, ...],
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node computing in ``dtype``; ``inputs`` give the shapes.

    All floating tensors go in and out as float64, because the Python binding has no bfloat16.
    Sizes and ``labels`` have the types the contract gives them.
    """
    types = dict.fromkeys([*inputs, *outputs], TensorProto.DOUBLE)
    fixed = {"size": TensorProto.INT64, "between": TensorProto.INT64, "labels": TensorProto.UINT8}
    types |= fixed
    narrow = {name: name if name in fixed else f"{name}_{dtype}" for name in [*inputs, *outputs]}
    nodes = [
        *(
            helper.make_node("Cast", [name], [narrow[name]], to=ELEMENTS[dtype])
            for name in inputs
            if name not in fixed
        ),
        helper.make_node(
            op,
            [narrow[name] for name in inputs],
            [narrow[name] for name in outputs],
            domain="ai.ppool",
            **(attributes | PLUGIN),
        ),
        *(
            helper.make_node("Cast", [narrow[name]], [name], to=TensorProto.DOUBLE)
            for name in outputs
            if name not in fixed
        ),
    ]
    graph = helper.make_graph(
        nodes,
        op,
        [helper.make_tensor_value_info(k, types[k], shape) for k, shape in inputs.items()],
        [helper.make_tensor_value_info(k, types[k], None) for k in outputs],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.ppool", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def ppool_model(dtype: str, window: Window, signed: bool = False) -> onnx.ModelProto:
    inputs = {"x": ("N", "C", "H", "W"), "alpha": ("N", "C", "h", "w")}
    return model("PPool", dtype, inputs, ("y",), **window_attributes(window, signed))


def unit_model(
    dtype: str,
    window: Window,
    *,
    signed: bool = False,
    shape: tuple[str | int, ...] = ("N", "C", "H", "W"),
    **changed: Any,
) -> onnx.ModelProto:
    parameters = dict.fromkeys(("prelu_slope", "w_point", "b_point"), ("P",))
    inputs = {"x": shape, "w_region": ("R", 1, *window.kernel), **parameters}
    attributes = window_attributes(window, signed) | BRANCH | {"num_outputs": 1}
    return model("PPoolUnit", dtype, inputs, ("y",), **(attributes | changed))


def resize_model(dtype: str, *, in_blocks: bool = False) -> onnx.ModelProto:
    block = ("S", "s") if in_blocks else ()
    inputs = {"logits": ("N", "K", *block, "h", "w"), "size": (2,)}
    return model("ResizeArgMax", dtype, inputs, ("labels",))


def resize_twice_model(dtype: str) -> onnx.ModelProto:
    inputs = {"logits": ("N", "K", "h", "w"), "between": (2,), "size": (2,)}
    return model("ResizeTwiceArgMax", dtype, inputs, ("labels",))


def native_session(proto: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    """A session with the native library registered."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # expected errors are checked, not shown
    options.register_custom_ops_library(custom_ops_library())
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
