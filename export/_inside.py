"""What a file of others tells of itself: what it does to photos first, and names of classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from ppool.export._assemble import settings_of
from ppool.export._head import Head
from ppool.export._network import Network
from ppool.feeding import PRESETS, Normalisation

__all__ = ["Arithmetic", "first_arithmetic", "names_inside"]

# These leave values as they are; the last two are there to turn the order of channels.
_PASSING = {"Cast", "Transpose", "Identity", "Unsqueeze", "Squeeze", "Clip", "Slice", "Gather"}
_TURNING = {"Slice", "Gather"}
_ARITHMETIC = {"Sub", "Add", "Mul", "Div"}
# What is 0 behind it is the middle of photos: between these it is of [0, 1], above of bytes.
_DARKEST, _WHITE = 0.02, 1.5
# Where nothing is subtracted, from what factor on values are no longer what they were.
_FACTOR = 16
_NAMES = {"names", "classes", "labels", "class_names", "categories", "id2label"}
_CAFFE = (103.939, 116.779, 123.68)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Arithmetic:
    """What a network does with its input before its first layer: times ``gain``, plus ``offset``.

    Attributes:
        operators: By name.
        gain: Of every channel, or the one of all.
        offset: Likewise.
    """

    operators: tuple[str, ...]
    gain: Values
    offset: Values

    @property
    def fed(self) -> Normalisation | None:
        """What photos are to be before it; ``None`` where the numbers do not tell."""
        found = replace(PRESETS["raw"], scale=self._white)
        if self._white is None:
            return None
        middle = -self.offset / self.gain / self._white * 255
        if middle.size == 3 and np.abs(middle - _CAFFE).max() < 2:
            return replace(found, channels="bgr")
        return found

    @property
    def _white(self) -> Any:
        if not self.offset.any():
            gain = np.abs(self.gain)
            return 255 if (gain <= 1 / _FACTOR).all() else 1 if (gain >= _FACTOR).all() else None
        middle = -self.offset / self.gain
        if (middle > _WHITE).all():
            return 255
        return 1 if (middle > _DARKEST).all() and (middle <= _WHITE).all() else None


def first_arithmetic(network: Network) -> Arithmetic | None:
    """What constants do to the input before anything else, if they do anything."""
    (given,) = network.inputs
    constants = dict(_constants(network.model))
    name, operators = given.name, list[str]()
    gain, offset, turned = np.ones(1), np.zeros(1), False
    for node in network.model.graph.node:
        if name not in node.input or node.op_type == "Shape":
            continue
        if node.op_type in _TURNING:
            gain, offset = gain[::-1], offset[::-1]
            turned = not turned
        factor, term = _step(node, name, constants)
        if factor is None or term is None:
            break
        gain, offset = gain * factor, offset * factor + term
        operators += [node.op_type] if node.op_type not in _PASSING else []
        name = node.output[0]
    if not operators or not np.isfinite(gain).all() or not gain.all():
        return None
    step = -1 if turned else 1  # in the order of the input
    gain, offset = (array[::step] for array in np.broadcast_arrays(gain, offset))
    return Arithmetic(tuple(operators), gain, offset)


def _constants(model: ModelProto) -> Iterator[tuple[str, Values]]:
    """Those of one number, or one a channel."""
    tensors = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        held = [entry.t for entry in node.attribute if entry.name == "value"]
        if node.op_type == "Constant" and held:
            tensors.append((node.output[0], held[0]))
        for entry in node.attribute:
            if node.op_type == "Constant" and entry.name == "value_float":
                yield node.output[0], np.array([entry.f])
    for name, tensor in tensors:
        if int(np.prod(tensor.dims)) in {1, 3}:
            yield name, numpy_helper.to_array(tensor).astype(np.float64).reshape(-1)


def _step(
    node: NodeProto, name: str, constants: dict[str, Values]
) -> tuple[Values | None, Values | None]:
    """What a node multiplies the value called ``name`` with, and adds; ``None`` if more."""
    nothing, one = np.zeros(1), np.ones(1)
    if node.op_type in _PASSING:
        return one, nothing
    if node.op_type == "BatchNormalization":
        held = [constants.get(entry) for entry in node.input[1:]]
        scale, bias, mean, variance = held if len(held) == 4 else [None] * 4
        if scale is None or bias is None or mean is None or variance is None:
            return None, None
        factor = scale / np.sqrt(variance + settings_of(node).get("epsilon", 1e-5))
        return factor, bias - mean * factor
    others = [constants.get(entry) for entry in node.input if entry != name]
    if node.op_type not in _ARITHMETIC or len(others) != 1 or others[0] is None:
        return None, None
    value: Values = others[0]
    first = node.input[0] == name
    with np.errstate(divide="ignore"):
        steps: dict[str, tuple[Values | None, Values | None]] = {
            "Add": (one, value),
            "Sub": (one, -value) if first else (-one, value),
            "Mul": (value, nothing),
            "Div": (np.reciprocal(value), nothing) if first else (None, None),
        }
    return steps[node.op_type]


def names_inside(model: ModelProto, head: Head, labels: int) -> tuple[str, ...]:
    """Names in the file's metadata, as Ultralytics and others write them, if they fit; or none.

    Args:
        model: The file.
        head: What becomes of its output.
        labels: How many were seen, if that gives labels.
    """
    names = _written_names(model)
    if head.kind == "threshold":
        return ("background", *names)[-2:] if len(names) in {1, 2} else ()
    fits = len(names) >= labels if head.kind == "labels" else len(names) == head.channels
    return names if fits else ()


def _written_names(model: ModelProto) -> tuple[str, ...]:
    for entry in model.metadata_props:
        if entry.key.lower() not in _NAMES:
            continue
        try:
            found: Any = ast.literal_eval(entry.value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = [part.strip() for part in entry.value.replace("\n", ",").split(",")]
        if isinstance(found, dict):
            keys = {str(key): value for key, value in found.items()}
            found = [keys.get(str(index)) for index in range(len(keys))]
        if isinstance(found, list | tuple) and all(isinstance(n, str) and n for n in found):
            return tuple(found)
    return ()
