"""Does the exported file answer as the PyTorch network does, with native kernels and without?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ppool._library import custom_ops_library
from ppool.export._trace import Pipeline
from ppool.runtime import Session, make_session

__all__ = ["Comparison", "VerificationError", "example_images", "verify"]

# Float rounding may turn a tie between two classes: this share of all pixels, and in small images a
# few, as a network that has learned little leaves many in doubt.
MASK_TOLERANCE, FEW = 1e-5, 3.0
# Of the range an alpha map may take: the sums behind it are taken in another order.
ALPHA_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """One output on one input: the largest difference found and the largest allowed.

    For ``mask`` these count pixels, else they are differences of alpha.
    """

    kernels: str
    image: tuple[int, ...]
    output: str
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is allowed; a NaN is not."""
        return self.difference <= self.allowed


class VerificationError(Exception):
    """The exported file and the network disagree; ``comparisons`` holds every figure."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.comparisons = tuple(comparisons)
        worst = next(entry for entry in comparisons if not entry.agrees)
        super().__init__(
            f"{sum(not entry.agrees for entry in comparisons)} of {len(comparisons)} comparisons "
            f"with PyTorch fail, first {worst.output} for an image {list(worst.image)} on "
            f"{worst.kernels} kernels: difference {worst.difference:g}, allowed {worst.allowed:g}"
        )


def verify(content: bytes, pipeline: Pipeline, multiple: int) -> tuple[Comparison, ...]:
    """Compare on several sizes and batch sizes, with every kind of kernel that is here.

    Args:
        content: The ONNX file.
        pipeline: The PyTorch side.
        multiple: Heights and widths are multiples of this many pixels.

    Raises:
        VerificationError: if any comparison fails.
    """
    sessions = [make_session(content, use_native=False)]
    if custom_ops_library() is not None:
        sessions.append(make_session(content))
    side = multiple * -(-64 // multiple)
    comparisons = [
        comparison
        for shape in ((1, side, side), (3, side, side + multiple), (2, 2 * side, side))
        for comparison in _compare(sessions, pipeline, example_images(shape))
    ]
    if not all(entry.agrees for entry in comparisons):
        raise VerificationError(comparisons)
    return tuple(comparisons)


def example_images(shape: Sequence[int]) -> torch.Tensor:
    """Soft blobs under noise, uint8 [N, H, W, 3]: smooth areas and edges both occur."""
    generator = torch.Generator().manual_seed(shape[0])
    n, height, width = shape[:3]
    blobs = torch.rand(n, 3, 6, 6, generator=generator)
    blobs = torch.nn.functional.interpolate(blobs, (height, width), mode="bicubic")
    noise = torch.randn(n, 3, height, width, generator=generator)
    image = (blobs * 255 + noise * 20).clamp(0, 255).to(torch.uint8)
    return image.permute(0, 2, 3, 1).contiguous()


def _compare(
    sessions: Sequence[Session], pipeline: Pipeline, image: torch.Tensor
) -> list[Comparison]:
    names = ["mask", *(stage.output for stage in sessions[0].metadata.stages)]
    ranges = [stage.alpha_max - stage.alpha_min for stage in sessions[0].metadata.stages]
    allowed = [
        max(FEW, MASK_TOLERANCE * image.shape[:3].numel()),
        *(ALPHA_TOLERANCE * span for span in ranges),
    ]
    expected = [result.numpy() for result in pipeline(image)]
    comparisons = []
    for session in sessions:
        results = session.run(names, {"image": image.numpy()})
        for name, limit, result, truth in zip(names, allowed, results, expected, strict=True):
            difference = _difference(result, truth)
            comparisons.append(
                Comparison(session.kernels, tuple(image.shape), name, difference, limit)
            )
    return comparisons


def _difference(result: NDArray[Any], truth: NDArray[Any]) -> float:
    if result.shape != truth.shape:
        return float("inf")
    if result.dtype in (np.uint8, np.uint16):
        return float(np.count_nonzero(result != truth))
    return float(np.max(np.abs(result - truth)))
