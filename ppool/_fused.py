"""The unit of Figure 1 with its gradients as one native call each way, for training on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ppool import _library
from ppool.window import Window

__all__ = ["DTYPES", "Settings", "pooling", "runs", "unit"]

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


@dataclass(frozen=True)
class Settings:
    """What the unit computes, beside its tensors."""

    window: Window
    signed: bool
    branch: _library.Branch
    alpha_gradient_scale: float


def pooling(x: Tensor, window: Window, signed: bool) -> _library.Pooling:
    """The problem of pooling ``x`` [N, C, H, W], as the native kernels take it."""
    return _library.Pooling(tuple(x.shape), window, signed, DTYPES[x.dtype])


def runs(x: Tensor) -> bool:
    """Whether :func:`unit` takes ``x``; a graph that is being traced keeps separate operators."""
    return (
        not torch.compiler.is_compiling()
        and x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and _library.custom_ops_library() is not None
    )


def unit(x: Tensor, parameters: tuple[Tensor, ...], settings: Settings) -> Tensor:
    """P-pool ``x`` with the exponents of its side branch, which is detached from ``x``.

    Computed in float32 (float64 for float64 ``x``) from parameters rounded to the dtype of ``x``.
    An ``x`` in channels-last memory is pooled as it lies, and the result lies the same.

    Shape:
        ``x`` is [N, C, H, W]; ``parameters`` are w_region [C, 1, kh, kw] and prelu_slope, w_point
        and b_point [C]; the result is [N, C, H_out, W_out].
    """
    y: Tensor = _Unit.apply(x, *parameters, settings)  # type: ignore[no-untyped-call]
    return y


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        *tensors, settings = arguments
        layout = _layout(x, settings)
        x = x.contiguous(memory_format=layout)
        parameters = [tensor.to(x.dtype).contiguous() for tensor in tensors]
        size = settings.window.output_size(x.shape[2], x.shape[3])
        y = torch.empty((*x.shape[:2], *size), dtype=x.dtype, memory_format=layout)
        addresses = (tensor.data_ptr() for tensor in (x, *parameters, y))
        _library.ppool2d_unit(
            pooling(x, settings.window, settings.signed),
            settings.branch,
            *addresses,
            channels_last=layout == torch.channels_last,
            threads=torch.get_num_threads(),
        )
        ctx.save_for_backward(x, *parameters)
        ctx.settings, ctx.layout = settings, layout
        ctx.originals = [(tensor.shape, tensor.dtype) for tensor in tensors]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        settings: Settings = ctx.settings
        grad = grads[0].to(x.dtype).contiguous(memory_format=ctx.layout)
        dx = torch.empty_like(x)
        taps = settings.window.kernel[0] * settings.window.kernel[1]
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        parts = torch.empty((*x.shape[:2], taps + 3), dtype=wide)
        addresses = (tensor.data_ptr() for tensor in (grad, x, *parameters, dx, parts))
        _library.ppool2d_unit_backward(
            pooling(x, settings.window, settings.signed),
            settings.branch,
            *addresses,
            alpha_gradient_scale=settings.alpha_gradient_scale,
            channels_last=ctx.layout == torch.channels_last,
            threads=torch.get_num_threads(),
        )
        sums = torch.split(parts.sum(0), [taps, 1, 1, 1], dim=1)
        d_parameters = [
            gradient.reshape(shape).to(dtype)
            for gradient, (shape, dtype) in zip(sums, ctx.originals, strict=True)
        ]
        return dx, *d_parameters, None


def _layout(x: Tensor, settings: Settings) -> torch.memory_format:
    """How to store the tensors: as x lies, where there are kernels for it."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last and not settings.signed else torch.contiguous_format
