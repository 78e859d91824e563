"""A pixel shuffle behind the convolutions that look at one pixel each, or left to the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ppool.export._assemble import reads, settings_of
from ppool.onnx_ops import RESIZE_OPERATORS

__all__ = ["label_blocks", "shuffle_last"]

_SIDE = 2
_PIXELS = _SIDE**2
_CHANNELS, _ROWS, _COLUMNS = 1, 2, 3
_END = np.iinfo(np.int64).max


def shuffle_last(graph: GraphProto) -> None:
    """Work on blocks of 2 x 2 pixels at once up to the last convolution, and shuffle only then.

    ONNX Runtime shuffles floats on one thread and leaves its blocked layout for it. Where sums,
    ReLUs and convolutions of single pixels follow, the same numbers can be had before: with the
    weights once for each pixel of a block. What is left to shuffle are as few channels as the last
    convolution has. Weights keep their names, and those of the first pixel are every fourth. Who
    only looks at every second row and column meanwhile is given the first pixels of blocks.

    Args:
        graph: Of convolutions with weights among its initializers; changed in place.
    """
    for name in [node.output[0] for node in graph.node if _is_shuffle(node)]:
        view = _View(graph)
        path = view.path(name)
        if steps := view.narrowest(path):
            _move(view, view.makers[name], path[:steps])


def label_blocks(graph: GraphProto, logits: Sequence[NodeProto]) -> list[NodeProto]:
    """Leave the shuffle to the operator that makes labels, if it is all that is before it.

    That reads logits of blocks as fast as those of pixels.

    Args:
        graph: Changed in place.
        logits: Nodes outside of it that make ``logits``.

    Returns:
        The same, and before them the shuffle if it is theirs alone now.
    """
    view = _View(graph)
    (label,) = (node for node in graph.node if node.op_type in RESIZE_OPERATORS)
    pixels = label.input[0]
    shuffle = view.makers.get(pixels)
    if shuffle is None or not _is_shuffle(shuffle) or view.only_reader(pixels) is None:
        return list(logits)
    spread = shuffle.input[0]
    shape = view.sizes.get(spread)
    if not shape:
        return list(logits)
    ahead = [int(shape[_CHANNELS]) // _PIXELS, _SIDE, _SIDE]
    names = [f"labels/{name}" for name in ("ahead", "cells", "sizes", "blocks")]
    known, cells, sizes, blocks = names
    graph.initializer.append(numpy_helper.from_array(np.array([0, *ahead], np.int64), known))
    graph.value_info.append(_float(blocks, [shape[0], *ahead, *shape[_ROWS:]]))
    nodes = [
        helper.make_node("Shape", [spread], [cells], cells, start=_ROWS),
        helper.make_node("Concat", [known, cells], [sizes], sizes, axis=0),
        helper.make_node("Reshape", [spread, sizes], [blocks], blocks),
    ]
    label.input[0] = blocks
    kept = [node for node in graph.node if node is not shuffle]
    place = kept.index(label)
    own = NodeProto()
    own.CopyFrom(shuffle)
    del graph.node[:]
    graph.node.extend([*kept[:place], *nodes, *kept[place:]])
    return [own, *logits]


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
        self.sizes = {
            entry.name: [
                size.dim_param or size.dim_value for size in entry.type.tensor_type.shape.dim
            ]
            for entry in (*graph.value_info, *graph.output)
        }

    def path(self, name: str) -> list[_Step]:
        """What is done with ``name`` pixel by pixel, as long as nobody else more than looks."""
        steps: list[_Step] = []
        while node := self.only_reader(name, but=[rows for rows, _ in self.looks(name)]):
            if node.op_type == "Add":
                (other,) = (entry for entry in node.input if entry != name)
                beside = self.makers.get(other)
                if not beside or not self._is_pointwise(beside) or not self.only_reader(other):
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

    def narrowest(self, path: Sequence[_Step]) -> int:
        """How many steps it is to the last with the fewest channels; 0 if all have as many."""
        dims = [self.constants[s.node.input[1]].dims for s in path if s.node.op_type == "Conv"]
        if not dims:
            return 0
        counts = [dims[0][1]]
        for step in path:
            wide = step.node.op_type == "Conv"
            counts.append(self.constants[step.node.input[1]].dims[0] if wide else counts[-1])
        least = min(counts)
        return 0 if least == counts[0] else len(path) - counts[::-1].index(least)

    def looks(self, name: str) -> list[tuple[NodeProto, NodeProto]]:
        """Who takes every second row, from the first on, and of these only every second column."""
        found = []
        for rows in self._readers.get(name, []):
            columns = self.only_reader(rows.output[0]) if self._halves(rows, _ROWS) else None
            if columns is not None and self._halves(columns, _COLUMNS):
                found.append((rows, columns))
        return found

    def _halves(self, node: NodeProto, axis: int) -> bool:
        if node.op_type != "Slice" or not all(name in self.constants for name in node.input[1:]):
            return False
        arguments = [numpy_helper.to_array(self.constants[name]) for name in node.input[1:]]
        wanted = [[0], [_END], [axis], [_SIDE]]
        return [argument.tolist() for argument in arguments] == wanted

    def only_reader(self, name: str, but: Sequence[NodeProto] = ()) -> NodeProto | None:
        """Of a tensor that is read once, and not by a branch, which is not to be changed."""
        readers = [node for node in self._readers.get(name, []) if node not in but]
        if len(readers) != 1 or name in self._answers:
            return None
        return readers[0] if list(readers[0].input).count(name) == 1 else None

    def _are_alike(self, *names: str) -> bool:
        """Whether they are known to have the same sizes, so that no summand is spread out."""
        first, second = (self.sizes.get(name) for name in names)
        return bool(first) and first == second

    def _is_pointwise(self, node: NodeProto) -> bool:
        """Whether it is a 1 x 1 convolution whose weights are nobody else's."""
        weights = [name for name in node.input[1:] if name]
        settings = settings_of(node)
        return (
            node.op_type == "Conv"
            and all(name in self.constants and self.only_reader(name) for name in weights)
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
    graph, last, spread = view.graph, path[-1].node, shuffle.input[0]
    between = [shuffle.output[0], *(step.node.output[0] for step in path[:-1])]
    looks = [(name, pair) for name in between for pair in view.looks(name)]
    wider = [node for step in path for node in (step.node, step.beside) if node is not None]
    for step in path:
        if step.beside is not None:
            _gather(view, step.beside)
        if step.node.op_type == "Conv":
            _repeat(view, step.node)
    first, pixels = path[0].node, last.output[0]
    first.input[list(first.input).index(shuffle.output[0])] = spread
    _widen_sizes(view, spread, wider, last)
    last.output[0] = shuffle.input[0] = f"{pixels}/blocks"
    shuffle.output[0] = pixels
    nodes = [node for node in graph.node if node is not shuffle]
    nodes.insert(nodes.index(last) + 1, shuffle)
    for name, (rows, columns) in looks:
        _look_at_blocks(graph, columns, spread if name == between[0] else name)
        nodes = [node for node in nodes if node is not rows]
    del graph.node[:]
    graph.node.extend(nodes)


def _widen_sizes(view: _View, spread: str, wider: Sequence[NodeProto], last: NodeProto) -> None:
    """Note the sizes of blocks: where they are alike ONNX Runtime adds within a convolution."""
    sizes = view.sizes.get(spread, [])
    values = {entry.name: entry for entry in view.graph.value_info}
    for node in wider:
        name = node.output[0]
        known = view.sizes.get(name)
        for old in (*node.input[1:], *(() if node is last else (name,))):
            values.pop(old, None)
        if known and sizes:
            blocks = f"{name}/blocks" if node is last else name
            shape = [sizes[0], int(known[_CHANNELS]) * _PIXELS, *sizes[_ROWS:]]
            values[blocks] = _float(blocks, shape)
    entries = list(values.values())
    del view.graph.value_info[:]
    view.graph.value_info.extend(entries)


def _float(name: str, shape: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _look_at_blocks(graph: GraphProto, columns: NodeProto, blocks: str) -> None:
    """Make of who takes every second column who takes the first pixel of each block."""
    for index, value in enumerate((0, _END, _CHANNELS, _PIXELS), 1):
        name = f"{columns.output[0]}/{index}"
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        columns.input[index] = name
    columns.input[0] = blocks


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
