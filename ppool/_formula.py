"""P-pooling and its unit in PyTorch's own operations, with their gradients written out.

Any device and any floating-point type. Everything here can be differentiated again, also the
gradients; what is infinite or NaN in one window stays out of the others' derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool._jobs import Branch
from ppool.reference import SMALLEST_RATIO
from ppool.window import Window

__all__ = ["Settings", "alpha_map", "backward", "forward", "unit", "unit_backward"]

# From here on every weight but the maximum's is 0; keeps alpha * 0 from inf * 0.
LARGEST_ALPHA = 1e30

Parameters = tuple[Tensor, ...]  # w_region [C, 1, kh, kw], prelu_slope, w_point, b_point [C]


@dataclass(frozen=True)
class Settings:
    """What the unit computes, beside its tensors."""

    window: Window
    signed: bool
    branch: Branch
    detach_branch: bool
    alpha_gradient_scale: float


def _windows(x: Tensor, window: Window) -> Tensor:
    """The k elements of each window, [k, N, C, H_out, W_out], 0 outside the input."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    height, width = x.shape[-2:]
    bottom, right = window.end_padding(height, width)
    top, left = window.padding
    padded = F.pad(x, (left, right, top, bottom))
    out_height, out_width = window.output_size(height, width)
    rows, columns = (out_height - 1) * sh + 1, (out_width - 1) * sw + 1
    taps = [
        padded[..., i * dh : i * dh + rows : sh, j * dw : j * dw + columns : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return torch.stack(taps)


def _add_up(windows: Tensor, like: Tensor, window: Window) -> Tensor:
    """The transpose of :func:`_windows`: each element's sum over the windows that hold it."""
    if windows.numel() == 0:
        return torch.zeros_like(like, dtype=windows.dtype)
    height, width = like.shape[-2:]
    bottom, right = window.end_padding(height, width)
    top, left = window.padding
    columns = windows.flatten(-2).flatten(1, 2).transpose(0, 1)  # [N * C, k, windows]
    size = (height + top + bottom, width + left + right)
    padded = F.fold(columns, size, window.kernel, window.dilation, 0, window.stride)
    return padded[..., top : top + height, left : left + width].reshape(like.shape)


def _arithmetic_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _non_negative(x: Tensor, signed: bool) -> tuple[Tensor, Tensor | float]:
    """What is pooled, and what was subtracted (Eq. 2): a plane's minimum, passing over NaN."""
    if not signed:
        return torch.where(x < 0, 0, x), 0.0
    numbers = x.detach().nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    offset = numbers.amin((-2, -1), True).clamp(max=0)
    return x - offset, offset


class _Weighed:
    """The windows of x with their weights w_i = r_i ** alpha, r_i = x_i / largest."""

    def __init__(self, values: Tensor, alpha: Tensor, window: Window) -> None:
        self.inside = _windows(values.new_ones((1, 1, *values.shape[-2:])), window) > 0
        self.taps = _windows(values, window)
        self.largest = self.taps.amax(0)
        self.is_nan = self.largest.isnan() | alpha.isnan()
        self.regular = (self.largest > 0) & self.largest.isfinite()
        scale = torch.where(self.regular, self.largest, 1)
        self.ratio = torch.where(self.regular, self.taps, 0) / scale
        self.exponent = torch.where(alpha.isnan(), 0, alpha).clamp(max=LARGEST_ALPHA)
        self.positive = self.inside & (self.ratio > 0)
        # A power of 1, not 0: the derivative of a branch not taken must be finite.
        self.safe_ratio = torch.where(self.positive, self.ratio, 1)
        at_zero = (self.inside & (self.exponent == 0)).to(values.dtype)
        self.weight = torch.where(self.positive, self.safe_ratio**self.exponent, at_zero)
        self.total = torch.where(self.regular, self.weight.sum(0), 1)
        self.pooled_ratio = (self.weight * self.ratio).sum(0) / self.total

    def slopes(self) -> tuple[Tensor, Tensor]:
        """dy/dx_i, [k, N, C, H_out, W_out], and dy/dalpha (Eq. 3 and 4)."""
        ratio, weight, exponent, t = self.ratio, self.weight, self.exponent, self.pooled_ratio
        followed = weight * (1 + exponent * ((ratio - t) / self.safe_ratio))
        held = weight + exponent * (weight - t * SMALLEST_RATIO ** (exponent - 1))
        # At r = 0 the derivative diverges for alpha < 1 and vanishes above; at 1 it is -t / S.
        at_zero = torch.where(self.inside & (exponent == 1), -t, 0)
        slope = torch.where(ratio >= SMALLEST_RATIO, followed, held)
        slope = torch.where(self.positive, slope, at_zero) / self.total
        average = self.inside & ((exponent == 0) | (self.largest == 0))
        count = self.inside.to(slope.dtype).sum(0).clamp(min=1)
        slope = torch.where(average, 1 / count, slope)
        infinite = self.taps.isinf().to(slope.dtype)
        share = infinite / infinite.sum(0).clamp(min=1)
        slope = torch.where(self.largest.isinf(), share, slope)

        terms = weight * (ratio - t) * self.safe_ratio.clamp(min=SMALLEST_RATIO).log()
        d_alpha = torch.where(self.positive, terms, 0).sum(0) / self.total
        d_alpha = torch.where(self.regular, self.largest, 0) * d_alpha
        slope = torch.where(self.inside & self.is_nan, torch.nan, slope)
        return slope, torch.where(self.is_nan, torch.nan, d_alpha)


def forward(x: Tensor, alpha: Tensor, window: Window, signed: bool) -> Tensor:
    """Eq. 1 (Eq. 2 when ``signed``).

    Shape:
        ``x`` is [N, C, H, W]; ``alpha`` and the result, of the dtype of ``x``, are
        [N, C, H_out, W_out].
    """
    if alpha.numel() == 0:
        return torch.empty_like(alpha, dtype=x.dtype)
    dtype = _arithmetic_dtype(x)
    alpha = alpha.to(dtype)
    values, offset = _non_negative(x.to(dtype), signed)
    of = _Weighed(values, alpha, window)
    y = torch.where(of.regular, of.largest * of.pooled_ratio, of.largest)
    return (torch.where(of.is_nan, torch.nan, y) + offset).to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, alpha: Tensor, window: Window, signed: bool
) -> tuple[Tensor, Tensor]:
    """Eq. 3 and 4: gradients for ``x`` and ``alpha``, each of its dtype."""
    if alpha.numel() == 0:
        return torch.zeros_like(x), torch.zeros_like(alpha)
    dtype = _arithmetic_dtype(x)
    values, _ = _non_negative(x.to(dtype), signed)
    d_taps, d_alpha = _Weighed(values, alpha.to(dtype), window).slopes()
    grad = grad.to(dtype)
    dx = _add_up(d_taps * grad, values, window)
    if not signed:
        dx = torch.where(x < 0, 0, dx)
    return dx.to(x.dtype), (d_alpha * grad).to(alpha.dtype)


class _BranchMaps:
    """The side branch (Figure 1, Eq. 5), computed from parameters rounded to the dtype of x."""

    def __init__(self, x: Tensor, parameters: Parameters, settings: Settings) -> None:
        dtype = _arithmetic_dtype(x)
        x = x.detach() if settings.detach_branch else x
        w_region, *others = (p.to(x.dtype).to(dtype) for p in parameters)
        self.slope, self.point, self.bias = (p[:, None, None] for p in others)
        self.taps = _windows(x.to(dtype), settings.window)
        # The weights are scaled, not x, which could overflow.
        scaled = w_region * settings.branch.input_scale
        self.region = scaled.flatten(1).transpose(0, 1)[:, None, :, None, None]
        self.h = (self.region * self.taps).sum(0)
        self.activated = torch.where(self.h < 0, self.h * self.slope, self.h)
        self.unclipped = self.activated * self.point + self.bias
        self.lowest, self.highest = settings.branch.alpha_min, settings.branch.alpha_max

    def alpha(self) -> Tensor:
        return self.unclipped.clamp(self.lowest, self.highest)

    def backward(self, d_alpha: Tensor, input_scale: float) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the windows' elements and of the four parameters."""
        clipped = (self.unclipped < self.lowest) | (self.unclipped > self.highest)
        d_bias = torch.where(clipped, 0, d_alpha)
        d_activated = d_bias * self.point
        d_slope = torch.where(self.h > 0, 0, d_activated * self.h)
        d_h = torch.where(self.h > 0, d_activated, d_activated * self.slope)
        d_region = (d_h * self.taps).sum((1, 3, 4)).transpose(0, 1) * input_scale
        by_channel = (d_slope, d_bias * self.activated, d_bias)
        return d_h * self.region, [d_region, *(d.sum((0, 2, 3)) for d in by_channel)]


def alpha_map(x: Tensor, parameters: Parameters, settings: Settings) -> Tensor:
    """The exponents that the side branch predicts, in float32 at least.

    Shape:
        ``x`` is [N, C, H, W], the result [N, C, H_out, W_out].
    """
    return _BranchMaps(x, parameters, settings).alpha()


def unit(x: Tensor, parameters: Parameters, settings: Settings) -> Tensor:
    """The unit of Figure 1, [N, C, H, W] to [N, C, H_out, W_out]."""
    return forward(x, alpha_map(x, parameters, settings), settings.window, settings.signed)


PoolBackward = Callable[[Tensor, Tensor, Tensor, Window, bool], tuple[Tensor, Tensor]]


def unit_backward(
    grad: Tensor,
    x: Tensor,
    parameters: Parameters,
    settings: Settings,
    pool_backward: PoolBackward = backward,
) -> tuple[Tensor, ...]:
    """Gradients of the unit for ``x`` and its parameters, each of its dtype.

    ``pool_backward`` is :func:`backward` or does the same.
    """
    maps = _BranchMaps(x, parameters, settings)
    dx, d_alpha = pool_backward(grad, x, maps.alpha(), settings.window, settings.signed)
    scaled = d_alpha * settings.alpha_gradient_scale
    d_taps, d_parameters = maps.backward(scaled, settings.branch.input_scale)
    if not settings.detach_branch:
        dx = dx + _add_up(d_taps, x, settings.window).to(x.dtype)
    shaped = (
        gradient.reshape(parameter.shape).to(parameter.dtype)
        for gradient, parameter in zip(d_parameters, parameters, strict=True)
    )
    return dx, *shaped
