"""How PyTorch differentiates the operators, to any order and in either mode, and vmaps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ppool import _formula, _operators
from ppool._formula import Parameters
from ppool._operators import settings_of

__all__ = ["ppool2d", "unit"]


@dataclass(frozen=True)
class _Operator:
    """An operator, that of its gradients, and the same gradients as a formula.

    ``channels`` is the axis of channels of each tensor it takes.
    """

    call: CustomOpDef
    backward: CustomOpDef
    formula: Callable[..., tuple[Tensor, ...]]
    channels: tuple[int, ...]


def _ppool2d_formula(grad: Tensor, x: Tensor, alpha: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    settings = settings_of(*rest)
    return _formula.backward(grad, x, alpha, settings.window, settings.signed)


def _unit_formula(grad: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return _formula.unit_backward(grad, x, arguments[:4], settings_of(*arguments[4:]))


_PPOOL2D = _Operator(_operators.pool, _operators.pool_backward, _ppool2d_formula, (1, 1))
_UNIT = _Operator(_operators.unit, _operators.unit_backward, _unit_formula, (1, 0, 0, 0, 0))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    ctx.rest = inputs[len(tensors) :]
    ctx.save_for_backward(*tensors)


def _register_gradients(operator: _Operator) -> None:
    def once(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = operator.backward(grad, *ctx.saved_tensors, *ctx.rest)
        return *gradients, *[None] * len(ctx.rest)

    def again(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pull = torch.func.vjp(lambda *t: operator.formula(*t, *ctx.rest), *ctx.saved_tensors)[1]
        return *pull(grads), *[None] * len(ctx.rest)

    operator.call.register_autograd(once, setup_context=_remember)
    operator.backward.register_autograd(again, setup_context=_remember)


def _register_vmap(call: CustomOpDef, channels: Sequence[int], results: Sequence[int]) -> None:
    """Take the batch for more channels: no channel knows of another."""

    def rule(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        size, count = info.batch_size, len(channels)
        folded = []
        for tensor, dim, axis in zip(arguments[:count], dims[:count], channels, strict=True):
            if dim is None:
                moved = tensor.unsqueeze(axis).expand(
                    *tensor.shape[:axis], size, *tensor.shape[axis:]
                )
            else:
                moved = tensor.movedim(dim, axis)
            folded.append(moved.flatten(axis, axis + 1))
        found = call(*folded, *arguments[count:])
        pairs = zip([found] if isinstance(found, Tensor) else found, results, strict=True)
        unfolded = tuple(
            t.reshape(*t.shape[:axis], size, -1, *t.shape[axis + 1 :]) for t, axis in pairs
        )
        return (unfolded[0], results[0]) if len(results) == 1 else (unfolded, tuple(results))

    call.register_vmap(rule)


for _each in (_PPOOL2D, _UNIT):
    _register_gradients(_each)
    _register_vmap(_each.call, _each.channels, (1,))
    _register_vmap(_each.backward, (1, *_each.channels), _each.channels)


class _Transformable(torch.autograd.Function):
    """An operator under torch.func or forward-mode differentiation.

    Those pass over what is registered, and a tangent would silently be zero.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(operator: _Operator, rest: tuple[Any, ...], *tensors: Tensor) -> Tensor:
        y: Tensor = operator.call(*tensors, *rest)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operator, ctx.rest, *tensors = inputs
        ctx.shape, ctx.dtype = output.shape, output.dtype
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.operator.formula(grad, *ctx.saved_tensors, *ctx.rest)

    @staticmethod
    def jvp(ctx: Any, _operator: None, _rest: None, *tangents: Tensor | None) -> Tensor:
        # The gradients are linear in that of y, and their transpose is the tangent.
        tensors = ctx.saved_tensors
        given = tuple(
            torch.zeros_like(tensor) if tangent is None else tangent
            for tensor, tangent in zip(tensors, tangents, strict=True)
        )
        zeros = tensors[0].new_zeros(ctx.shape, dtype=ctx.dtype)
        formula, rest = ctx.operator.formula, ctx.rest
        pull = torch.func.vjp(lambda grad: formula(grad, *tensors, *rest), zeros)[1]
        tangent: Tensor = pull(given)[0]
        return tangent


def _apply(operator: _Operator, tensors: tuple[Tensor, ...], rest: tuple[Any, ...]) -> Tensor:
    y: Tensor
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        y = _Transformable.apply(operator, rest, *tensors)  # type: ignore[no-untyped-call]
    else:
        y = operator.call(*tensors, *rest)
    return y


def ppool2d(x: Tensor, alpha: Tensor, rest: tuple[Any, ...]) -> Tensor:
    """``ppool::ppool2d`` on [N, C, H, W] or [C, H, W]; ``rest`` are its other arguments."""
    if x.dim() == 4:
        return _apply(_PPOOL2D, (x, alpha), rest)
    _operators.check_alpha(x, alpha, settings_of(*rest).window)
    return _apply(_PPOOL2D, (x.unsqueeze(0), alpha.unsqueeze(0)), rest).squeeze(0)


def unit(x: Tensor, parameters: Parameters, rest: tuple[Any, ...]) -> Tensor:
    """``ppool::unit`` on [N, C, H, W] or [C, H, W]; ``rest`` are its other arguments."""
    if has_torch_function_variadic(x, *parameters):
        y: Tensor = handle_torch_function(unit, (x, *parameters), x, parameters, rest)
        return y
    if x.is_quantized:
        # A pooled value lies between the elements, so their scale fits it as well.
        pooled = unit(x.dequantize(), parameters, rest)
        return torch.quantize_per_tensor(pooled, x.q_scale(), x.q_zero_point(), x.dtype)
    if x.dim() == 4:
        return _apply(_UNIT, (x, *parameters), rest)
    _operators.check_unit(x, parameters, settings_of(*rest))
    return _apply(_UNIT, (x.unsqueeze(0), *parameters), rest).squeeze(0)
