"""The graph from ``image`` to ``mask`` around a network of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ppool.export._assemble import ancestors, reads, settings_of, size_asked
from ppool.export._head import HeadNodes
from ppool.export._judge import Judge
from ppool.metadata import label_type
from ppool.onnx_ops import DOMAIN, OPSET, register_schemas
from ppool.runtime import LOGITS

__all__ = ["Place", "places", "wrap"]

# Functions inside a model are new in this version of the file format.
FUNCTIONS_IR = 8
PREFIX = "network/"
# The first opset whose Resize needs nothing but sizes.
RESIZE_BY_SIZES = 13


class Place(NamedTuple):
    """Where scores are taken: from ``output``, which may have to be resized to ``between``."""

    output: str
    between: tuple[int, int] | None = None


def places(judge: Judge) -> tuple[Place, ...]:
    """Where to take the scores, best first: before a last bilinear resize, or behind it.

    ``ResizeArgMax`` does the same resize without writing [N, K, H, W] to memory. Where the mask is
    to be larger than the image, two resizes are not one, and ``ResizeTwiceArgMax`` does both.
    """
    head, output = judge.head, Place(judge.output)
    last = next((n for n in judge.network.model.graph.node if judge.output in n.output), None)
    if last is None or last.op_type != "Resize":
        return (output,)
    settings = settings_of(last)
    bilinear = settings.get("mode") == b"linear" and not settings.get("antialias")
    where = settings.get("coordinate_transformation_mode", b"half_pixel")
    half_pixel = where in {b"half_pixel", b"pytorch_half_pixel"}
    if not (bilinear and half_pixel and head.kind != "labels" and head.layout == "NCHW"):
        return (output,)
    if judge.policy.size is None:
        return (Place(last.input[0]), output)
    in_bytes = label_type(head.channels + head.background) == "uint8"
    if not in_bytes or judge.network.opset < RESIZE_BY_SIZES:
        return (output,)
    height, width = judge.answers[0].shape[-2:]
    return (Place(last.input[0], (height, width)), output)


def wrap(
    judge: Judge, place: Place, classes: int, *, free_batch: bool
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
    made, scores = head.scores(PREFIX + place.output)
    resized = judge.policy.size is not None
    sized = [*image[:1], "mask_height", "mask_width"] if resized else image[:3]
    label = TensorProto.UINT8 if label_type(classes) == "uint8" else TensorProto.UINT16
    graph.output.append(helper.make_tensor_value_info("mask", label, sized))
    sizes, of_logits, wanted = ["size"], scores, ["mask"]
    resizes = []
    if place.between is not None:
        sizes = [_constant(graph, "between", place.between), *sizes]
        resizes = [_resize_of(scores, graph, PREFIX + judge.output)]
        of_logits, wanted = resizes[0].output[0], [*wanted, *filter(None, resizes[0].input[1:])]
    after = [*_size(graph, optional=resized), *head.mask(scores, sizes, classes)]
    nodes = [*before, *graph.node, *made, *after]
    # ONNX Runtime runs what nobody reads, too: the network's other outputs, a resize now fused.
    needed = set().union(*(ancestors(nodes, name) for name in wanted))
    del graph.node[:]
    graph.node.extend(nodes[index] for index in sorted(needed))
    read = {name for node in (*graph.node, *resizes) for name in reads(node)}
    kept = [t for t in graph.initializer if t.name in read or not t.name.startswith(PREFIX)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    wrapped.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
    wrapped.ir_version = max(wrapped.ir_version, FUNCTIONS_IR)
    if judge.head.kind == "labels":
        return wrapped, []
    return wrapped, [*resizes, *head.logits(of_logits, LOGITS)]


def _resize_of(scores: str, graph: GraphProto, output: str) -> NodeProto:
    """The node that makes ``output``, as one that resizes ``scores`` in the same way."""
    resize = NodeProto()
    resize.CopyFrom(next(node for node in graph.node if output in node.output))
    resize.input[0], resize.output[0] = scores, "scores/resized"
    return resize


def _size(graph: GraphProto, *, optional: bool) -> list[NodeProto]:
    """``size``, height and width of the mask: the image's, or what ``MASK_SIZE`` says."""
    first, last = _constant(graph, "first", [1]), _constant(graph, "last", [3])
    image = [
        helper.make_node("Shape", ["image"], ["size/image"]),
        helper.make_node("Slice", ["size/image", first, last], ["size/given"]),
    ]
    if not optional:
        image[-1].output[0] = "size"
        return image
    return [*image, *size_asked(graph, "size/given")]


def _constant(graph: GraphProto, name: str, values: Sequence[int]) -> str:
    tensor = numpy_helper.from_array(np.array(values, np.int64), f"size/{name}")
    graph.initializer.append(tensor)
    return str(tensor.name)
