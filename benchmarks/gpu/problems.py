"""Calls of the kernels on PyTorch tensors, and the problems they are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppool._gpu import Kernels
from ppool._jobs import (
    BackwardJob,
    Branch,
    ForwardJob,
    Pooling,
    ResizeArgMaxJob,
    UnitBackwardJob,
    UnitJob,
)
from ppool.window import Window

__all__ = ["BRANCH", "DTYPES", "TOLERANCE", "WINDOWS", "Gpu", "Problem", "arguments", "problems"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# As tests/windows.py has them: relative to the largest element.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
BRANCH = Branch(input_scale=1.0, alpha_min=1e-4, alpha_max=35.0)

WINDOWS = {
    "2x2/2": Window.of(2),
    "2x2/2 ceil": Window.of(2, ceil_mode=True),
    "3x3/2": Window.of(3, 2, 1),
    "3x3/1": Window.of(3, 1, 1),
    "3x2/2 dilated": Window.of((3, 2), 2, 1, 2),
}
# Widths with and without 16-byte rows; heights around a tile of 16 rows.
SIZES = ((3, 3), (17, 33), (16, 64))


def arguments(window: Window) -> tuple[Any, ...]:
    """A window as the functions of ``ppool.reference`` take it."""
    return window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode


@dataclass(frozen=True)
class Gpu:
    """The kernels and the device whose tensors they take: ``cuda``, or ``cpu`` if emulated."""

    kernels: Kernels
    device: str

    @property
    def stream(self) -> int:
        """Address of PyTorch's current stream."""
        return int(torch.cuda.current_stream().cuda_stream) if self.device == "cuda" else 0

    def pooling(self, x: Tensor, window: Window, signed: bool = False) -> Pooling:
        """The problem of pooling ``x`` [N, C, H, W]."""
        return Pooling(tuple(x.shape), window, signed, str(x.dtype).removeprefix("torch."))

    def forward(self, x: Tensor, alpha: Tensor, window: Window, signed: bool = False) -> Tensor:
        """Pool with given exponents."""
        y = torch.empty_like(alpha)
        addresses = (t.data_ptr() for t in (x, alpha, y))
        self.kernels.run(ForwardJob(self.pooling(x, window, signed), *addresses), self.stream)
        return y

    def backward(
        self, grad: Tensor, x: Tensor, alpha: Tensor, window: Window, signed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Gradients for ``x`` and ``alpha``."""
        dx, dalpha = torch.empty_like(x), torch.empty_like(alpha)
        addresses = (t.data_ptr() for t in (grad, x, alpha, dx, dalpha))
        self.kernels.run(BackwardJob(self.pooling(x, window, signed), *addresses), self.stream)
        return dx, dalpha

    def unit(
        self, x: Tensor, parameters: list[Tensor], window: Window, signed: bool = False
    ) -> Tensor:
        """Pool with the exponents of the side branch."""
        y = x.new_empty((*x.shape[:2], *window.output_size(x.shape[2], x.shape[3])))
        addresses = (t.data_ptr() for t in (x, *parameters, y))
        self.kernels.run(UnitJob(self.pooling(x, window, signed), BRANCH, *addresses), self.stream)
        return y

    def unit_backward(
        self,
        grad: Tensor,
        x: Tensor,
        parameters: list[Tensor],
        window: Window,
        signed: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Gradients for ``x``, and of each plane those for its channel's parameters, in a row."""
        dx, d_alpha = torch.empty_like(x), torch.empty_like(grad, dtype=torch.float32)
        taps = window.kernel[0] * window.kernel[1]
        parts = x.new_empty((*x.shape[:2], taps + 3), dtype=torch.float32)
        addresses = (t.data_ptr() for t in (grad, x, *parameters, dx, parts))
        job = UnitBackwardJob(self.pooling(x, window, signed), BRANCH, 1.0, *addresses)
        self.kernels.run(job, self.stream, room=d_alpha.data_ptr())
        return dx, parts

    def resize_argmax(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Labels [N, H, W] of logits [N, K, h, w]."""
        labels = torch.empty((len(logits), *size), dtype=torch.uint8, device=logits.device)
        n, classes, h, w = logits.shape
        dtype = str(logits.dtype).removeprefix("torch.")
        addresses = (logits.data_ptr(), labels.data_ptr())
        job = ResizeArgMaxJob(n, classes, h, w, *size, dtype, 1, *addresses)
        self.kernels.run(job, self.stream)
        return labels


@dataclass(frozen=True)
class Problem:
    """Inputs of every operator for one window, element type and size."""

    name: str
    window: Window
    signed: bool
    x: Tensor
    alpha: Tensor
    grad: Tensor
    parameters: list[Tensor]


def _stored(values: NDArray[np.float64], dtype: torch.dtype, device: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).to(device)


def problems(device: str) -> Iterator[Problem]:
    """Every window with every element type at several sizes; zeros, ties and tiny elements."""
    rng = np.random.default_rng(20190616)
    for name, window in WINDOWS.items():
        for dtype in DTYPES:
            for height, width in SIZES:
                for signed in (False, True):
                    shape = (1, 2, height, width)
                    pooled = (1, 2, *window.output_size(height, width))
                    x = rng.random(shape) * 10.0 ** rng.integers(-3, 1, shape)
                    x = np.where(rng.random(shape) < 0.3, 0.0, np.round(x, 2 + width % 2 * 2))
                    alpha = rng.choice([0.0, 1.0, 35.0, 110.0], pooled) * rng.choice(
                        [1, 0.3], pooled
                    )
                    parameters = (
                        rng.normal(size=(2, 1, *window.kernel)),
                        rng.uniform(-0.5, 0.5, 2),
                        rng.normal(size=2),
                        rng.uniform(0, 30, 2),
                    )
                    yield Problem(
                        f"{name} {str(dtype).removeprefix('torch.')} {height}x{width}"
                        + " signed" * signed,
                        window,
                        signed,
                        _stored(x - 0.3 * signed, dtype, device),
                        _stored(alpha, dtype, device),
                        _stored(rng.uniform(-1, 1, pooled), dtype, device),
                        [_stored(value, dtype, device) for value in parameters],
                    )
