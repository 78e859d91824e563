"""``create_model``: every network by name, with the pooling of your choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from models.unet_small import unet_small

__all__ = ["create_model", "list_models"]

_MODELS: dict[str, Callable[..., nn.Module]] = {"unet_small": unet_small}


def list_models() -> list[str]:
    """Names accepted by :func:`create_model`."""
    return sorted(_MODELS)


def create_model(
    name: str, *, pooling: str | Mapping[str, str] = "ppool", num_classes: int = 21
) -> nn.Module:
    """Build a segmentation network.

    Args:
        name: One of :func:`list_models`.
        pooling: One of :func:`models.list_poolings` for all stages, or a mapping from each
            stage's name to one.
        num_classes: K.

    Returns:
        A module from normalised RGB, float32 [N, 3, H, W], to logits [N, K, h, w], with h and w
        the network's own resolution.

    Raises:
        ValueError: if a name is unknown.
    """
    if name not in _MODELS:
        raise ValueError(f"network: expected one of {', '.join(list_models())}, got {name!r}")
    return _MODELS[name](pooling=pooling, num_classes=num_classes)
