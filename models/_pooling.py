"""The poolings a network can be built with, by name, and how a network asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ppool import PPool2d
from ppool.models.poolings import DPPool2d, GatedPool2d, LpPool2d
from ppool.window import Window

__all__ = ["PLACES", "Poolings", "list_poolings"]


@dataclass(frozen=True)
class _Place:
    """What a pooling may know of the place it is built for; see :class:`Poolings`."""

    channels: int
    window: Window
    signed: bool
    first: bool
    strided: bool
    ppool_options: Mapping[str, Any]


def _ppool(place: _Place) -> nn.Module:
    w = place.window
    options = {"signed": place.signed, **place.ppool_options}
    return PPool2d(
        place.channels, w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode, **options
    )


def _max(place: _Place) -> nn.Module:
    w = place.window
    return nn.MaxPool2d(w.kernel, w.stride, w.padding, w.dilation, ceil_mode=w.ceil_mode)


def _average(place: _Place) -> nn.Module:
    w = place.window
    # Padding is never counted, as for P-pooling at alpha = 0 (Proposition 1).
    return nn.AvgPool2d(w.kernel, w.stride, w.padding, w.ceil_mode, count_include_pad=False)


def _strided_conv(place: _Place) -> nn.Module:
    """Strided-C (Springenberg et al., 2015): no pooling, its stride moves into a convolution.

    Where the network names no convolution to take the stride, every stride-th element is kept:
    the same function of the input as striding the convolution before, at more cost.
    """
    return nn.Identity() if place.strided else nn.MaxPool2d(1, place.window.stride)


def _all_conv(place: _Place) -> nn.Module:
    """All-C (Springenberg et al., 2015): a new 3x3 convolution with the pooling's stride.

    3x3 as theirs, whose poolings were 3x3, also where ours is 2x2: the paper does not say.
    """
    conv = nn.Conv2d(place.channels, place.channels, 3, place.window.stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if place.first:
        return nn.Sequential(nn.ReLU(), conv)
    # A place with negative values has its ReLU later.
    return nn.Sequential(conv) if place.signed else nn.Sequential(conv, nn.ReLU(inplace=True))


_POOLINGS: dict[str, Callable[[_Place], nn.Module]] = {
    "all_conv": _all_conv,
    "average": _average,
    "dpp": lambda place: DPPool2d(place.channels, place.window),
    "gated": lambda place: GatedPool2d(place.window),
    "lp": lambda place: LpPool2d(place.window, signed=place.signed),
    "max": _max,
    "ppool": _ppool,
    "strided_conv": _strided_conv,
}


def list_poolings() -> list[str]:
    """Names accepted as ``pooling`` by :func:`ppool.models.create_model`."""
    return sorted(_POOLINGS)


PLACES = ("after_relu", "before_relu")
"""Names accepted as ``ppool_place``."""


class Poolings:
    """Builds the poolings of one network; networks know no pooling by name.

    Args:
        pooling: A name of :func:`list_poolings`, or ``{stage: name, ...}``.
        original: The pooling the published network has at each stage. P-pooling in place of an
            average starts at ``alpha = 0`` and may stay there, so that pretrained weights keep
            their meaning (Proposition 1).
        ppool_options: Keyword arguments of :class:`ppool.PPool2d`.
        place: One of :data:`PLACES`; see :func:`ppool.models.create_model`.

    Raises:
        ValueError: if a name is unknown or not that of a stage.
    """

    def __init__(
        self,
        pooling: str | Mapping[str, str],
        original: Mapping[str, str],
        ppool_options: Mapping[str, Any] | None = None,
        place: str = "after_relu",
    ) -> None:
        names = dict.fromkeys(original, pooling) if isinstance(pooling, str) else dict(pooling)
        if not names.keys() <= original.keys():
            raise ValueError(
                f"pooling: expected the stages {', '.join(original)}, got {dict(names)!r}"
            )
        for stage in original:
            if stage not in names:
                raise ValueError(f"pooling: expected a name for stage {stage!r}, got {names!r}")
            if names[stage] not in _POOLINGS:
                known = ", ".join(list_poolings())
                raise ValueError(f"pooling: expected one of {known}, got {names[stage]!r}")
        if place not in PLACES:
            raise ValueError(f"ppool_place: expected {' or '.join(PLACES)}, got {place!r}")
        self._names = names
        self._original = original
        self._ppool_options = dict(ppool_options or {})
        self.first = place == "before_relu"
        """Whether a pooling comes before the ReLU that the published network has before it."""

    def stride(self, stage: str, window: Window) -> int:
        """The stride that the convolutions beside a stage take over: the window's, if none pools.

        A network that asks for it builds its convolutions with it, and the stage without ``alone``.
        """
        return window.stride[0] if self._names[stage] == "strided_conv" else 1

    def __call__(
        self,
        stage: str,
        channels: int,
        window: Window,
        *,
        relu: bool = False,
        signed: bool = False,
        alone: bool = False,
    ) -> nn.Module:
        """The pooling layer of one stage.

        Args:
            stage: The path of the layer in its network, such as ``pool1``.
            channels: C of the input.
            window: Where to pool. ``strided_conv`` and ``all_conv`` take its stride alone.
            relu: Whether a ReLU stands directly before it, which the network applies after it
                where ``first`` says so.
            signed: Whether the input can be negative in any case.
            alone: Whether no convolution takes over the stride where nothing pools.
        """
        options = self._ppool_options
        if self._original[stage] == "average":
            options = options | {"alpha_init": 0.0, "alpha_min": 0.0}
        first = relu and self.first
        place = _Place(channels, window, signed or first, first, not alone, options)
        return _POOLINGS[self._names[stage]](place)
