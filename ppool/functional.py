"""``ppool2d``: polynomial pooling with given exponents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ppool import _autograd, _operators
from ppool.window import Window

__all__ = ["ppool2d"]


def ppool2d(
    x: Tensor,
    alpha: Tensor | float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    signed: bool = False,
) -> Tensor:
    """Polynomial pooling of ``x`` with one exponent for each pooled element.

    ``y = sum(x_i ** (alpha + 1)) / sum(x_i ** alpha)`` over each window (Wei et al., CVPR 2019,
    Eq. 1): the average at ``alpha = 0``, the maximum as ``alpha`` grows. Computed in float32 for
    float16 and bfloat16 input. Differentiable in ``x`` and ``alpha``, as often as wanted.

    Shape:
        ``x`` is [N, C, H, W] or [C, H, W]; ``alpha`` is [N, C, H_out, W_out] or without N, where
        ``H_out = floor((H + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1)``,
        with ``ceil`` under ``ceil_mode``, as for ``torch.nn.MaxPool2d``. The result has the shape
        of ``alpha`` and the dtype of ``x``.

    Args:
        x: Floating-point input. Negative values count as 0 unless ``signed``.
        alpha: Exponents >= 0, rounded to the dtype of ``x``; a number counts for all.
        kernel_size: Window height and width in pixels.
        stride: Step of the window; ``None`` is ``kernel_size``.
        padding: Positions added on each side that belong to no window and are never counted.
        dilation: Step between the elements of a window.
        ceil_mode: Round the output size up, keeping windows that overhang the input.
        signed: Shift each plane of a sample by its minimum where that is negative (Eq. 2). The
            minimum is a constant to every gradient; the paper does not say.

    Raises:
        ValueError: if a shape, dtype, device or window does not fit, saying what was expected.

    Example:
        >>> ppool2d(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[1.0]]]), (1, 2))
        tensor([[[2.5000]]])
    """
    if has_torch_function_variadic(x, alpha):
        y: Tensor = handle_torch_function(
            ppool2d, (x, alpha), x, alpha, kernel_size, stride, padding, dilation, ceil_mode,
            signed=signed,
        )  # fmt: skip
        return y
    w = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    if not isinstance(alpha, Tensor):
        if not alpha >= 0 or isinstance(alpha, bool):
            raise ValueError(f"alpha: expected a number from 0 up or a tensor, got {alpha!r}")
        alpha = torch.tensor(alpha, dtype=x.dtype, device=x.device)
    if alpha.dim() == 0:
        _operators.check_input(x)
        alpha = alpha.expand(*x.shape[:-2], *w.output_size(x.shape[-2], x.shape[-1]))
    rest = (w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode, signed)
    return _autograd.ppool2d(x, alpha, rest)
