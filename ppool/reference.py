"""The judge: P-pooling in float64 NumPy, slow and obvious, one window at a time.

Every backend is compared with these functions, never with another backend. Equation numbers are
those of Wei et al., "Building Detail-Sensitive Semantic Segmentation Networks with Polynomial
Pooling", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppool.window import Window

__all__ = [
    "alpha_backward_reference",
    "alpha_reference",
    "ppool2d_backward_reference",
    "ppool2d_reference",
    "resize_argmax_reference",
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Backward only: below this share of the window's maximum, ln(r) and r^(alpha-1) are not followed.
SMALLEST_RATIO = 1e-3
# Of logits at their new size that are held at a time: 16 MB.
_MOST_VALUES = 2**21


def _windows(plane: tuple[int, int], window: Window) -> Iterator[tuple[int, int, Indices, Indices]]:
    """Yield each pooled (row, column) with the in-bounds input rows and columns it reads."""
    height, width = plane
    (kh, kw), (sh, sw) = window.kernel, window.stride
    (ph, pw), (dh, dw) = window.padding, window.dilation
    out_height, out_width = window.output_size(height, width)
    for row in range(out_height):
        rows = row * sh - ph + dh * np.arange(kh, dtype=np.intp)
        rows = rows[(rows >= 0) & (rows < height)]
        for column in range(out_width):
            columns = column * sw - pw + dw * np.arange(kw, dtype=np.intp)
            columns = columns[(columns >= 0) & (columns < width)]
            yield row, column, rows, columns


def _pool(values: Array, alpha: float) -> float:
    """Eq. 1 for one window of non-negative values; a window of padding alone gives 0."""
    if values.size == 0:
        return 0.0
    if np.isnan(values).any() or np.isnan(alpha):
        return float("nan")
    largest = values.max()
    if largest == 0 or np.isinf(largest):
        return float(largest)
    ratio = values / largest
    weight = ratio**alpha  # 0 ** 0 is 1, as the contract asks
    return float(largest * ((weight * ratio).sum() / weight.sum()))


def _pool_backward(values: Array, alpha: float) -> tuple[Array, float]:
    """Eq. 3 and 4 for one window: dy/dx_i and dy/dalpha."""
    if values.size == 0:
        return values, 0.0
    if np.isnan(values).any() or np.isnan(alpha):
        return np.full_like(values, np.nan), float("nan")
    largest = values.max()
    if alpha == 0 or largest == 0:
        # Proposition 1: the average, whatever the zeros. In an all-zero window the same by choice.
        gradient = np.full_like(values, 1 / values.size)
    if largest == 0:
        return gradient, 0.0
    if np.isinf(largest):
        at_largest = np.isinf(values)
        return at_largest / at_largest.sum(), 0.0
    ratio = values / largest
    weight = ratio**alpha
    total = weight.sum()
    pooled = (weight * ratio).sum() / total
    floored = np.maximum(ratio, SMALLEST_RATIO)
    inside = ratio > 0
    terms = weight / total * (ratio - pooled) * np.log(floored)
    d_alpha = float(largest * terms[inside].sum())
    if alpha == 0:
        return gradient, d_alpha
    slope = np.where(inside, floored ** (alpha - 1), 1.0 if alpha == 1 else 0.0)
    return ((1 + alpha) * weight - alpha * pooled * slope) / total, d_alpha


def _shift(x: Array, signed: bool) -> tuple[Array, Array]:
    """Eq. 2: the plane's minimum where negative, and x made non-negative by it (or clamped)."""
    if signed and x.size:
        # fmin passes over NaN: a NaN spoils the windows that hold it, not its whole plane.
        offset = np.fmin(np.fmin.reduce(x, axis=(2, 3), keepdims=True), 0.0)
        return x - offset, offset
    return np.where(x < 0, 0.0, x), np.zeros((*x.shape[:2], 1, 1))


def ppool2d_reference(
    x: ArrayLike,
    alpha: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    signed: bool = False,
) -> Array:
    """P-pool ``x`` with the exponents ``alpha`` (Eq. 1; Eq. 2 with ``signed=True``).

    Shape:
        ``x`` is [N, C, H, W], ``alpha`` and the result [N, C, H_out, W_out], with H_out and W_out
        as ``torch.nn.MaxPool2d`` has them.

    Example:
        >>> ppool2d_reference([[[[1.0, 3.0]]]], [[[[1.0]]]], kernel_size=(1, 2))
        array([[[[2.5]]]])
    """
    x, alpha = np.asarray(x, np.float64), np.asarray(alpha, np.float64)
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    shifted, offset = _shift(x, signed)
    y = np.empty(x.shape[:2] + window.output_size(*x.shape[2:]))
    for row, column, rows, columns in _windows((x.shape[2], x.shape[3]), window):
        for n, c in np.ndindex(*x.shape[:2]):
            values = shifted[n, c][np.ix_(rows, columns)]
            y[n, c, row, column] = _pool(values, alpha[n, c, row, column]) + offset[n, c, 0, 0]
    return y


def ppool2d_backward_reference(
    grad: ArrayLike,
    x: ArrayLike,
    alpha: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    signed: bool = False,
) -> tuple[Array, Array]:
    """Gradients of :func:`ppool2d_reference` for ``x`` and ``alpha`` (Eq. 3 and 4).

    With ``signed=False`` a negative input counts as 0 and receives no gradient.

    Shape:
        ``grad`` is [N, C, H_out, W_out]; the results have the shapes of ``x`` and ``alpha``.
    """
    grad, x, alpha = (np.asarray(value, np.float64) for value in (grad, x, alpha))
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    shifted, _ = _shift(x, signed)
    dx, dalpha = np.zeros_like(x), np.zeros_like(alpha)
    for row, column, rows, columns in _windows((x.shape[2], x.shape[3]), window):
        region = np.ix_(rows, columns)
        for n, c in np.ndindex(*x.shape[:2]):
            d_values, d_alpha = _pool_backward(shifted[n, c][region], alpha[n, c, row, column])
            dx[n, c][region] += grad[n, c, row, column] * d_values
            dalpha[n, c, row, column] = grad[n, c, row, column] * d_alpha
    if not signed:
        dx[x < 0] = 0.0
    return dx, dalpha


def alpha_reference(
    x: ArrayLike,
    w_region: ArrayLike,
    prelu_slope: ArrayLike,
    w_point: ArrayLike,
    b_point: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    input_scale: float = 100.0,
    alpha_min: float = 1e-4,
    alpha_max: float = 35.0,
) -> Array:
    """The alpha map that the side branch of Figure 1 predicts (Eq. 5).

    Shape:
        ``x`` is [N, C, H, W], ``w_region`` [C, 1, kh, kw], the other parameters [C]; the result
        is [N, C, H_out, W_out].
    """
    inputs = _branch_inputs(x, w_region, prelu_slope, w_point, b_point)
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    _, _, unclipped = _branch(inputs, window, input_scale)
    return np.clip(unclipped, alpha_min, alpha_max)


def _branch_inputs(x: ArrayLike, w_region: ArrayLike, *others: ArrayLike) -> list[Array]:
    """All in float64, what belongs to a channel as [C, 1, 1]."""
    by_channel = (np.asarray(value, np.float64).reshape(-1, 1, 1) for value in others)
    return [np.asarray(x, np.float64), np.asarray(w_region, np.float64), *by_channel]


def _branch_windows(
    x: Array, window: Window
) -> Iterator[tuple[int, int, tuple[Indices, ...], tuple[Indices, ...]]]:
    """Yield each pooled (row, column), what it reads of a plane, and by which kernel elements."""
    (sh, sw), (ph, pw), (dh, dw) = window.stride, window.padding, window.dilation
    for row, column, rows, columns in _windows((x.shape[2], x.shape[3]), window):
        taps = np.ix_((rows - row * sh + ph) // dh, (columns - column * sw + pw) // dw)
        yield row, column, np.ix_(rows, columns), taps


def _branch(inputs: list[Array], window: Window, scale: float) -> tuple[Array, Array, Array]:
    """The branch after its convolution, after its PReLU, and before its clip."""
    x, w_region, slope, point, bias = inputs
    h = np.zeros(x.shape[:2] + window.output_size(*x.shape[2:]))
    for row, column, region, taps in _branch_windows(x, window):
        for n, c in np.ndindex(*x.shape[:2]):
            h[n, c, row, column] = (w_region[c, 0][taps] * scale * x[n, c][region]).sum()
    activated = np.where(h >= 0, h, h * slope)
    return h, activated, activated * point + bias


def alpha_backward_reference(
    d_alpha: ArrayLike,
    x: ArrayLike,
    w_region: ArrayLike,
    prelu_slope: ArrayLike,
    w_point: ArrayLike,
    b_point: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    input_scale: float = 100.0,
    alpha_min: float = 1e-4,
    alpha_max: float = 35.0,
) -> tuple[Array, Array, Array, Array, Array]:
    """Gradients of :func:`alpha_reference` for ``x`` and the four parameters (Eq. 5).

    Shape:
        ``d_alpha`` is [N, C, H_out, W_out]; the results have the shapes of ``x``, ``w_region`` and
        three times [C].
    """
    inputs = _branch_inputs(x, w_region, prelu_slope, w_point, b_point)
    x, w_region, slope, point, _ = inputs
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    h, activated, unclipped = _branch(inputs, window, input_scale)
    clipped = (unclipped < alpha_min) | (unclipped > alpha_max)
    d_unclipped = np.where(clipped, 0.0, np.asarray(d_alpha, np.float64))
    d_activated = d_unclipped * point
    d_h = np.where(h > 0, d_activated, d_activated * slope)
    d_slope = np.where(h > 0, 0.0, d_activated * h)
    dx, d_region = np.zeros_like(x), np.zeros_like(w_region)
    for row, column, region, taps in _branch_windows(x, window):
        for n, c in np.ndindex(*x.shape[:2]):
            d = d_h[n, c, row, column] * input_scale
            dx[n, c][region] += d * w_region[c, 0][taps]
            d_region[c, 0][taps] += d * x[n, c][region]
    sums = (d.sum((0, 2, 3)) for d in (d_slope, d_unclipped * activated, d_unclipped))
    return dx, d_region, next(sums), next(sums), next(sums)


def resize_argmax_reference(
    logits: ArrayLike, size: Sequence[int], between: Sequence[int] | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Class of the largest logit after half-pixel bilinear resizing; the first one on a tie.

    Shape:
        ``logits`` is [N, K, h, w], ``size`` (H, W); the result is [N, H, W], uint8, or uint16 of
        more than 256 classes. With ``between`` they are resized to that before.
    """
    logits = np.asarray(logits, np.float64)
    if between is not None:
        logits = np.concatenate(list(_resized(logits, between)), axis=2)
    labels = [part.argmax(axis=1) for part in _resized(logits, size)]
    labels.append(np.empty((len(logits), 0, size[1]), np.intp))  # for no rows at all
    found = np.concatenate(labels, axis=1)
    return found.astype(np.uint8) if logits.shape[1] <= 256 else found.astype(np.uint16)


def _resized(logits: Array, size: Sequence[int]) -> Iterator[Array]:
    """Logits at another size, some rows at a time: all at once may take gigabytes."""

    def taps(length: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
        position = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
        low = np.floor(position).astype(np.intp)
        return low, np.minimum(low + 1, length - 1), position - low

    top, bottom, fy = taps(logits.shape[2], size[0])
    left, right, fx = taps(logits.shape[3], size[1])
    step = max(_MOST_VALUES // max(logits[:, :, 0, 0].size * size[1], 1), 1)
    for first in range(0, size[0], step):
        part = slice(first, first + step)
        above, below, share = logits[:, :, top[part]], logits[:, :, bottom[part]], fy[part, None]
        rows = above * (1 - share) + below * share
        yield rows[..., left] * (1 - fx) + rows[..., right] * fx
