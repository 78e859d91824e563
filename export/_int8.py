"""``quantised``: int8 convolutions, arranged so that ONNX Runtime's CPU kernels gain by them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper

from ppool.export._assemble import settings_of

__all__ = ["quantised"]

# Relu and Add lie between convolutions, so that bytes need not become floats and back. Resize is
# not here: between bytes ONNX Runtime 1.31 takes four times as long as between floats.
OPERATORS = ["Conv", "Relu", "Add"]
# A convolution of fewer channels copies its windows a few bytes at a time: at 3 channels and
# 512 x 512 pixels it takes 6.9 ms in int8 and 2.9 in float32, at 16 channels half of float32's.
FEWEST_CHANNELS = 8


def quantised(source: Path, images: Iterable[Mapping[str, NDArray[Any]]]) -> bytes:
    """Content of a file like ``source`` with static int8 quantisation of its convolutions.

    Activations are unsigned bytes with one scale a tensor, weights signed bytes with one a channel,
    as the VNNI instructions multiply them. Pooling and labelling stay in float32.

    Args:
        source: A file of ``ppool export``.
        images: What to feed it to see the ranges of its activations.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            return next(self._left, None)

    model = onnx.load(source)
    _name_nodes(model.graph)
    _label_before_shuffling(model.graph)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=_kept(model.graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(target)
    _read_bytes_inside_branches(model.graph)
    content: bytes = model.SerializeToString()
    return content


def _name_nodes(graph: GraphProto) -> None:
    """Give every node a name of its own: ONNX needs none, but by names some stay as they are."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}/{index}"
        taken.add(node.name)


def _kept(graph: GraphProto) -> list[str]:
    """Names of the nodes that stay in float32.

    They are the convolutions that are faster so, of the image as a rule, and what no other
    convolution follows: behind the network shares of a ten-thousandth are told from nought.
    """
    channels = {tensor.name: tensor.dims[1] for tensor in graph.initializer if len(tensor.dims) > 1}
    kept = []
    read: set[str] = set()
    for node in reversed(graph.node):
        wide = node.op_type == "Conv" and (
            channels.get(node.input[1], FEWEST_CHANNELS) >= FEWEST_CHANNELS
            or settings_of(node).get("group", 1) > 1
        )
        followed = not read.isdisjoint(node.output)
        if wide or followed:
            read.update(node.input)
        if not wide and (node.op_type == "Conv" or not followed):
            kept.append(node.name)
    return kept


# Labels of [N, classes * pixels, h, w], whose channels are [class, row in block, column in block]:
# the pixels of a block become planes one below the other, and their labels channels again.
_SHUFFLED_LABELS = """
labels (float[n, c, h, w] spread, int64[2] size) => (uint8[n, height, width] mask)
{{
    taller = Constant <value_ints = [{side}, 1]> ()
    narrower = Constant <value_ints = [1, {side}]> ()
    planes_shape = Constant <value_ints = [0, {classes}, -1, 0]> ()
    blocks_shape = Constant <value_ints = [0, {pixels}, -1, 0]> ()
    channel_axis = Constant <value_ints = [1]> ()
    tall = Mul (size, taller)
    planes_size = Div (tall, narrower)
    planes = Reshape (spread, planes_shape)
    best = ResizeArgMax (planes, planes_size)
    column = Unsqueeze (best, channel_axis)
    blocks = Reshape (column, blocks_shape)
    shuffled = DepthToSpace <blocksize = {side}> (blocks)
    mask = Squeeze (shuffled, channel_axis)
}}
"""


def _label_before_shuffling(graph: GraphProto) -> None:
    """Shuffle labels instead of logits where a pixel shuffle is all that follows the network.

    Labels are the same, and there are as many times fewer of them as there are classes. For CPUs
    only: TensorRT shuffles no bytes.
    """
    label = next((node for node in graph.node if node.op_type == "ResizeArgMax"), None)
    if label is None:
        return
    logits, size = label.input
    shuffle = next((node for node in graph.node if logits in node.output), None)
    if shuffle is None or shuffle.op_type != "DepthToSpace":
        return
    settings = settings_of(shuffle)
    sizes, wanted = _sizes(graph, logits), _sizes(graph, label.output[0])
    resized = not sizes or not wanted or sizes[2:] != wanted[1:]
    read_elsewhere = any(logits in node.input for node in graph.node if node is not label)
    if settings.get("mode") != b"CRD" or resized or read_elsewhere:
        return
    side = settings["blocksize"]
    parsed = onnx.parser.parse_graph(
        _SHUFFLED_LABELS.format(side=side, pixels=side**2, classes=sizes[1])
    )
    named = {"spread": shuffle.input[0], "size": size, "mask": label.output[0]}
    for node in parsed.node:
        for names in (node.input, node.output):
            names[:] = [named.get(name, f"{label.name}/{name}") for name in names]
        node.name = node.output[0]
        if node.op_type == "ResizeArgMax":
            node.domain = label.domain
            node.attribute.extend(label.attribute)
    for branch in _branches(graph.node):
        if any(logits in node.input for node in branch.node):
            branch.node.insert(0, shuffle)
    nodes = list(graph.node)
    place = nodes.index(label)
    nodes[place : place + 1] = parsed.node
    nodes.remove(shuffle)
    del graph.node[:]
    graph.node.extend(nodes)


def _sizes(graph: GraphProto, name: str) -> list[int | str]:
    """The sizes of a tensor, or their names where they are free; empty unless all are known."""
    for entry in (*graph.value_info, *graph.output):
        if entry.name == name:
            shape = entry.type.tensor_type.shape.dim
            sizes = [size.dim_param or size.dim_value for size in shape]
            return sizes if all(sizes) else []
    return []


def _branches(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    """The branches of every If."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g


def _read_bytes_inside_branches(graph: GraphProto) -> None:
    """Let branches read quantised tensors as bytes, and make floats of them inside.

    A branch that reads the float result of a convolution keeps ONNX Runtime from fusing it into an
    int8 one, whether the branch is taken or not.
    """
    quantise = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    for branch in _branches(graph.node):
        read: dict[str, str] = {}
        for node in branch.node:
            for index, name in enumerate(node.input):
                if name in quantise:
                    node.input[index] = read.setdefault(name, f"{branch.name}/{name}")
        for name, floats in read.items():
            source = [quantise[name].output[0], *quantise[name].input[1:]]
            branch.node.insert(
                0, helper.make_node("DequantizeLinear", source, [floats], name=floats)
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice to run a pre-processing that does not know our operators, and warnings."""
    logging.disable(logging.WARNING)
    # That a switch is no constant is its point; the sessions inside take no options of ours.
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        onnxruntime.set_default_logger_severity(2)  # its own default
