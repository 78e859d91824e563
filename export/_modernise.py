"""Networks of old ONNX opsets in the words of a newer one, meaning the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ppool.export._assemble import reads, settings_of

__all__ = ["OLDEST_OPSET", "TARGET_OPSET", "graphs_inside", "modernise", "sort_nodes"]

# Half-pixel resizing, which puts the mask on the photo's pixels, is new in this version.
TARGET_OPSET = 11
# What is older differs in more places than are known here.
OLDEST_OPSET = 7


def modernise(model: ModelProto) -> None:
    """Rewrite ``model``, of opset 7 to 10, in opset 11, in place.

    The converter that comes with ``onnx`` takes the asymmetric grid of ``Upsample`` and ``Resize``
    for a half-pixel one, and leaves the branches of an ``If`` as they are.

    Raises:
        ValueError: if a node has no counterpart.
    """
    types = _element_types(model)
    for graph in graphs_inside(model.graph):
        nodes = [part for node in graph.node for part in _rewritten(node, graph, types)]
        del graph.node[:]
        graph.node.extend(nodes)
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            entry.version = TARGET_OPSET
    # Initializers have been no inputs since this version of the file format.
    model.ir_version = max(model.ir_version, 4)


def graphs_inside(graph: GraphProto) -> Iterator[GraphProto]:
    """``graph``, and all that its nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_inside(inner)


def sort_nodes(graph: GraphProto) -> None:
    """Bring nodes into an order in which each reads what is there, in place, as ONNX demands.

    Raises:
        ValueError: if they read each other in a circle.
    """
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = {
        index: {makers[name] for name in reads(node) if name in makers}
        for index, node in enumerate(graph.node)
    }
    if all(max(needed, default=-1) < index for index, needed in before.items()):
        return
    try:
        nodes = [graph.node[index] for index in TopologicalSorter(before).static_order()]
    except CycleError as error:
        raise ValueError("network: some of its nodes depend on themselves") from error
    del graph.node[:]
    graph.node.extend(nodes)


def _element_types(model: ModelProto) -> dict[str, int]:
    """What each tensor holds, as far as it can be inferred."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - the types of the original must do
        graph = model.graph
    known = {entry.name: entry.data_type for entry in graph.initializer}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        known[entry.name] = entry.type.tensor_type.elem_type
    return known


def _rewritten(node: NodeProto, graph: GraphProto, types: dict[str, int]) -> Iterable[NodeProto]:
    """The node, or those that do the same in opset 11."""
    settings = settings_of(node)
    rule = _RULES.get(node.op_type) if not node.domain else None
    if rule is None:
        return [node]
    return rule(_Rewriting(node, graph, settings, types))


class _Rewriting:
    """One node on its way to opset 11."""

    def __init__(
        self, node: NodeProto, graph: GraphProto, settings: dict[str, Any], types: dict[str, int]
    ) -> None:
        self.node, self.graph, self.settings = node, graph, settings
        self.type = types.get(node.input[0], TensorProto.FLOAT) or TensorProto.FLOAT

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        """The name of a new constant."""
        full = f"{self.node.output[0]}/{name}"
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), full))
        return full

    def value(self, number: float) -> Any:
        """A scalar of the kind the node computes with."""
        return self.constant(
            f"value_{number:g}", number, helper.tensor_dtype_to_np_dtype(self.type)
        )

    def into(self, kind: str, inputs: Iterable[str], **settings: Any) -> list[NodeProto]:
        """The one node that replaces this one."""
        return [helper.make_node(kind, [*inputs], [*self.node.output], self.node.name, **settings)]


def _batch_normalization(old: _Rewriting) -> list[NodeProto]:
    if not old.settings.pop("spatial", 1):
        raise ValueError("BatchNormalization with spatial=0 is not known to newer opsets")
    return old.into("BatchNormalization", old.node.input, **old.settings)


def _resize(old: _Rewriting) -> list[NodeProto]:
    """Of ``Upsample``, too: output pixel i reads i / scale, rounded down to enlarge, else up."""
    inputs = list(old.node.input)
    if "scales" in old.settings:
        inputs.append(old.constant("scales", old.settings["scales"], np.float32))
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in old.graph.initializer}
    for node in old.graph.node:
        if node.op_type == "Constant" and node.output[0] == inputs[1]:
            known[inputs[1]] = numpy_helper.to_array(node.attribute[0].t)
    shrinks = inputs[1] in known and (known[inputs[1]] < 1).any()
    mode = old.settings.get("mode", b"nearest").decode()
    grid: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        grid["nearest_mode"] = "ceil" if shrinks else "floor"
    everything = old.constant("roi", [], np.float32)
    return old.into("Resize", [inputs[0], everything, inputs[1]], **grid)


def _slice(old: _Rewriting) -> list[NodeProto]:
    if "starts" not in old.settings:
        return [old.node]
    starts, ends = old.settings["starts"], old.settings["ends"]
    axes = old.settings.get("axes", range(len(starts)))
    bounds = {"starts": starts, "ends": ends, "axes": [*axes]}
    given = [old.constant(name, entry, np.int64) for name, entry in bounds.items()]
    return old.into("Slice", [old.node.input[0], *given])


def _top_k(old: _Rewriting) -> list[NodeProto]:
    if "k" not in old.settings:
        return [old.node]
    count = old.constant("k", [old.settings.pop("k")], np.int64)
    return old.into("TopK", [old.node.input[0], count], **old.settings)


def _clip(old: _Rewriting) -> list[NodeProto]:
    bounds = [
        old.value(old.settings[name]) if name in old.settings else "" for name in ("min", "max")
    ]
    return old.into("Clip", [old.node.input[0], *bounds])


def _pad(old: _Rewriting) -> list[NodeProto]:
    if "pads" not in old.settings:
        return [old.node]
    mode = old.settings.get("mode", b"constant").decode()
    inputs = [old.node.input[0], old.constant("pads", old.settings["pads"], np.int64)]
    if old.settings.get("value"):
        inputs.append(old.value(old.settings["value"]))
    return old.into("Pad", inputs, mode=mode)


def _scatter(old: _Rewriting) -> list[NodeProto]:
    return old.into("ScatterElements", old.node.input, **old.settings)


_RULES: dict[str, Callable[[_Rewriting], list[NodeProto]]] = {
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Pad": _pad,
    "Resize": _resize,
    "Scatter": _scatter,
    "Slice": _slice,
    "TopK": _top_k,
    "Upsample": _resize,
}
