"""The poolings a network can be built with, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ppool import PPool2d

__all__ = ["PoolFactory", "list_poolings", "pool_factory"]

# (channels, kernel_size, stride) -> layer; padding is 0.
PoolFactory = Callable[[int, int, int], nn.Module]


def _max(channels: int, kernel_size: int, stride: int) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride)


def _average(channels: int, kernel_size: int, stride: int) -> nn.Module:
    return nn.AvgPool2d(kernel_size, stride)


_POOLINGS: dict[str, Callable[..., nn.Module]] = {
    "average": _average,
    "max": _max,
    "ppool": PPool2d,
}


def list_poolings() -> list[str]:
    """Names accepted as ``pooling`` by :func:`models.create_model`."""
    return sorted(_POOLINGS)


def pool_factory(
    pooling: str | Mapping[str, str], stage: str, ppool_options: Mapping[str, Any]
) -> PoolFactory:
    """The factory for one stage: one name for all stages, or a name for each.

    Args:
        pooling: A name of :func:`list_poolings`, or ``{"pool1": name, ...}``.
        stage: The stage's name, such as ``pool1``.
        ppool_options: Keyword arguments of :class:`ppool.PPool2d` this network starts with.

    Raises:
        ValueError: if the name is unknown or the stage is missing.
    """
    if not isinstance(pooling, str) and stage not in pooling:
        raise ValueError(f"pooling: expected a name for stage {stage!r}, got {dict(pooling)!r}")
    name = pooling if isinstance(pooling, str) else pooling[stage]
    if name not in _POOLINGS:
        raise ValueError(f"pooling: expected one of {', '.join(list_poolings())}, got {name!r}")
    return partial(PPool2d, **ppool_options) if name == "ppool" else _POOLINGS[name]
