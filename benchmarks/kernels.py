"""The native operators in ONNX Runtime against its own, on one tensor, by size, window, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from benchmarks.measure import contest
from ppool import custom_ops_library
from ppool.onnx_ops import DOMAIN, ONNX_OPSET, OPSET, PLUGIN_ATTRIBUTES, function_bodies
from ppool.window import Window

__all__ = ["kernels"]

WINDOWS = {"2x2/2": Window.of(2), "3x3/2": Window.of(3, 2, 1), "3x3/1": Window.of(3, 1, 1)}
STANDARD = (1, 64, 512, 512)
SHAPES = ((1, 3, 33, 47), (1, 64, 128, 128), STANDARD, (8, 256, 256, 256))
LOGITS, LABELS = (1, 150, 32, 32), (512, 512)


def kernels(rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios of pooling and of resizing with argmax.

    Raises:
        RuntimeError: without the native library there is nothing to measure.
    """
    if custom_ops_library() is None:
        raise RuntimeError("the native library is not built; install a C++ compiler")
    bandwidth = {threads: _copy_bandwidth(threads) for threads in (1, 2)}
    return {
        "copy_gigabytes_per_second": {str(n): round(value, 1) for n, value in bandwidth.items()},
        "pooling": [
            _pooling(shape, name, threads, rounds, bandwidth[threads])
            for shape in SHAPES
            for name in WINDOWS
            for threads in (1, 2)
        ],
        "resize_argmax": [_resize_argmax(threads, rounds) for threads in (1, 2)],
    }


def _pooling(
    shape: tuple[int, ...], name: str, threads: int, rounds: int, bandwidth: float
) -> dict[str, Any]:
    window = WINDOWS[name]
    unit = _unit_model(shape, window)
    library = custom_ops_library()
    sessions = {
        "unit": _session(unit, threads, library),
        "MaxPool": _session(_max_model(shape, window), threads, None),
    }
    ratios = [("unit", "MaxPool")]
    # The portable body takes seconds on the largest input, and what it shows is shown by one size.
    if shape == STANDARD:
        sessions["function body"] = _session(unit, threads, None)
        ratios.append(("function body", "unit"))
    feeds = {"x": np.random.default_rng(1).random(shape, np.float32)}
    runs = {key: partial(session.run, None, feeds) for key, session in sessions.items()}
    result = contest(runs, ratios, rounds=rounds, warmup=2)
    moved = 4 * (np.prod(shape) + np.prod((*shape[:2], *window.output_size(*shape[2:]))))
    rate = float(moved) / result["milliseconds"]["unit"]["median"] / 1e6
    return {
        "input": list(shape),
        "window": name,
        "threads": threads,
        **result,
        "share_of_copy_bandwidth": round(rate / bandwidth, 2),
    }


def _resize_argmax(threads: int, rounds: int) -> dict[str, Any]:
    sessions = {
        "ResizeArgMax": _session(_fused_resize_model(), threads, custom_ops_library()),
        "Resize, ArgMax, Cast": _session(_plain_resize_model(), threads, None),
    }
    feeds = {"logits": np.random.default_rng(2).normal(size=LOGITS).astype(np.float32)}
    runs = {key: partial(session.run, None, feeds) for key, session in sessions.items()}
    ratios = [("Resize, ArgMax, Cast", "ResizeArgMax")]
    result = contest(runs, ratios, rounds=rounds, warmup=2)
    return {"logits": list(LOGITS), "labels": list(LABELS), "threads": threads, **result}


def _copy_bandwidth(threads: int) -> float:
    """Gigabytes a second read and written by PyTorch's copy of 256 MB."""
    source = torch.zeros(64 * 2**20)
    target = torch.empty_like(source)
    with _torch_threads(threads):
        milliseconds = contest({"copy": lambda: target.copy_(source)}, [], rounds=11)
    return 2 * source.nbytes / float(milliseconds["milliseconds"]["copy"]["median"]) / 1e6


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


def _session(model: bytes, threads: int, library: str | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # The idle sessions' threads would spin beside the one being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if library:
        options.register_custom_ops_library(library)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(
    nodes: list[onnx.NodeProto],
    source: tuple[str, tuple[int, ...]],
    target: tuple[str, int],
    constants: dict[str, np.ndarray[Any, Any]] | None = None,
) -> bytes:
    """A graph from one float32 input to one output of any shape."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [value(source[0], TensorProto.FLOAT, source[1])],
        [value(target[0], target[1], None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.functions.extend(function_bodies().values())
    return bytes(model.SerializeToString())


def _window_attributes(window: Window) -> dict[str, Any]:
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": window.padding * 2,
        "dilations": window.dilation,
        "ceil_mode": 0,
    }


def _unit_model(shape: tuple[int, ...], window: Window) -> bytes:
    rng, channels = np.random.default_rng(0), shape[1]
    parameters = {
        "w_region": rng.normal(size=(channels, 1, *window.kernel)),
        "prelu_slope": np.full(channels, 0.25),
        "w_point": rng.normal(size=channels),
        "b_point": np.full(channels, 5.0),
    }
    clip: dict[str, Any] = {"signed": 0, "input_scale": 1.0, "alpha_min": 1e-4, "alpha_max": 35.0}
    node = helper.make_node(
        "PPoolUnit", ["x", *parameters], ["y"], domain=DOMAIN, num_outputs=1,
        **_window_attributes(window), **clip, **PLUGIN_ATTRIBUTES,
    )  # fmt: skip
    constants = {name: array.astype(np.float32) for name, array in parameters.items()}
    return _model([node], ("x", shape), ("y", TensorProto.FLOAT), constants)


def _max_model(shape: tuple[int, ...], window: Window) -> bytes:
    node = helper.make_node("MaxPool", ["x"], ["y"], **_window_attributes(window))
    return _model([node], ("x", shape), ("y", TensorProto.FLOAT))


def _fused_resize_model() -> bytes:
    node = helper.make_node(
        "ResizeArgMax", ["logits", "size"], ["labels"], domain=DOMAIN, **PLUGIN_ATTRIBUTES
    )
    constants = {"size": np.array(LABELS, np.int64)}
    return _model([node], ("logits", LOGITS), ("labels", TensorProto.UINT8), constants)


def _plain_resize_model() -> bytes:
    nodes = [
        helper.make_node("Resize", ["logits", "", "", "sizes"], ["resized"], mode="linear"),
        helper.make_node("ArgMax", ["resized"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
    ]
    constants = {"sizes": np.array([*LOGITS[:2], *LABELS], np.int64)}
    return _model(nodes, ("logits", LOGITS), ("labels", TensorProto.UINT8), constants)
