"""The graph from ``image`` to ``mask`` around a network of others."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ppool.export._assemble import ancestors, reads, settings_of, size_asked
from ppool.export._head import HeadNodes
from ppool.export._judge import Judge
from ppool.metadata import label_type
from ppool.onnx_ops import DOMAIN, OPSET, register_schemas
from ppool.runtime import LOGITS

__all__ = ["places", "wrap"]

# Functions inside a model are new in this version of the file format.
FUNCTIONS_IR = 8
PREFIX = "network/"


def places(judge: Judge) -> tuple[str, ...]:
    """Where to take the scores, best first: before a last bilinear resize, or behind it.

    ``ResizeArgMax`` does the same resize without writing [N, K, H, W] to memory. Where the mask is
    to be larger than the image, two resizes are not one.
    """
    output = judge.output
    last = next((n for n in judge.network.model.graph.node if output in n.output), None)
    if last is None or last.op_type != "Resize" or judge.policy.size is not None:
        return (output,)
    settings = settings_of(last)
    bilinear = settings.get("mode") == b"linear" and not settings.get("antialias")
    where = settings.get("coordinate_transformation_mode", b"half_pixel")
    half_pixel = where in {b"half_pixel", b"pytorch_half_pixel"}
    if bilinear and half_pixel and judge.head.kind != "labels" and judge.head.layout == "NCHW":
        return (last.input[0], output)
    return (output,)


def wrap(
    judge: Judge, place: str, classes: int, *, free_batch: bool
) -> tuple[ModelProto, list[NodeProto]]:
    """The graph, and the nodes that would make ``logits``; of labels there are none."""
    register_schemas()
    wrapped = onnx.compose.add_prefix(judge.network.model, PREFIX)
    graph, intake = wrapped.graph, judge.intake
    height, width = judge.policy.size or ("height", "width")
    image = ["batch" if free_batch else 1, height, width, 3]
    # The shapes noted inside would hold the batch to 1; they are inferred again.
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, image))
    before = intake.nodes(graph, "image", PREFIX + intake.name)
    head = HeadNodes(judge.head, graph, judge.network.opset, judge.dtype)
    between, scores = head.scores(PREFIX + place)
    resized = judge.policy.size is not None
    sized = [*image[:1], "mask_height", "mask_width"] if resized else image[:3]
    label = TensorProto.UINT8 if label_type(classes) == "uint8" else TensorProto.UINT16
    graph.output.append(helper.make_tensor_value_info("mask", label, sized))
    after = [*_size(graph, optional=resized), *head.mask(scores, "size", classes)]
    nodes = [*before, *graph.node, *between, *after]
    # ONNX Runtime runs what nobody reads, too: the network's other outputs, a resize now fused.
    needed = ancestors(nodes, "mask")
    del graph.node[:]
    graph.node.extend(nodes[index] for index in sorted(needed))
    read = {name for node in graph.node for name in reads(node)}
    kept = [t for t in graph.initializer if t.name in read or not t.name.startswith(PREFIX)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    wrapped.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
    wrapped.ir_version = max(wrapped.ir_version, FUNCTIONS_IR)
    logits = [] if judge.head.kind == "labels" else head.logits(scores, LOGITS)
    return wrapped, logits


def _size(graph: GraphProto, *, optional: bool) -> list[NodeProto]:
    """``size``, height and width of the mask: the image's, or what ``MASK_SIZE`` says."""

    def constant(name: str, values: list[int]) -> str:
        tensor = numpy_helper.from_array(np.array(values, np.int64), f"size/{name}")
        graph.initializer.append(tensor)
        return str(tensor.name)

    first, last = constant("first", [1]), constant("last", [3])
    image = [
        helper.make_node("Shape", ["image"], ["size/image"]),
        helper.make_node("Slice", ["size/image", first, last], ["size/given"]),
    ]
    if not optional:
        image[-1].output[0] = "size"
        return image
    return [*image, *size_asked(graph, "size/given")]
