"""P-pooling from standard PyTorch operations: any device, any dtype, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.reference import SMALLEST_RATIO
from ppool.window import Window

__all__ = ["backward", "forward"]


def _pad(x: Tensor, window: Window) -> Tensor:
    bottom, right = window.end_padding(x.shape[-2], x.shape[-1])
    top, left = window.padding
    return F.pad(x, (left, right, top, bottom))


def _taps(padded: Tensor, pooled: tuple[int, int], window: Window) -> list[Tensor]:
    """Views of the padded input, one a kernel element, each of the pooled size."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    rows, columns = (pooled[0] - 1) * sh + 1, (pooled[1] - 1) * sw + 1
    return [
        padded[..., i * dh : i * dh + rows : sh, j * dw : j * dw + columns : sw]
        for i in range(kh)
        for j in range(kw)
    ]


def _windows(x: Tensor, window: Window) -> Tensor:
    """The k elements of each window, [k, N, C, H_out, W_out], 0 outside the input."""
    pooled = window.output_size(x.shape[-2], x.shape[-1])
    return torch.stack(_taps(_pad(x, window), pooled, window))


def _arithmetic_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _offset(x: Tensor, signed: bool) -> Tensor | None:
    """Eq. 2's shift, one value a plane; NaN is passed over as in the reference."""
    if not signed or x.numel() == 0:
        return None
    return (
        x.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).amin((2, 3), True).clamp(max=0)
    )


def _weights(x: Tensor, alpha: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Largest value m, ratios r_i = x_i / m, weights w_i = r_i ** alpha, in-bounds taps."""
    inside = _windows(torch.ones_like(x[:1, :1]), window) > 0
    taps = _windows(x, window)
    largest = taps.amax(0)
    ratio = taps / torch.where(largest > 0, largest, 1)
    weight = torch.where(inside, ratio**alpha, 0)
    return largest, ratio, weight, inside


def forward(x: Tensor, alpha: Tensor, window: Window, signed: bool) -> Tensor:
    """Eq. 1 (Eq. 2 when ``signed``); shapes as :func:`ppool.ppool2d`."""
    if alpha.numel() == 0:
        return torch.empty_like(alpha, dtype=x.dtype)
    dtype = _arithmetic_dtype(x)
    values, alpha = x.to(dtype), alpha.to(dtype)
    offset = _offset(values, signed)
    values = values.clamp(min=0) if offset is None else values - offset
    largest, ratio, weight, _ = _weights(values, alpha, window)
    total = weight.sum(0)
    y = largest * ((weight * ratio).sum(0) / torch.where(largest > 0, total, 1))
    y = torch.where((largest == 0) | largest.isinf(), largest, y)
    y = torch.where(alpha.isnan(), alpha, y)
    return (y if offset is None else y + offset).to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, alpha: Tensor, window: Window, signed: bool
) -> tuple[Tensor, Tensor]:
    """Eq. 3 and 4: gradients for ``x`` and ``alpha``."""
    if alpha.numel() == 0:
        return torch.zeros_like(x), torch.zeros_like(alpha)
    dtype = _arithmetic_dtype(x)
    values, exponent, grad = x.to(dtype), alpha.to(dtype), grad.to(dtype)
    offset = _offset(values, signed)
    values = values.clamp(min=0) if offset is None else values - offset
    largest, ratio, weight, inside = _weights(values, exponent, window)

    count = inside.sum(0).clamp(min=1).to(dtype)
    total = torch.where(largest > 0, weight.sum(0), 1)
    pooled = (weight * ratio).sum(0) / total
    floored = ratio.clamp(min=SMALLEST_RATIO)
    positive = inside & (ratio > 0)

    terms = torch.where(positive, weight / total * (ratio - pooled) * floored.log(), 0)
    d_alpha = grad * largest * terms.sum(0)
    # At r = 0 the derivative diverges for alpha < 1 and vanishes above; at 1 it is -t / S.
    at_zero = torch.where(exponent == 1, 1.0, 0.0).to(dtype)
    slope = torch.where(positive, floored ** (exponent - 1), torch.where(inside, at_zero, 0))
    d_taps = ((1 + exponent) * weight - exponent * pooled * slope) / total

    average = (exponent == 0) | (largest == 0)
    infinite = largest.isinf()
    at_infinity = _windows(values, window).isinf().to(dtype)
    d_taps = torch.where(average, inside / count, d_taps)
    d_taps = torch.where(infinite, at_infinity / at_infinity.sum(0).clamp(min=1), d_taps)
    d_taps = torch.where(exponent.isnan() & inside, exponent, d_taps) * grad
    d_alpha = torch.where(infinite | (largest == 0), 0, d_alpha)

    d_padded = _pad(torch.zeros_like(values), window)
    pooled_size = (alpha.shape[-2], alpha.shape[-1])
    for target, d_tap in zip(_taps(d_padded, pooled_size, window), d_taps, strict=True):
        target.add_(d_tap)
    top, left = window.padding
    dx = d_padded[..., top : top + x.shape[-2], left : left + x.shape[-1]]
    if not signed:
        dx = dx.masked_fill(x < 0, 0)
    return dx.to(x.dtype).contiguous(), d_alpha.to(alpha.dtype)
