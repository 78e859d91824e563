"""From photos to what a network of others takes: in NumPy, to run it as it came, and as nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from ppool.feeding import LUMA, Normalisation

__all__ = ["LAYOUTS", "Intake"]

# Of the input, by rank.
LAYOUTS = {4: ("NCHW", "NHWC"), 3: ("CHW", "HWC")}


@dataclass(frozen=True)
class Intake:
    """How a network takes photos.

    Attributes:
        name: Of the input.
        elem_type: Of the input, as ONNX numbers types.
        layout: Axes of the input: N photos, C channels, H rows, W columns.
        normalisation: What becomes of pixels; bytes are fed as they are.
        height: The only one it takes, or ``None``.
        width: Likewise.
    """

    name: str
    elem_type: int
    layout: str
    normalisation: Normalisation
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        mean, std = self.normalisation.of_bytes
        if self.whole_numbers and (any(mean) or {*std} != {1.0}):
            raise ValueError(
                f"input {self.name}: takes bytes ({self.dtype}), got {self.normalisation}; use "
                "--preset raw, with --channels for another order than RGB"
            )

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the input."""
        found: np.dtype[np.generic] = helper.tensor_dtype_to_np_dtype(self.elem_type)
        return found

    @property
    def whole_numbers(self) -> bool:
        """Whether the input takes integers."""
        return bool(np.issubdtype(self.dtype, np.integer))

    def __str__(self) -> str:
        return f"{self.normalisation}, {self.layout} {self.dtype}"

    def array(self, image: NDArray[np.uint8]) -> NDArray[np.generic]:
        """One photo, uint8 [H, W, 3], as the network takes it."""
        x = self.normalisation(image[None]).astype(self.dtype)
        x = x if self.layout.endswith("CHW") else x.transpose(0, 2, 3, 1)
        return x if "N" in self.layout else x[0]

    def nodes(self, graph: GraphProto, image: str, result: str) -> list[NodeProto]:
        """The same from ``image``, uint8 [N, H, W, 3], with constants put into ``graph``.

        Without an axis of photos, N is 1.
        """
        name = image
        nodes: list[NodeProto] = []

        def step(kind: str, *inputs: str, **settings: Any) -> None:
            nonlocal name
            nodes.append(helper.make_node(kind, [name, *inputs], [f"fed/{len(nodes)}"], **settings))
            name = nodes[-1].output[0]

        def constant(what: str, values: NDArray[np.generic]) -> str:
            full = f"fed/{what}"
            graph.initializer.append(numpy_helper.from_array(values, full))
            return full

        channels_first = self.layout.endswith("CHW")
        grey = self.normalisation.channels == "grey"
        if grey:
            # Rounded as above, before anything else.
            step("Cast", to=TensorProto.FLOAT)
            step("MatMul", constant("luma", LUMA[:, None]))
            step("Div", constant("whole", np.array(65536, np.float32)))
            step("Add", constant("half", np.array(0.5, np.float32)))
            step("Floor")
        if channels_first:
            step("Transpose", perm=[0, 3, 1, 2])
        if not grey:
            step("Cast", to=TensorProto.FLOAT)
        if self.normalisation.channels == "bgr":
            order = constant("bgr", np.array([2, 1, 0], np.int64))
            step("Gather", order, axis=1 if channels_first else 3)
        for kind, row, nothing in zip(
            ("Sub", "Div"), self.normalisation.of_bytes, (0.0, 1.0), strict=True
        ):
            if {*row} != {nothing}:
                values = np.array(row, np.float32)
                step(kind, constant(kind, values[:, None, None] if channels_first else values))
        if "N" not in self.layout:
            step("Gather", constant("first", np.array(0, np.int64)), axis=0)
        if self.elem_type != TensorProto.FLOAT:
            step("Cast", to=self.elem_type)
        nodes[-1].output[0] = result
        return nodes
