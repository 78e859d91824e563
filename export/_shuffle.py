"""``shuffle_last``: a pixel shuffle behind the convolutions that look at one pixel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from ppool.export._assemble import reads, settings_of

__all__ = ["shuffle_last"]

_SIDE = 2
_PIXELS = _SIDE**2


def shuffle_last(graph: GraphProto) -> None:
    """Work on blocks of 2 x 2 pixels at once up to the last convolution, and shuffle only then.

    ONNX Runtime shuffles floats on one thread and leaves its blocked layout for it. Where sums,
    ReLUs and convolutions of single pixels follow, the same numbers can be had before: with the
    weights once for each pixel of a block. What is left to shuffle are as few channels as the last
    convolution has. Weights keep their names, and those of the first pixel are every fourth.

    Args:
        graph: Of convolutions with weights among its initializers; changed in place.
    """
    for name in [node.output[0] for node in graph.node if _is_shuffle(node)]:
        view = _View(graph)
        path = view.path(name)
        fewer = [index for index, step in enumerate(path) if view.narrows(step.node)]
        if fewer:
            _move(view, view.makers[name], path[: fewer[-1] + 1])


@dataclass(frozen=True)
class _Step:
    """A node that looks at single pixels, and the convolution that its other summand is of."""

    node: NodeProto
    beside: NodeProto | None = None


class _View:
    """Who makes and who reads what in a graph."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)
        self._answers = {entry.name for entry in graph.output}
        self._sizes = {
            entry.name: [
                size.dim_param or size.dim_value for size in entry.type.tensor_type.shape.dim
            ]
            for entry in (*graph.value_info, *graph.output)
        }

    def path(self, name: str) -> list[_Step]:
        """What is done with ``name`` pixel by pixel, as long as nobody else reads it."""
        steps: list[_Step] = []
        while node := self._only_reader(name):
            if node.op_type == "Add":
                (other,) = (entry for entry in node.input if entry != name)
                beside = self.makers.get(other)
                if not beside or not self._is_pointwise(beside) or not self._only_reader(other):
                    break
                if not self._are_alike(name, other):
                    break
                steps.append(_Step(node, beside))
            elif node.op_type == "Relu" or (self._is_pointwise(node) and node.input[0] == name):
                steps.append(_Step(node))
            else:
                break
            name = node.output[0]
        return steps

    def narrows(self, node: NodeProto) -> bool:
        """Whether it is a convolution to fewer channels."""
        if node.op_type != "Conv":
            return False
        outputs, inputs, *_ = self.constants[node.input[1]].dims
        return bool(outputs < inputs)

    def _only_reader(self, name: str) -> NodeProto | None:
        """Of a tensor that is read once, and not by a branch, which is not to be changed."""
        readers = self._readers.get(name, [])
        if len(readers) != 1 or name in self._answers:
            return None
        return readers[0] if list(readers[0].input).count(name) == 1 else None

    def _are_alike(self, *names: str) -> bool:
        """Whether they are known to have the same sizes, so that no summand is spread out."""
        first, second = (self._sizes.get(name) for name in names)
        return bool(first) and first == second

    def _is_pointwise(self, node: NodeProto) -> bool:
        """Whether it is a 1 x 1 convolution whose weights are nobody else's."""
        weights = [name for name in node.input[1:] if name]
        settings = settings_of(node)
        return (
            node.op_type == "Conv"
            and all(name in self.constants and self._only_reader(name) for name in weights)
            and list(self.constants[weights[0]].dims[2:]) == [1, 1]
            and settings.get("group", 1) == 1
            and set(settings.get("strides", [1])) == {1}
            and set(settings.get("pads", [0])) == {0}
        )


def _is_shuffle(node: NodeProto) -> bool:
    settings = settings_of(node) if node.op_type == "DepthToSpace" else {}
    return settings.get("mode") == b"CRD" and settings.get("blocksize") == _SIDE


def _move(view: _View, shuffle: NodeProto, path: Sequence[_Step]) -> None:
    """Put ``shuffle`` behind the last node of ``path``."""
    graph, last = view.graph, path[-1].node
    wider = [node for step in path for node in (step.node, step.beside) if node is not None]
    changed = {name for node in wider for name in (*node.output, *node.input[1:])}
    for step in path:
        if step.beside is not None:
            _gather(view, step.beside)
        if step.node.op_type == "Conv":
            _repeat(view, step.node)
    first = path[0].node
    first.input[list(first.input).index(shuffle.output[0])] = shuffle.input[0]
    pixels = last.output[0]
    last.output[0] = shuffle.input[0] = f"{pixels}/blocks"
    shuffle.output[0] = pixels
    nodes = [node for node in graph.node if node is not shuffle]
    nodes.insert(nodes.index(last) + 1, shuffle)
    values = [entry for entry in graph.value_info if entry.name not in changed - {pixels}]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(values)


def _gather(view: _View, node: NodeProto) -> None:
    """Give the four pixels of a block as channels: each sees its own, and zeros of the others."""
    weight = _weight(view, node)
    outputs, inputs = weight.shape
    blocks = np.zeros((outputs, _SIDE, _SIDE, inputs, _SIDE, _SIDE), weight.dtype)
    for row, column in np.ndindex(_SIDE, _SIDE):
        blocks[:, row, column, :, row, column] = weight
    _store(view, node, blocks.reshape(outputs * _PIXELS, inputs, _SIDE, _SIDE))
    for entry in [entry for entry in node.attribute if entry.name in ("strides", "kernel_shape")]:
        node.attribute.remove(entry)
    node.attribute.append(helper.make_attribute("strides", [_SIDE, _SIDE]))
    node.attribute.append(helper.make_attribute("kernel_shape", [_SIDE, _SIDE]))


def _repeat(view: _View, node: NodeProto) -> None:
    """Take and give the four pixels of a block as channels."""
    weight = _weight(view, node)
    outputs, inputs = weight.shape
    blocks = np.zeros((outputs, _PIXELS, inputs, _PIXELS), weight.dtype)
    for pixel in range(_PIXELS):
        blocks[:, pixel, :, pixel] = weight
    _store(view, node, blocks.reshape(outputs * _PIXELS, inputs * _PIXELS, 1, 1))


def _weight(view: _View, node: NodeProto) -> NDArray[np.generic]:
    return numpy_helper.to_array(view.constants[node.input[1]])[:, :, 0, 0]


def _store(view: _View, node: NodeProto, weight: NDArray[np.generic]) -> None:
    _, name, *biases = node.input
    view.constants[name].CopyFrom(numpy_helper.from_array(weight, name))
    for bias in biases:
        values = np.repeat(numpy_helper.to_array(view.constants[bias]), _PIXELS)
        view.constants[bias].CopyFrom(numpy_helper.from_array(values, bias))
