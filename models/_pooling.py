"""The poolings a network can be built with, by name, and how a network asks for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ppool import PPool2d
from ppool.models.poolings import DPPool2d, GatedPool2d, LpPool2d
from ppool.window import Window

__all__ = ["Poolings", "list_poolings"]


@dataclass(frozen=True)
class _Place:
    """What a pooling may know of the place it is built for; see :class:`Poolings`."""

    channels: int
    window: Window
    signed: bool
    convs: Sequence[nn.Conv2d]
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
    rows, columns = place.window.stride
    if not place.convs:
        return nn.MaxPool2d(1, (rows, columns))
    for conv in place.convs:
        conv.stride = (conv.stride[0] * rows, conv.stride[1] * columns)
    return nn.Identity()


def _all_conv(place: _Place) -> nn.Module:
    """All-C (Springenberg et al., 2015): a new 3x3 convolution with the pooling's stride."""
    conv = nn.Conv2d(place.channels, place.channels, 3, place.window.stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
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


class Poolings:
    """Builds the poolings of one network; networks know no pooling by name.

    Args:
        pooling: A name of :func:`list_poolings`, or ``{stage: name, ...}``.
        original: The pooling the published network has at each stage. P-pooling in place of an
            average starts at ``alpha = 0`` and may stay there, so that pretrained weights keep
            their meaning (Proposition 1).
        ppool_options: Keyword arguments of :class:`ppool.PPool2d` this network starts with.
    """

    def __init__(
        self,
        pooling: str | Mapping[str, str],
        original: Mapping[str, str],
        ppool_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._pooling = pooling
        self._original = original
        self._ppool_options = dict(ppool_options or {})

    def __call__(
        self,
        stage: str,
        channels: int,
        window: Window,
        *,
        signed: bool = False,
        convs: Sequence[nn.Conv2d] = (),
    ) -> nn.Module:
        """The pooling layer of one stage.

        Args:
            stage: The path of the layer in its network, such as ``pool1``.
            channels: C of the input.
            window: Where to pool. ``strided_conv`` and ``all_conv`` take its stride alone.
            signed: Whether the input can be negative (no ReLU before the pooling).
            convs: The convolutions that take over the stride when nothing pools.

        Raises:
            ValueError: if the name is unknown or the stage has none.
        """
        if not isinstance(self._pooling, str) and stage not in self._pooling:
            raise ValueError(
                f"pooling: expected a name for stage {stage!r}, got {dict(self._pooling)!r}"
            )
        name = self._pooling if isinstance(self._pooling, str) else self._pooling[stage]
        if name not in _POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(list_poolings())}, got {name!r}")
        options = self._ppool_options
        if self._original.get(stage) == "average":
            options = options | {"alpha_init": 0.0, "alpha_min": 0.0}
        return _POOLINGS[name](_Place(channels, window, signed, convs, options))
