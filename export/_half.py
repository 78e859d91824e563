"""``halved``: a file in float16, but for what has to stay exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from ppool.export._assemble import ancestors
from ppool.export._modernise import graphs_inside, sort_nodes

__all__ = ["halved", "refuse_converted"]

QUANTISED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "ConvInteger",
    "MatMulInteger",
)
# Index of Resize's scales among its inputs.
SCALES = 2


def refuse_converted(model: ModelProto, precision: str) -> None:
    """Check that a file still is in float32.

    Raises:
        ValueError: if it is not.
    """
    kinds = {node.op_type for graph in graphs_inside(model.graph) for node in graph.node}
    found = [kind for kind in QUANTISED if kind in kinds]
    if found:
        raise ValueError(
            f"model: is quantised already ({', '.join(found)}); convert the float32 file instead"
        )
    halves = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16]
    if halves and precision == "fp16":
        raise ValueError("model: is in float16 already")
    if halves:
        raise ValueError("model: is in float16; quantise the float32 file instead")


def halved(model: ModelProto) -> ModelProto:
    """``model``, of float32, in float16, with the same inputs and outputs.

    ``Resize`` takes its scales as float32 only, and float16 would round them: they, and all that
    they are computed from, are kept from the converter.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    hidden = [_hide_scales(graph) for graph in graphs_inside(model.graph)]
    # Inferred shapes would help it, but inference would trip over our operators.
    converted: ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True
    )
    for entry in hidden:
        entry.restore()
    for graph in graphs_inside(converted.graph):
        sort_nodes(graph)
    return converted


@dataclass
class _Hidden:
    """Copies of what the scales of a graph are computed from, under names of their own."""

    graph: GraphProto
    nodes: list[NodeProto]
    constants: list[TensorProto]

    def restore(self) -> None:
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(self.constants)


def _hide_scales(graph: GraphProto) -> _Hidden:
    hidden = _Hidden(graph, [], [])
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        if node.op_type != "Resize" or len(node.input) <= SCALES or not node.input[SCALES]:
            continue
        scales = node.input[SCALES]
        sources = [graph.node[i] for i in sorted(ancestors(graph.node, scales))]
        kept = [*_down_from_shapes(sources)]
        renamed = {name: f"exact/{index}/{name}" for part in kept for name in part.output if name}
        for name in {scales, *(read for part in kept for read in part.input)} - renamed.keys():
            if name in constants:
                copy = TensorProto()
                copy.CopyFrom(constants[name])
                copy.name = renamed[name] = f"exact/{index}/{name}"
                hidden.constants.append(copy)
        for part in kept:
            copied = NodeProto()
            copied.CopyFrom(part)
            for names in (copied.input, copied.output):
                names[:] = [renamed.get(name, name) for name in names]
            copied.name = f"exact/{index}/{part.name or part.output[0]}"
            hidden.nodes.append(copied)
        node.input[SCALES] = renamed.get(scales, scales)
    return hidden


def _down_from_shapes(nodes: list[NodeProto]) -> Iterator[NodeProto]:
    """Those that are computed from constants and shapes, which have no precision."""
    exact: set[str] = set()
    for node in nodes:
        if node.op_type in {"Constant", "Shape", "Size"} or exact.intersection(node.input):
            yield node
            exact.update(node.output)
