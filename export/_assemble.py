"""From a traced graph to the file's content: bodies, switchable alpha maps, metadata, checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from ppool.metadata import METADATA_KEY, ModelMetadata, Stage
from ppool.onnx_ops import (
    DOMAIN,
    PLUGIN_ATTRIBUTES,
    RESIZE_ATTRIBUTES,
    RESIZE_OPERATORS,
    function_bodies,
)
from ppool.runtime import ALPHA_SWITCH, LOGITS, LOGITS_SWITCH, MASK_SIZE

# Axes of logits of blocks, [N, K, s, s, h, w].
BLOCKS_RANK = 6

__all__ = [
    "ancestors",
    "assemble",
    "cast_to_logits",
    "lint",
    "offer_mask_size",
    "on_pixel_grid",
    "reads",
    "settings_of",
    "size_asked",
]


def assemble(
    model: ModelProto, description: ModelMetadata, logits: Sequence[NodeProto] = ()
) -> ModelProto:
    """Complete ``model``, in place, so that it runs anywhere and explains itself.

    Args:
        model: The graph, from ``image`` to ``mask``.
        description: Travels in the file.
        logits: Nodes that make ``logits`` of what the graph has, for probabilities and for masks
            that are blended of tiles. None offer none.

    Raises:
        ValueError: if the result breaks the contract of :func:`lint`.
        onnx.checker.ValidationError: if it is not valid ONNX.
    """
    _forget_the_exporter(model.graph, logits)
    bodies = function_bodies(_opset(model), in_blocks=_labels_blocks(model.graph))
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            # The exporter names every output of the schema; a node must list those of its body.
            del node.output[len(bodies[node.op_type].output) :]
    _put_alpha_behind_switch(model.graph, description.stages)
    if logits:
        _offer_logits(model.graph, logits, len(description.classes))
    model.functions.extend(body for name, body in bodies.items() if name in used)
    model.producer_name, model.producer_version = "ppool", version("ppool")
    helper.set_model_props(model, {METADATA_KEY: description.to_json()})
    lint(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _labels_blocks(graph: GraphProto) -> bool:
    """Whether labels are made of logits of blocks, [N, K, s, s, h, w]."""
    labelled = {node.input[0] for node in graph.node if node.op_type in RESIZE_OPERATORS}
    shapes = [entry.type.tensor_type.shape for entry in graph.value_info if entry.name in labelled]
    return any(len(shape.dim) == BLOCKS_RANK for shape in shapes)


def _forget_the_exporter(graph: GraphProto, others: Sequence[NodeProto]) -> None:
    """Drop the exporter's notes: stack traces with file paths of the machine that exported."""
    for noted in (graph, *graph.node, *others, *graph.value_info, *graph.input, *graph.output):
        noted.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")


def _put_alpha_behind_switch(graph: GraphProto, stages: Sequence[Stage]) -> None:
    """Move the nodes that only one alpha map needs into an If, so that not asking costs nothing."""
    if not stages:
        return
    outputs = {entry.name: entry for entry in graph.output}
    needed = {name: ancestors(graph.node, name) for name in outputs}
    for stage in stages:
        others = set().union(*(nodes for name, nodes in needed.items() if name != stage.output))
        own = sorted(needed[stage.output] - others)
        _name_sizes(outputs[stage.output], stage.name)
        nodes = [graph.node[index] for index in own]
        switch = _switch(nodes, outputs[stage.output], ALPHA_SWITCH, stage.channels)
        # In place of the last of them: all their inputs are there by then, and freed after it.
        graph.node[own[-1]].CopyFrom(switch)
        for index in own[:-1]:
            graph.node[index].Clear()
    nodes = [node for node in graph.node if node.op_type]
    known = {name for node in nodes for name in node.output}
    values = [entry for entry in graph.value_info if entry.name in known]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(values)
    _add_switch(graph, ALPHA_SWITCH)


def cast_to_logits(graph: GraphProto) -> list[NodeProto]:
    """The node that makes ``logits`` of what a graph's labels are made of.

    Half-precision networks, too, give float32; of float32 it makes the copy an If needs.
    """
    (last,) = (node for node in graph.node if node.op_type in RESIZE_OPERATORS)
    return [helper.make_node("Cast", [last.input[0]], [LOGITS], to=TensorProto.FLOAT)]


def offer_mask_size(graph: GraphProto) -> None:
    """Let who runs the graph ask for masks of another size than the image's, made of its scores."""
    place, last = next(
        (index, node) for index, node in enumerate(graph.node) if node.op_type in RESIZE_OPERATORS
    )
    for index, node in enumerate(size_asked(graph, last.input[1])):
        graph.node.insert(place + index, node)
    last.input[1] = node.output[0]
    mask = next(entry for entry in graph.output if last.output[0] == entry.name)
    for dimension, name in zip(
        mask.type.tensor_type.shape.dim[1:], ("mask_height", "mask_width"), strict=True
    ):
        dimension.dim_param = name


def size_asked(graph: GraphProto, given: str) -> list[NodeProto]:
    """Nodes that make ``size`` of a new input ``MASK_SIZE``, or of ``given`` where none is fed."""
    graph.input.append(helper.make_tensor_value_info(MASK_SIZE, TensorProto.INT64, [2]))
    nothing = np.zeros(2, np.int64)
    for name in (MASK_SIZE, "size/none"):
        graph.initializer.append(numpy_helper.from_array(nothing, name))
    return [
        helper.make_node("Greater", [MASK_SIZE, "size/none"], ["size/asked"]),
        helper.make_node("Where", ["size/asked", MASK_SIZE, given], ["size"]),
    ]


def _offer_logits(graph: GraphProto, nodes: Sequence[NodeProto], classes: int) -> None:
    """Add the output ``logits``, behind a switch of its own, so that not asking costs nothing."""
    sizes = [f"{LOGITS}_{axis}" for axis in ("batch", "height", "width")]
    output = helper.make_tensor_value_info(
        LOGITS, TensorProto.FLOAT, [sizes[0], classes, sizes[1], sizes[2]]
    )
    graph.node.append(_switch(nodes, output, LOGITS_SWITCH, classes))
    graph.output.append(output)
    _add_switch(graph, LOGITS_SWITCH)


def on_pixel_grid(logits: Sequence[int], image: Sequence[int]) -> bool:
    """Whether each logit stands for a whole number of pixels; both are (height, width)."""
    return not any(side % cells for side, cells in zip(image, logits, strict=True))


def _add_switch(graph: GraphProto, name: str) -> None:
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.array(True), name))


def ancestors(nodes: Sequence[NodeProto], output: str) -> set[int]:
    """Indices of the nodes, in topological order, that ``output`` depends on."""
    wanted, found = {output}, set()
    for index, node in reversed([*enumerate(nodes)]):
        if wanted.intersection(node.output):
            wanted.update(reads(node))
            found.add(index)
    return found


def reads(node: NodeProto) -> Iterator[str]:
    """All a node reads, in the branches of an If or the body of a Loop, too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)


def settings_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name, as far as they are written; texts are bytes."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _name_sizes(output: ValueInfoProto, stage: str) -> None:
    """Short names in place of the exporter's formulas of the image's height and width."""
    sizes = output.type.tensor_type.shape.dim
    sizes[2].dim_param, sizes[3].dim_param = f"{stage}_height", f"{stage}_width"


def _switch(
    nodes: Sequence[NodeProto], output: ValueInfoProto, switch: str, channels: int
) -> NodeProto:
    """An If that gives ``output``, or [0, channels, 0, 0] where nobody asked for it."""
    computed = ValueInfoProto()
    computed.CopyFrom(output)
    computed.name = f"{output.name}/computed"
    nodes[-1].output[0] = computed.name
    nothing = np.zeros((0, channels, 0, 0), np.float32)
    empty = helper.make_tensor_value_info(
        f"{output.name}/empty", TensorProto.FLOAT, list(nothing.shape)
    )
    constant = helper.make_node(
        "Constant", [], [empty.name], value=numpy_helper.from_array(nothing)
    )
    return helper.make_node(
        "If",
        [switch],
        [output.name],
        name=output.name,
        then_branch=helper.make_graph(nodes, f"{output.name}/asked", [], [computed]),
        else_branch=helper.make_graph([constant], f"{output.name}/not_asked", [], [empty]),
    )


def lint(model: ModelProto) -> None:
    """Check what every runtime relies on beyond valid ONNX.

    Each node of ``ai.ppool`` has a body, lists exactly its inputs and outputs, none empty, and
    writes every attribute; the body imports the operators of the model's own version.

    Raises:
        ValueError: naming the node and what is wrong.
    """
    bodies = {body.name: body for body in model.functions if body.domain == DOMAIN}
    for name, function in bodies.items():
        if _opset(function) != _opset(model):
            raise ValueError(f"{name}: expected opset {_opset(model)}, got {_opset(function)}")
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        body = bodies.get(node.op_type)
        if body is None:
            raise ValueError(f"{node.name}: expected a body for {node.op_type}, got none")
        plugin = RESIZE_ATTRIBUTES if node.op_type in RESIZE_OPERATORS else PLUGIN_ATTRIBUTES
        written = {attribute.name for attribute in node.attribute}
        for expected, found in (
            (len(body.input), len([name for name in node.input if name])),
            (len(body.output), len([name for name in node.output if name])),
            ({*body.attribute, *plugin}, written),
        ):
            if expected != found:
                raise ValueError(f"{node.name}: expected {expected!r}, got {found!r}")


def _opset(holder: ModelProto | FunctionProto) -> int:
    opset: int = next(entry.version for entry in holder.opset_import if not entry.domain)
    return opset
