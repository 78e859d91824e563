"""``ppool2d`` for PyTorch: one registered operator, native where kernels are built for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool import _composite, _cuda, _fused, _library
from ppool.window import Window

__all__ = ["alpha_map", "ppool2d"]


def ppool2d(
    x: Tensor,
    alpha: Tensor,
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
    float16 and bfloat16 input. Differentiable once in ``x`` and ``alpha``.

    Shape:
        ``x`` is [N, C, H, W] or [C, H, W]; ``alpha`` is [N, C, H_out, W_out] or without N, where
        ``H_out = floor((H + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1)``,
        with ``ceil`` under ``ceil_mode``, as for ``torch.nn.MaxPool2d``. The result has the shape
        of ``alpha`` and the dtype of ``x``.

    Args:
        x: Floating-point input. Negative values count as 0 unless ``signed``.
        alpha: Exponents >= 0.
        kernel_size: Window height and width in pixels.
        stride: Step of the window; ``None`` is ``kernel_size``.
        padding: Positions added on each side that belong to no window and are never counted.
        dilation: Step between the elements of a window.
        ceil_mode: Round the output size up, keeping windows that overhang the input.
        signed: Shift each plane of a sample by its minimum where that is negative (Eq. 2).

    Raises:
        ValueError: if a shape, dtype, device or window does not fit, saying what was expected.

    Example:
        >>> ppool2d(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[1.0]]]), (1, 2))
        tensor([[[2.5000]]])
    """
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    if x.dim() not in {3, 4}:
        raise ValueError(f"x: expected [N, C, H, W] or [C, H, W], got {list(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x: expected a floating-point dtype, got {x.dtype}")
    expected = (*x.shape[:-2], *window.output_size(x.shape[-2], x.shape[-1]))
    if alpha.shape != expected:
        raise ValueError(f"alpha: expected {list(expected)} for this x, got {list(alpha.shape)}")
    if alpha.device != x.device:
        raise ValueError(f"alpha: expected on {x.device} as x, got on {alpha.device}")
    batched = x.dim() == 4
    y: Tensor = torch.ops.ppool.ppool2d(
        x if batched else x.unsqueeze(0),
        alpha.to(x.dtype) if batched else alpha.to(x.dtype).unsqueeze(0),
        *_arguments(window),
        signed,
    )
    return y if batched else y.squeeze(0)


def alpha_map(
    x: Tensor,
    w_region: Tensor,
    prelu_slope: Tensor,
    w_point: Tensor,
    b_point: Tensor,
    window: Window,
    *,
    input_scale: float,
    alpha_min: float,
    alpha_max: float,
) -> Tensor:
    """The exponents that the side branch of Figure 1 predicts (Eq. 5).

    Shape:
        ``x`` is [N, C, H, W], ``w_region`` [C, 1, kh, kw], the other parameters [C]; the result
        is [N, C, H_out, W_out].
    """
    bottom, right = window.end_padding(x.shape[-2], x.shape[-1])
    top, left = window.padding
    # The convolution pads alike on all sides; ceil_mode and odd sizes need more at the end only.
    extra = (max(right - left, 0), max(bottom - top, 0))
    if any(extra):
        x = F.pad(x, (0, extra[0], 0, extra[1]))
    h = F.conv2d(
        x * input_scale,
        w_region,
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=w_region.shape[0],
    )
    h = F.prelu(h, prelu_slope)
    h = h * w_point[:, None, None] + b_point[:, None, None]
    return h.clamp(alpha_min, alpha_max)


def _arguments(window: Window) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """A window as the operators' arguments take it."""
    kernel, stride = list(window.kernel), list(window.stride)
    return kernel, stride, list(window.padding), list(window.dilation), window.ceil_mode


def _runs_native(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in _fused.DTYPES
        and _library.custom_ops_library() is not None
    )


def _gpu_kernels(x: Tensor) -> _cuda.Kernels | None:
    """The CUDA kernels, if they are built and have a form for this tensor."""
    kernels = _cuda.cuda_kernels()
    if kernels is None or _fused.DTYPES.get(x.dtype) not in _cuda.DTYPES:
        return None
    return kernels if x.device.type == ("cpu" if kernels.emulated else "cuda") else None


@contextmanager
def _stream(x: Tensor) -> Iterator[int]:
    """Make the tensor's GPU current; the value is the address of the stream PyTorch uses there."""
    if x.device.type != "cuda":
        yield 0
        return
    with torch.cuda.device(x.device):
        yield int(torch.cuda.current_stream(x.device).cuda_stream)


@torch.library.custom_op("ppool::ppool2d", mutates_args=())
def _ppool2d(
    x: Tensor,
    alpha: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    signed: bool,
) -> Tensor:
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    kernels = _gpu_kernels(x)
    if kernels is None and not _runs_native(x):
        return _composite.forward(x, alpha, window, signed).contiguous()
    x, alpha = x.contiguous(), alpha.contiguous()
    y = torch.empty_like(alpha)
    pooling = _fused.pooling(x, window, signed)
    addresses = (tensor.data_ptr() for tensor in (x, alpha, y))
    if kernels is None:
        _library.ppool2d_forward(pooling, *addresses, threads=torch.get_num_threads())
        return y
    with _stream(x) as stream:
        kernels.forward(pooling, *addresses, stream=stream)
    return y


@torch.library.custom_op("ppool::ppool2d_backward", mutates_args=())
def _ppool2d_backward(
    grad: Tensor,
    x: Tensor,
    alpha: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    signed: bool,
) -> tuple[Tensor, Tensor]:
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    kernels = _gpu_kernels(x)
    if kernels is None and not _runs_native(x):
        dx, dalpha = _composite.backward(grad, x, alpha, window, signed)
        return dx.contiguous(), dalpha.contiguous()
    grad, x, alpha = grad.contiguous(), x.contiguous(), alpha.contiguous()
    dx, dalpha = torch.empty_like(x), torch.empty_like(alpha)
    pooling = _fused.pooling(x, window, signed)
    addresses = (tensor.data_ptr() for tensor in (grad, x, alpha, dx, dalpha))
    if kernels is None:
        _library.ppool2d_backward(pooling, *addresses, threads=torch.get_num_threads())
        return dx, dalpha
    with _stream(x) as stream:
        kernels.backward(pooling, *addresses, stream=stream)
    return dx, dalpha


@_ppool2d.register_fake
def _(x: Tensor, alpha: Tensor, *_: object) -> Tensor:
    return alpha.new_empty(alpha.shape)


@_ppool2d_backward.register_fake
def _(grad: Tensor, x: Tensor, alpha: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), alpha.new_empty(alpha.shape)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:  # type: ignore[type-arg]
    x, alpha, *ctx.arguments = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(x, alpha)


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, alpha = ctx.saved_tensors  # type: ignore[attr-defined]
    dx, dalpha = torch.ops.ppool.ppool2d_backward(grad, x, alpha, *ctx.arguments)  # type: ignore[attr-defined]
    return dx, dalpha, None, None, None, None, None, None


_ppool2d.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("ppool::unit", mutates_args=())
def _unit(
    x: Tensor,
    w_region: Tensor,
    prelu_slope: Tensor,
    w_point: Tensor,
    b_point: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    signed: bool,
    input_scale: float,
    alpha_min: float,
    alpha_max: float,
) -> Tensor:
    """Figure 1 as one inference operator, which the exporter turns into one ``PPoolUnit`` node."""
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    parameters = (w_region, prelu_slope, w_point, b_point)
    if kernels := _gpu_kernels(x):
        x = x.contiguous()
        inputs = [x, *(tensor.to(x.dtype).contiguous() for tensor in parameters)]
        y = x.new_empty((*x.shape[:2], *window.output_size(x.shape[2], x.shape[3])))
        with _stream(x) as stream:
            kernels.unit(
                _fused.pooling(x, window, signed),
                _library.Branch(input_scale, alpha_min, alpha_max),
                *(tensor.data_ptr() for tensor in (*inputs, y)),
                0,
                stream=stream,
            )
        return y
    alpha = alpha_map(
        x,
        *parameters,
        window,
        input_scale=input_scale,
        alpha_min=alpha_min,
        alpha_max=alpha_max,
    )
    return ppool2d(x, alpha, *_arguments(window), signed=signed)


@_unit.register_fake
def _(
    x: Tensor,
    w_region: Tensor,
    prelu_slope: Tensor,
    w_point: Tensor,
    b_point: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    *_: object,
) -> Tensor:
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    return x.new_empty((*x.shape[:2], *window.output_size(x.shape[2], x.shape[3])))
