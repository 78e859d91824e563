"""From what a network of others answers to masks: in NumPy, to judge by, and as nodes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from ppool.metadata import HeadKind, ScoreKind, Scores, label_type
from ppool.onnx_ops import DOMAIN, PLUGIN_ATTRIBUTES, RESIZE_ATTRIBUTES, resize_argmax_for
from ppool.reference import resize_argmax_reference

__all__ = ["Head", "HeadNodes", "canonical", "recognise", "spatial_layout"]

# Of the output, by rank, likeliest first: N photos, C channels, H rows, W columns.
LAYOUTS = {4: ("NCHW", "NHWC"), 3: ("NHW", "CHW", "HWC"), 2: ("HW",)}
# An axis of length 1 that is none of these.
SPARE = "1"
# Probabilities are kept this far from 0 and 1 where their logits are asked for.
SMALLEST = 1e-6
# Of grey in whole numbers, and how many of these no network has as labels in a few photos; no mean
# of whole numbers is the half, which would be a tie.
WHITE, HALF, LEVELS = 255, 127.499, 128
# Pixels that one value of an output may stand for; a classifier's map is coarser.
COARSEST = 64
# A network that gives more values than pixels paints.
FINEST = 0.9

Array = NDArray[Any]


@dataclass(frozen=True)
class Head:
    """How an output becomes a mask.

    Attributes:
        kind: ``argmax`` of the channels; ``threshold`` of the only one; ``multilabel``, the largest
            of those above it, else background; ``labels``, which are there already.
        layout: Axes of the output.
        channels: Of the output.
        unit: Of the output; ``values`` are neither logits nor probabilities.
        normalised: Whether those of all channels sum to 1.
        threshold: Above which ``threshold`` and ``multilabel`` see something.
    """

    kind: HeadKind
    layout: str
    channels: int
    unit: Literal["logits", "probabilities", "values"] = "logits"
    normalised: bool = False
    threshold: float = 0.0

    @property
    def background(self) -> bool:
        """Whether the mask has a class that no channel stands for."""
        return self.kind in {"threshold", "multilabel"}

    @property
    def scores(self) -> Scores | None:
        """What :meth:`HeadNodes.logits` makes of the output."""
        if self.kind == "labels":
            return None
        if not self.background:
            of_probabilities: ScoreKind = "probabilities"
            if self.normalised:
                of_probabilities = "log-probabilities"
            return Scores(of_probabilities if self.unit == "probabilities" else "logits")
        kinds: dict[str, ScoreKind] = {"logits": "logits", "probabilities": "log-odds"}
        return Scores(kinds.get(self.unit, "unknown"), self.threshold)

    def planes(self, output: Array) -> Array:
        """What an argmax makes the mask of, [1, P, h, w]; of labels, the labels."""
        x = canonical(output, self.layout)
        if not self.background:
            return x
        return np.concatenate((np.full_like(x[:, :1], self.threshold), x), axis=1)

    def mask(self, output: Array, size: tuple[int, int], classes: int) -> NDArray[Any]:
        """The mask, [1, *size] of the type for so many classes, of one photo's output."""
        planes = self.planes(output)
        if self.kind != "labels":
            return resize_argmax_reference(planes, size)
        for axis, wanted in zip((2, 3), size, strict=True):
            nearest = (2 * np.arange(wanted) + 1) * planes.shape[axis] // (2 * wanted)
            planes = planes.take(nearest, axis)
        return np.where((planes >= 0) & (planes < classes), planes, 0)[:, 0].astype(
            label_type(classes)
        )

    def __str__(self) -> str:
        if self.kind == "labels":
            return "labels as the network gives them"
        if self.kind == "argmax":
            return f"the largest of {self.channels} {self.unit}"
        largest = "the largest of those" if self.kind == "multilabel" else self.unit
        return f"{largest} above {self.threshold:g}, else background"


def canonical(output: Array, layout: str) -> Array:
    """An output as [N, C, h, w]."""
    output = output.squeeze(tuple(_spare(layout)))
    layout = layout.replace(SPARE, "")
    order = [layout.index(axis) for axis in "NCHW" if axis in layout]
    missing = tuple(index for index, axis in enumerate("NCHW") if axis not in layout)
    return np.expand_dims(output.transpose(order), missing)


def _spare(layout: str) -> list[int]:
    return [index for index, axis in enumerate(layout) if axis == SPARE]


def _layouts(shape: Sequence[int]) -> Iterator[str]:
    """Those that so many axes can have; of more than four, with some of length 1 left out."""
    yield from LAYOUTS.get(len(shape), ())
    ones = [index for index, size in enumerate(shape) if size == 1 and index]
    for left_out in itertools.combinations(ones, max(len(shape) - 4, 0)):
        for layout in LAYOUTS[4] if left_out else ():
            axes = iter(layout)
            yield "".join(SPARE if i in left_out else next(axes) for i in range(len(shape)))


def spatial_layout(shape: Sequence[int], image: tuple[int, int]) -> str | None:
    """Which axes of one photo's output are those of the photo; ``None`` if there are none."""
    for layout in _layouts(shape):
        sizes = dict(zip(layout, shape, strict=True))
        if sizes.get("N", 1) != 1 or not min(shape) or sizes["H"] == sizes["W"] == 1:
            continue
        down, across = image[0] / sizes["H"], image[1] / sizes["W"]
        fine = min(down, across) >= FINEST and max(down, across) <= COARSEST
        if fine and 0.8 <= down / across <= 1.25:
            return layout
    return None


def recognise(
    outputs: Sequence[Array], layout: str, kind: HeadKind | None, threshold: float | None
) -> Head:
    """The head of a network that answered so to several photos.

    Args:
        outputs: Of one photo each.
        layout: Of them.
        kind: What the user says it is; ``None`` is found out.
        threshold: Likewise.

    Raises:
        ValueError: if what is asked does not fit, or it cannot be told what values mean.
    """
    values = [canonical(output, layout) for output in outputs]
    channels = values[0].shape[1]
    low, high = (float(pick([pick(v) for v in values])) for pick in (np.min, np.max))
    probability = low >= -SMALLEST and high <= 1 + SMALLEST and low < high
    sums = [v.sum(axis=1, dtype=np.float64) for v in values]
    normalised = (
        probability and channels > 1 and all(np.abs(total - 1).max() < 1e-2 for total in sums)
    )
    whole = all((v == np.round(v)).all() for v in values)
    grey = whole and channels == 1 and low >= 0 and high == WHITE and _are_levels(values)
    if kind is None:
        kind = "argmax" if channels > 1 else "labels" if whole and not grey else "threshold"
    if kind == "labels" and (channels > 1 or not whole):
        raise ValueError(f"--head labels: expected whole numbers in one channel, got {channels}")
    if (kind, channels > 1) in {("argmax", False), ("threshold", True)}:
        cure = "argmax or multilabel" if channels > 1 else "threshold"
        raise ValueError(f"--head {kind}: the network has {channels} channels; use {cure}")
    if threshold is None and grey and kind == "threshold":
        threshold = HALF
    if threshold is None:
        if kind in {"threshold", "multilabel"} and low >= 0 and not probability:
            raise ValueError(
                f"output: values from {low:.3g} to {high:.3g} are neither logits nor "
                "probabilities, but perhaps distances, as a network for depth gives them; if they "
                "are scores, give the --threshold above which a pixel belongs to the class"
            )
        threshold = 0.5 if probability else 0.0
    unit: Literal["logits", "probabilities", "values"] = "logits"
    if probability:
        unit = "probabilities"
    elif low >= 0 and kind in {"threshold", "multilabel"}:
        unit = "values"
    return Head(kind, layout, channels, unit, normalised, threshold)


def _are_levels(values: Sequence[Array]) -> bool:
    """Whether whole numbers up to 255 are levels of grey: black and white alone, or a great many.

    Labels are few, of which 255 may stand for none.
    """
    found = {*np.unique(np.concatenate([value.ravel() for value in values])).tolist()}
    return found == {0, WHITE} or len(found) > LEVELS


@dataclass(frozen=True)
class HeadNodes:
    """A head being written into a graph.

    Attributes:
        head: Which.
        graph: Takes the constants.
        opset: Of its standard operators.
        dtype: Of the network's output.
    """

    head: Head
    graph: GraphProto
    opset: int
    dtype: np.dtype[Any]

    def scores(self, output: str) -> tuple[list[NodeProto], str]:
        """From the output to what is resized, [N, P, h, w] of floats, and its name."""
        head, name = self.head, output
        nodes: list[NodeProto] = []
        layout = head.layout.replace(SPARE, "")
        if spare := _spare(head.layout):
            nodes.append(self._moved("Squeeze", name, "scores/squeezed", spare))
            name = "scores/squeezed"
        order = [layout.index(axis) for axis in "NCHW" if axis in layout]
        if order != sorted(order):
            nodes.append(helper.make_node("Transpose", [name], ["scores/planes"], perm=order))
            name = "scores/planes"
        missing = [index for index, axis in enumerate("NCHW") if axis not in layout]
        if missing:
            nodes.append(self._moved("Unsqueeze", name, "scores/axes", missing))
            name = "scores/axes"
        half = self.dtype == np.float16 and head.kind == "argmax"
        if self.dtype != np.float32 and not half:
            nodes.append(helper.make_node("Cast", [name], ["scores/float"], to=TensorProto.FLOAT))
            name = "scores/float"
        if head.background:
            bounds = [self._constant(str(i), np.array([i], np.int64)) for i in (0, 1)]
            level = np.full((1, 1, 1, 1), head.threshold, np.float32)
            nodes += [
                helper.make_node("Slice", [name, *bounds, bounds[1]], ["scores/one"]),
                helper.make_node("Shape", ["scores/one"], ["scores/shape"]),
                helper.make_node(
                    "Expand", [self._constant("threshold", level), "scores/shape"], ["scores/else"]
                ),
                helper.make_node("Concat", ["scores/else", name], ["scores/both"], axis=1),
            ]
            name = "scores/both"
        return nodes, name

    def mask(self, scores: str, sizes: Sequence[str], classes: int) -> list[NodeProto]:
        """From scores to ``mask``, resized to each of ``sizes``, the last of which is its own."""
        make, size = helper.make_node, sizes[-1]
        if self.head.kind != "labels":
            twice = len(sizes) > 1
            operator = "ResizeTwiceArgMax" if twice else resize_argmax_for(classes)
            plugin = PLUGIN_ATTRIBUTES if twice else RESIZE_ATTRIBUTES
            attributes = {"name": "resize_argmax", "domain": DOMAIN, **plugin}
            return [make(operator, [scores, *sizes], ["mask"], **attributes)]
        label = TensorProto.UINT8 if label_type(classes) == "uint8" else TensorProto.UINT16
        zero, most = (self._constant(f"{v:g}f", np.array(v, np.float32)) for v in (0, classes))
        index = self._constant("first", np.array(0, np.int64))
        return [
            make("Shape", [scores], ["mask/coarse"]),
            *self._nearest("rows", scores, size, 0),
            *self._nearest("fine", "mask/rows", size, 1),
            make("Less", ["mask/fine", zero], ["mask/below"]),
            make("Not", ["mask/below"], ["mask/not_below"]),
            make("Less", ["mask/fine", most], ["mask/not_above"]),
            make("And", ["mask/not_below", "mask/not_above"], ["mask/known"]),
            # A label without a name, such as 255 for "do not care", is the first class.
            make("Where", ["mask/known", "mask/fine", zero], ["mask/labels"]),
            make("Cast", ["mask/labels"], ["mask/whole"], to=label),
            make("Gather", ["mask/whole", index], ["mask"], axis=1),
        ]

    def _nearest(self, result: str, labels: str, size: str, axis: int) -> Iterator[NodeProto]:
        """Rows or columns, each of which is the one nearest to its centre.

        In whole numbers: a Resize rounds where a centre lies between two.
        """
        made = f"mask/{result}"
        zero, one, two, place, of_size = (
            self._constant(f"whole{value}", np.array(value, np.int64))
            for value in (0, 1, 2, 2 + axis, axis)
        )
        make = helper.make_node
        had, wanted, steps, even, odd, centres, unit, nearest = (
            f"{made}/{name}"
            for name in ("had", "wanted", "steps", "even", "odd", "centres", "unit", "nearest")
        )
        yield make("Gather", ["mask/coarse", place], [had])
        yield make("Gather", [size, of_size], [wanted])
        yield make("Range", [zero, wanted, one], [steps])
        yield make("Mul", [steps, two], [even])
        yield make("Add", [even, one], [odd])
        yield make("Mul", [odd, had], [centres])
        yield make("Mul", [wanted, two], [unit])
        yield make("Div", [centres, unit], [nearest])
        yield make("Gather", [labels, nearest], [made], axis=2 + axis)

    def logits(self, scores: str, result: str) -> list[NodeProto]:
        """From scores to float32 logits, which :attr:`Head.scores` describes.

        Their softmax over classes is what the head believes, but where they are probabilities; of
        ``multilabel``, the sigmoid of each class's less the background's.
        """
        head = self.head
        nodes: list[NodeProto] = []

        def step(kind: str, *inputs: str, **settings: Any) -> str:
            nodes.append(helper.make_node(kind, [*inputs], [f"{result}/{len(nodes)}"], **settings))
            return str(nodes[-1].output[0])

        def number(value: float) -> str:
            return self._constant(f"{value:g}f", np.array(value, np.float32))

        name = step("Cast", scores, to=TensorProto.FLOAT)
        offset = head.threshold
        if head.unit == "probabilities" and (head.background or head.normalised):
            name = step("Clip", name, number(SMALLEST), number(1 - SMALLEST))
            log = step("Log", name)
            if head.background:
                other = step("Log", step("Sub", number(1), name))
                log = step("Sub", log, other)
                level = min(max(offset, SMALLEST), 1 - SMALLEST)
                offset = math.log(level / (1 - level))
            name = log
        if head.background and offset:
            step("Sub", name, number(offset))
        nodes[-1].output[0] = result
        return nodes

    def _constant(self, name: str, value: Array) -> str:
        full = f"scores/{name}"
        if full not in {tensor.name for tensor in self.graph.initializer}:
            self.graph.initializer.append(numpy_helper.from_array(value, full))
        return full

    def _moved(self, kind: str, name: str, result: str, axes: Sequence[int]) -> NodeProto:
        if self.opset < 13:
            return helper.make_node(kind, [name], [result], axes=axes)
        given = self._constant(kind.lower(), np.array(axes, np.int64))
        return helper.make_node(kind, [name, given], [result])
