"""The operators as PyTorch knows them: ``ppool::ppool2d``, ``ppool::unit`` and their gradients.

Each has kernels for the CPU and for CUDA where they are built, a formula for all else, and a fake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ppool import _formula, _gpu, _library
from ppool._formula import Parameters, Settings
from ppool._jobs import (
    DTYPES,
    BackwardJob,
    Branch,
    ForwardJob,
    Job,
    Pooling,
    UnitBackwardJob,
    UnitJob,
)
from ppool.window import Window

__all__ = [
    "check_alpha",
    "check_input",
    "check_unit",
    "pool",
    "pool_backward",
    "settings_of",
    "unit",
    "unit_backward",
]

_WINDOW = (
    "int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode, bool signed"
)
_PARAMETERS = "Tensor w_region, Tensor prelu_slope, Tensor w_point, Tensor b_point"
_BRANCH = (
    "float input_scale, float alpha_min, float alpha_max, "
    "bool detach_branch=True, float alpha_gradient_scale=1.0"
)


def settings_of(
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    signed: bool,
    input_scale: float = 1.0,
    alpha_min: float = 0.0,
    alpha_max: float = 0.0,
    detach_branch: bool = True,
    alpha_gradient_scale: float = 1.0,
) -> Settings:
    """The operators' arguments after their tensors, checked."""
    pairs = (tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation))
    branch = (input_scale, alpha_min, alpha_max)
    return _settings(pairs, ceil_mode, signed, branch, detach_branch, alpha_gradient_scale)


@lru_cache(maxsize=1024)
def _settings(
    pairs: tuple[tuple[int, ...], ...],
    ceil_mode: bool,
    signed: bool,
    branch: tuple[float, float, float],
    detach_branch: bool,
    alpha_gradient_scale: float,
) -> Settings:
    kernel_size, stride, padding, dilation = pairs
    window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
    return Settings(window, signed, Branch(*branch), detach_branch, alpha_gradient_scale)


# What is asked of tensors, before the address of any is taken.


_NAMES = {getattr(torch, name): name for name in DTYPES}


def _dtype(x: Tensor) -> str:
    return _NAMES.get(x.dtype) or str(x.dtype).removeprefix("torch.")


def check_input(x: Tensor, channels: int | None = None) -> None:
    """Make sure that ``x`` is [N, C, H, W] or [C, H, W] of a type that can be pooled.

    Raises:
        ValueError: if it is not, saying what was expected.
    """
    if x.dim() not in {3, 4} or (channels is not None and x.shape[-3] != channels):
        c = "C" if channels is None else channels
        raise ValueError(f"x: expected [N, {c}, H, W] or [{c}, H, W], got {list(x.shape)}")
    if _dtype(x) not in DTYPES:
        types = ", ".join(DTYPES)
        raise ValueError(f"x: expected a floating-point dtype of {types}, got {x.dtype}")
    if x.layout != torch.strided:
        raise ValueError(f"x: expected a dense tensor, got {x.layout}; call x.to_dense()")


def check_unit(x: Tensor, parameters: Parameters, settings: Settings) -> None:
    """Make sure that the parameters are those of a unit for ``x``.

    Raises:
        ValueError: if not, saying what was expected.
    """
    channels = parameters[0].shape[0] if parameters[0].dim() else 0
    check_input(x, channels)
    shapes = ((channels, 1, *settings.window.kernel), *[(channels,)] * 3)
    names = ("w_region", "prelu_slope", "w_point", "b_point")
    for name, parameter, shape in zip(names, parameters, shapes, strict=True):
        if parameter.shape != shape:
            raise ValueError(f"{name}: expected {list(shape)}, got {list(parameter.shape)}")
        if parameter.device != x.device:
            raise ValueError(f"x: expected on {parameter.device}, got on {x.device}")
        if not parameter.is_floating_point():
            raise ValueError(f"{name}: expected a floating-point dtype, got {parameter.dtype}")


def check_alpha(x: Tensor, alpha: Tensor, window: Window) -> None:
    """Make sure that there is an exponent for each window of ``x``.

    Raises:
        ValueError: if not, saying what was expected.
    """
    check_input(x)
    expected = (*x.shape[:-2], *window.output_size(x.shape[-2], x.shape[-1]))
    if alpha.shape != expected:
        raise ValueError(f"alpha: expected {list(expected)} for this x, got {list(alpha.shape)}")
    if alpha.device != x.device:
        raise ValueError(f"alpha: expected on {x.device} as x, got on {alpha.device}")
    if not alpha.is_floating_point():
        raise ValueError(f"alpha: expected a floating-point dtype, got {alpha.dtype}")


# Who computes.


def _gpu_kernels(x: Tensor) -> _gpu.Kernels | None:
    """The CUDA kernels, if they are built and have a form for this tensor."""
    kernels = _gpu.cuda_kernels()
    if kernels is None or _dtype(x) not in _gpu.DTYPES:
        return None
    return kernels if x.device.type == ("cpu" if kernels.emulated else "cuda") else None


def _runner(x: Tensor) -> Callable[[Job], None] | None:
    """What does jobs on the tensor's device; None where the formula has to."""
    kernels = _gpu_kernels(x)
    if kernels is not None:
        return partial(_run_on_gpu, kernels, x)
    if x.device.type == "cpu" and _library.runs_jobs():
        return lambda job: _library.run(job, torch.get_num_threads())
    return None


def _run_on_gpu(kernels: _gpu.Kernels, x: Tensor, job: Job) -> None:
    """On the stream that PyTorch uses on the tensor's GPU."""
    room = 0
    if isinstance(job, UnitBackwardJob):
        # Given back while the kernels run: later work on the stream comes after them.
        pooled = job.pool.window.output_size(x.shape[2], x.shape[3])
        scratch = x.new_empty((*x.shape[:2], *pooled), dtype=torch.float32)
        room = scratch.data_ptr()
    if x.device.type != "cuda":
        kernels.run(job, room=room)
        return
    elsewhere = x.device.index != torch.cuda.current_device()
    with torch.cuda.device(x.device) if elsewhere else nullcontext():
        kernels.run(job, int(torch.cuda.current_stream(x.device).cuda_stream), room=room)


def _layout(x: Tensor) -> torch.memory_format:
    """How the unit's tensors lie: as x does, where there are kernels for it."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last and x.device.type == "cpu" else torch.contiguous_format


def _pooling(x: Tensor, settings: Settings, *, last: bool = False) -> Pooling:
    return Pooling(tuple(x.shape), settings.window, settings.signed, _dtype(x), last)


def _addresses(*tensors: Tensor) -> Iterator[int]:
    return (tensor.data_ptr() for tensor in tensors)


@custom_op(
    "ppool::ppool2d", mutates_args=(), schema=f"(Tensor x, Tensor alpha, {_WINDOW}) -> Tensor"
)
def pool(x: Tensor, alpha: Tensor, *arguments: Any) -> Tensor:
    settings = settings_of(*arguments)
    check_alpha(x, alpha, settings.window)
    run = _runner(x)
    x, alpha = x.contiguous(), alpha.to(x.dtype).contiguous()
    if run is None:
        return _formula.forward(x, alpha, settings.window, settings.signed)
    y = torch.empty_like(alpha)
    run(ForwardJob(_pooling(x, settings), *_addresses(x, alpha, y)))
    return y


def _run_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, window: Window, signed: bool
) -> tuple[Tensor, Tensor]:
    run = _runner(x)
    if run is None:
        dx, dalpha = _formula.backward(grad, x, alpha, window, signed)
        return dx.contiguous(), dalpha.contiguous()
    grad, x = grad.to(x.dtype).contiguous(), x.contiguous()
    exponents = alpha.to(x.dtype).contiguous()
    dx, dalpha = torch.empty_like(x), torch.empty_like(exponents)
    pooling = Pooling(tuple(x.shape), window, signed, _dtype(x))
    run(BackwardJob(pooling, *_addresses(grad, x, exponents, dx, dalpha)))
    return dx, dalpha.to(alpha.dtype)


@custom_op(
    "ppool::ppool2d_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, Tensor alpha, {_WINDOW}) -> (Tensor, Tensor)",
)
def pool_backward(grad: Tensor, x: Tensor, alpha: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    settings = settings_of(*arguments)
    check_alpha(x, alpha, settings.window)
    return _run_backward(grad, x, alpha, settings.window, settings.signed)


@custom_op(
    "ppool::unit",
    mutates_args=(),
    schema=f"(Tensor x, {_PARAMETERS}, {_WINDOW}, {_BRANCH}) -> Tensor",
)
def unit(x: Tensor, *arguments: Any) -> Tensor:
    parameters, settings = arguments[:4], settings_of(*arguments[4:])
    check_unit(x, parameters, settings)
    layout, run = _layout(x), _runner(x)
    if run is None:
        return _formula.unit(x, parameters, settings).contiguous(memory_format=layout)
    last = layout == torch.channels_last and _gpu_kernels(x) is None
    inner = torch.channels_last if last else torch.contiguous_format
    x = x.contiguous(memory_format=inner)
    inputs = [x, *(parameter.to(x.dtype).contiguous() for parameter in parameters)]
    y = _empty_pooled(x, settings, inner)
    pooling = _pooling(x, settings, last=last)
    run(UnitJob(pooling, settings.branch, *_addresses(*inputs, y)))
    return y.contiguous(memory_format=layout)


def _empty_pooled(x: Tensor, settings: Settings, layout: torch.memory_format) -> Tensor:
    shape = (*x.shape[:2], *settings.window.output_size(x.shape[2], x.shape[3]))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


@custom_op(
    "ppool::unit_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, {_PARAMETERS}, {_WINDOW}, {_BRANCH}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def unit_backward(grad: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    parameters, settings = arguments[:4], settings_of(*arguments[4:])
    check_unit(x, parameters, settings)
    layout, run = _layout(x), _runner(x)
    if run is None or not settings.detach_branch:
        dx, *gradients = _formula.unit_backward(grad, x, parameters, settings, _run_backward)
        return dx.contiguous(memory_format=layout), *(g.contiguous() for g in gradients)
    last = layout == torch.channels_last and _gpu_kernels(x) is None
    inner = torch.channels_last if last else torch.contiguous_format
    grad, x = (t.to(x.dtype).contiguous(memory_format=inner) for t in (grad, x))
    inputs = [grad, x, *(parameter.to(x.dtype).contiguous() for parameter in parameters)]
    dx = torch.empty_like(x)
    taps = settings.window.kernel[0] * settings.window.kernel[1]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    parts = torch.empty((*x.shape[:2], taps + 3), dtype=wide, device=x.device)
    pooling = _pooling(x, settings, last=last)
    addresses = _addresses(*inputs, dx, parts)
    run(UnitBackwardJob(pooling, settings.branch, settings.alpha_gradient_scale, *addresses))
    sums = torch.split(parts.sum(0), [taps, 1, 1, 1], dim=1)
    return dx.contiguous(memory_format=layout), *(
        gradient.reshape(parameter.shape).to(parameter.dtype, copy=True)
        for gradient, parameter in zip(sums, parameters, strict=True)
    )


@pool.register_fake
def _(x: Tensor, alpha: Tensor, *arguments: Any) -> Tensor:
    check_alpha(x, alpha, settings_of(*arguments).window)
    return x.new_empty(alpha.shape)


@pool_backward.register_fake
def _(grad: Tensor, x: Tensor, alpha: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), alpha.new_empty(alpha.shape)


@unit.register_fake
def _(x: Tensor, *arguments: Any) -> Tensor:
    settings = settings_of(*arguments[4:])
    check_unit(x, arguments[:4], settings)
    return _empty_pooled(x, settings, _layout(x))


@unit_backward.register_fake
def _(grad: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    layout = _layout(x)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    return dx, *(parameter.new_empty(parameter.shape) for parameter in arguments[:4])
