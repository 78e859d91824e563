"""The fused unit in ONNX Runtime against its own MaxPool and against the portable function body."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from benchmarks.measure import interleaved
from ppool import custom_ops_library
from ppool.onnx_ops import DOMAIN, ONNX_OPSET, OPSET, PLUGIN_ATTRIBUTES, function_bodies

__all__ = ["kernels"]

CHANNELS, SIZE = 64, 512
WINDOWS = {"2x2/2": (2, 2, 0), "3x3/2": (3, 2, 1)}


def _model(op: str, kernel: int, stride: int, padding: int) -> bytes:
    """A graph of one pooling node on float32 [1, 64, 512, 512]."""
    window: dict[str, Any] = {
        "kernel_shape": [kernel, kernel],
        "strides": [stride, stride],
        "pads": [padding] * 4,
        "dilations": [1, 1],
        "ceil_mode": 0,
    }
    initializers = []
    if op == "PPoolUnit":
        rng = np.random.default_rng(0)
        parameters = {
            "w_region": rng.normal(size=(CHANNELS, 1, kernel, kernel)),
            "prelu_slope": np.full(CHANNELS, 0.25),
            "w_point": rng.normal(size=CHANNELS),
            "b_point": np.full(CHANNELS, 5.0),
        }
        initializers = [
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in parameters.items()
        ]
        clip = {"signed": 0, "input_scale": 1.0, "alpha_min": 1e-4, "alpha_max": 35.0}
        node = helper.make_node(
            op, ["x", *parameters], ["y"], domain=DOMAIN, num_outputs=1,
            **window, **clip, **PLUGIN_ATTRIBUTES,
        )  # fmt: skip
    else:
        node = helper.make_node(op, ["x"], ["y"], **window)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "pooling",
        [value("x", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [value("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.functions.extend(function_bodies().values())
    return bytes(model.SerializeToString())


def _session(model: bytes, threads: int, library: str | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # The idle sessions' threads would spin beside the one being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def kernels(rounds: int) -> list[dict[str, Any]]:
    """Milliseconds and ratios for each window and thread count.

    Raises:
        RuntimeError: without the native library there is nothing to measure.
    """
    library = custom_ops_library()
    if library is None:
        raise RuntimeError("the native library is not built; install a C++ compiler")
    x = {"x": np.random.default_rng(1).random((1, CHANNELS, SIZE, SIZE), np.float32)}
    rows = []
    for threads in (1, 2):
        for name, window in WINDOWS.items():
            unit = _model("PPoolUnit", *window)
            sessions = {
                "fused unit": _session(unit, threads, library),
                "MaxPool": _session(_model("MaxPool", *window), threads, None),
                "function body": _session(unit, threads, None),
            }
            timings = interleaved(
                {key: lambda s=s: s.run(None, x) for key, s in sessions.items()},  # type: ignore[misc]
                rounds=rounds,
            )
            fused = timings["fused unit"].median
            rows.append(
                {
                    "input": f"float32 [1, {CHANNELS}, {SIZE}, {SIZE}]",
                    "window": name,
                    "threads": threads,
                    "milliseconds": {key: asdict(timing) for key, timing in timings.items()},
                    "fused / MaxPool": round(fused / timings["MaxPool"].median, 2),
                    "function body / fused": round(timings["function body"].median / fused, 1),
                }
            )
    return rows
