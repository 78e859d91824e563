"""``replace_pooling``: swap the pooling layers of any PyTorch model for P-pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ppool.module import PPool2d, evaluating
from ppool.window import Window

__all__ = ["Replacements", "replace_pooling"]

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
OTHER_POOLS = (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d)
FUNCTIONAL_POOLS = {
    F.max_pool2d: "max_pool2d",
    F.max_pool2d_with_indices: "max_pool2d",
    torch.max_pool2d: "max_pool2d",
    F.avg_pool2d: "avg_pool2d",
    F.lp_pool2d: "lp_pool2d",
    F.fractional_max_pool2d: "fractional_max_pool2d",
    F.adaptive_max_pool2d: "adaptive_max_pool2d",
    F.adaptive_avg_pool2d: "adaptive_avg_pool2d",
}


@dataclass(frozen=True)
class Replacements:
    """What :func:`replace_pooling` did: replaced layers and what was left alone, with reasons."""

    replaced: dict[str, PPool2d] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"replaced  {name}: PPool2d({pool.extra_repr()})"
            + (f" ({self.notes[name]})" if name in self.notes else "")
            for name, pool in self.replaced.items()
        ]
        lines += [f"kept      {name}: {reason}" for name, reason in self.kept.items()]
        return "\n".join(lines) or "the model calls no pooling layer"


@dataclass
class _Use:
    """How one pooling layer was called in the example run."""

    device: torch.device
    channels: set[int] = field(default_factory=set)
    negative: bool = False


class _Watch(TorchFunctionMode):
    """Sees how a model calls its pooling layers, and where it pools by a function instead."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: dict[nn.Module, _Use] = {}
        self.functions: set[str] = set()
        self._running: list[tuple[str, nn.Module]] = []

    def enter(
        self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._running.append((name, layer))
        if isinstance(layer, (*POOLS, *OTHER_POOLS)):
            x: Tensor = args[0] if args else kwargs["input"]
            use = self.uses.setdefault(layer, _Use(x.device))
            use.channels.add(x.shape[-3])
            use.negative |= bool((x < 0).any())

    def leave(self, *_: Any) -> None:
        self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name, layer = self._running[-1] if self._running else ("", None)
        if func in FUNCTIONAL_POOLS and not isinstance(layer, (*POOLS, *OTHER_POOLS)):
            place = name or "the model itself"
            self.functions.add(f"torch.nn.functional.{FUNCTIONAL_POOLS[func]} in {place}")
        return func(*args, **(kwargs or {}))


def _observe(module: nn.Module, example: Any) -> _Watch:
    """Run the model once on the example and watch its pooling layers."""
    watch = _Watch()
    handles = []
    for name, layer in module.named_modules():
        handles += [
            layer.register_forward_pre_hook(
                lambda layer, args, kwargs, name=name: watch.enter(name, layer, args, kwargs),
                with_kwargs=True,
            ),
            layer.register_forward_hook(watch.leave),
        ]
    try:
        with evaluating(module), torch.no_grad(), watch:
            if isinstance(example, Mapping):
                module(**example)
            elif isinstance(example, tuple):
                module(*example)
            else:
                module(example)
    finally:
        for handle in handles:
            handle.remove()
    return watch


def _why_kept(  # noqa: PLR0911 (a reason each)
    name: str, layer: nn.Module, use: _Use | None
) -> str | None:
    """The reason to leave a layer alone, or None to replace it."""
    if not name:
        return "it is itself the model; put it into a torch.nn.Sequential"
    if use is None:
        return "the example run never called it"
    if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
        return "it returns indices, which P-pooling has none of"
    if isinstance(layer, nn.AvgPool2d) and layer.divisor_override:
        return "it divides by divisor_override"
    if not isinstance(layer, POOLS):
        return f"{type(layer).__name__} has no fixed window of maxima or averages"
    if type(layer).forward not in {pool.forward for pool in POOLS}:
        return f"{type(layer).__name__} pools in a way of its own"
    if len(use.channels) > 1:
        counts = " and ".join(map(str, sorted(use.channels)))
        return f"it is shared by inputs of {counts} channels; give each its own layer"
    return None


def window_of(layer: nn.MaxPool2d | nn.AvgPool2d) -> Window:
    """The window that one of torch's layers pools."""
    return Window.of(
        layer.kernel_size,
        layer.stride,
        layer.padding,
        getattr(layer, "dilation", 1),
        layer.ceil_mode,
    )


def _ppool_for(layer: nn.MaxPool2d | nn.AvgPool2d, use: _Use, options: dict[str, Any]) -> PPool2d:
    if isinstance(layer, nn.AvgPool2d):
        # Only alpha = 0 is average pooling over the zeros that ReLU leaves (Proposition 1).
        options = {"alpha_init": 0.0, "alpha_min": 0.0} | options
    window = window_of(layer)
    return PPool2d(
        next(iter(use.channels)),
        window.kernel,
        window.stride,
        window.padding,
        window.dilation,
        window.ceil_mode,
        **({"signed": use.negative} | options),
    )


def replace_pooling(
    module: nn.Module,
    example: Tensor | tuple[Any, ...] | Mapping[str, Any],
    **options: Any,
) -> Replacements:
    """Swap every max and average pooling layer of ``module`` for :class:`ppool.PPool2d`, in place.

    The model is run once on ``example`` (evaluation mode, no gradient) to learn how many channels
    reach each layer and whether negative values do (then ``signed=True``). A max pooling starts at
    ``alpha_init = 20``, near the maximum; an average pooling at 0, exactly the average. Every
    module is left in the mode, training or evaluation, that it was in.

    Args:
        module: Any model that contains, but is not itself, pooling layers.
        example: An input the model accepts, such as ``torch.zeros(1, 3, 224, 224)``; a real image
            shows best where negative values occur. A tuple holds several inputs, a mapping those
            that are passed by keyword.
        **options: Keyword arguments of :class:`ppool.PPool2d` to use for every layer;
            ``**PPool2d.SOFT`` for a network that is then fine-tuned on photographs.

    Returns:
        What was done. Print it: every layer left alone is named with the reason.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
        >>> report = replace_pooling(model, torch.zeros(1, 3, 16, 16))
        >>> list(report.replaced)
        ['2']
    """
    watch = _observe(module, example)
    report = Replacements()
    instead: dict[nn.Module, PPool2d] = {}
    dtypes = (p.dtype for p in module.parameters() if p.is_floating_point())
    dtype = next(dtypes, torch.get_default_dtype())
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(layer, (*POOLS, *OTHER_POOLS)):
            continue
        reason = _why_kept(name, layer, watch.uses.get(layer))
        if reason is not None:
            report.kept[name or type(layer).__name__] = reason
            continue
        assert isinstance(layer, POOLS)  # noqa: S101 (for the type checker; _why_kept saw to it)
        if layer not in instead:
            use = watch.uses[layer]
            pool = _ppool_for(layer, use, options)
            instead[layer] = pool.to(use.device, dtype).train(layer.training)
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, instead[layer])
        report.replaced[name] = instead[layer]
        counts_padding = isinstance(layer, nn.AvgPool2d) and layer.count_include_pad
        if counts_padding and layer.padding not in {0, (0, 0)}:
            report.notes[name] = "borders change: P-pooling never counts padding"
    reason = "called as a function, not a layer; give it a layer of its own"
    report.kept.update(dict.fromkeys(sorted(watch.functions), reason))
    return report
