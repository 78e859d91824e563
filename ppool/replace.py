"""``replace_pooling``: swap the pooling layers of any PyTorch model for P-pooling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ppool.module import PPool2d
from ppool.window import Window

__all__ = ["Replacements", "replace_pooling"]

Pool = nn.MaxPool2d | nn.AvgPool2d
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
OTHER_POOLS = (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d)
FUNCTIONAL_POOLS = {F.max_pool2d, F.avg_pool2d, torch.max_pool2d}


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

    channels: set[int] = field(default_factory=set)
    negative: bool = False


class _FunctionalPools(TorchFunctionMode):
    """Names the pooling functions a model calls outside any pooling layer."""

    def __init__(self) -> None:
        self.inside_layer = False
        self.called: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in FUNCTIONAL_POOLS and not self.inside_layer:
            self.called.add(f"torch.nn.functional.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _observe(module: nn.Module, example: Tensor) -> tuple[dict[nn.Module, _Use], set[str]]:
    """Run the model once on the example and watch its pooling layers."""
    uses: dict[nn.Module, _Use] = defaultdict(_Use)
    functional = _FunctionalPools()

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        functional.inside_layer = True
        uses[layer].channels.add(inputs[0].shape[-3])
        uses[layer].negative |= bool((inputs[0] < 0).any())

    def after(*_: object) -> None:
        functional.inside_layer = False

    handles = []
    for layer in module.modules():
        if isinstance(layer, (*POOLS, *OTHER_POOLS)):
            handles.append(layer.register_forward_pre_hook(before))
            handles.append(layer.register_forward_hook(after))
    was_training = module.training
    try:
        with torch.no_grad(), functional:
            module.eval()(example)
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return uses, functional.called


def _why_kept(layer: nn.Module, use: _Use | None) -> str | None:
    """The reason to leave a layer alone, or None to replace it."""
    if use is None:
        return "the example run never called it"
    if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
        return "it returns indices, which P-pooling has none of"
    if isinstance(layer, nn.AvgPool2d) and layer.divisor_override:
        return "it divides by divisor_override"
    if not isinstance(layer, POOLS):
        return f"{type(layer).__name__} has no fixed window of maxima or averages"
    if len(use.channels) > 1:
        counts = " and ".join(map(str, sorted(use.channels)))
        return f"it is shared by inputs of {counts} channels; give each its own layer"
    return None


def _ppool_for(layer: Pool, use: _Use, options: dict[str, Any]) -> PPool2d:
    if isinstance(layer, nn.AvgPool2d):
        # Only alpha = 0 is average pooling over the zeros that ReLU leaves (Proposition 1).
        options = {"alpha_init": 0.0, "alpha_min": 0.0} | options
    window = Window.of(
        layer.kernel_size,
        layer.stride,
        layer.padding,
        getattr(layer, "dilation", 1),
        layer.ceil_mode,
    )
    return PPool2d(
        next(iter(use.channels)),
        window.kernel,
        window.stride,
        window.padding,
        window.dilation,
        window.ceil_mode,
        **({"signed": use.negative} | options),
    )


def replace_pooling(module: nn.Module, example: Tensor, **options: Any) -> Replacements:
    """Swap every max and average pooling layer of ``module`` for :class:`ppool.PPool2d`, in place.

    The model is run once on ``example`` (evaluation mode, no gradient) to learn how many channels
    reach each layer and whether negative values do (then ``signed=True``). A max pooling starts at
    ``alpha_init = 20``, near the maximum; an average pooling at 0, exactly the average.

    Args:
        module: Any model that contains, but is not itself, pooling layers.
        example: An input the model accepts, such as ``torch.zeros(1, 3, 224, 224)``; a real image
            shows best where negative values occur.
        **options: Keyword arguments of :class:`ppool.PPool2d` to use for every layer.

    Returns:
        What was done. Print it: every layer left alone is named with the reason.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
        >>> report = replace_pooling(model, torch.zeros(1, 3, 16, 16))
        >>> list(report.replaced)
        ['2']
    """
    uses, functional = _observe(module, example)
    report = Replacements()
    instead: dict[nn.Module, PPool2d] = {}
    for name, layer in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(layer, (*POOLS, *OTHER_POOLS)) or not name:
            continue
        reason = _why_kept(layer, uses.get(layer))
        if reason is not None:
            report.kept[name] = reason
            continue
        assert isinstance(layer, POOLS)  # noqa: S101 (for the type checker; _why_kept saw to it)
        if layer not in instead:
            parameter = next(module.parameters(), example)
            pool = _ppool_for(layer, uses[layer], options)
            instead[layer] = pool.to(parameter.device, parameter.dtype).train(layer.training)
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, instead[layer])
        report.replaced[name] = instead[layer]
        if isinstance(layer, nn.AvgPool2d) and layer.count_include_pad and layer.padding != 0:
            report.notes[name] = "borders change: P-pooling never counts padding"
    report.kept.update(dict.fromkeys(sorted(functional), "called as a function, not a layer"))
    return report
