"""Where the exponents of a network's P-poolings stand."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ppool import PPool2d
from ppool.module import evaluating

__all__ = ["alpha_maps", "resting_alpha"]


def resting_alpha(model: nn.Module) -> dict[str, float]:
    """Mean bias of each side branch: where alpha stands when its input is silent."""
    return {
        f"alpha/{name}": round(float(module.point_bias.detach().mean()), 4)
        for name, module in model.named_modules()
        if isinstance(module, PPool2d)
    }


def alpha_maps(model: nn.Module, images: Iterable[Tensor]) -> dict[str, dict[str, float]]:
    """What the branches predict on images, by stage.

    Shape:
        ``images`` are normalised float32 [N, 3, H, W].

    Returns:
        For each stage the ``mean`` of alpha over images, channels and positions, and the lowest
        and highest mean of a channel.
    """
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str, pool: PPool2d, x: Tensor) -> None:
        seen.setdefault(name, []).append(pool.alpha(x).float().mean((0, 2, 3)))

    pools = {name: m for name, m in model.named_modules() if isinstance(m, PPool2d)}
    handles = [
        pool.register_forward_pre_hook(
            lambda pool, given, named, name=name: watch(name, pool, *given, **named),
            with_kwargs=True,
        )
        for name, pool in pools.items()
    ]
    try:
        with evaluating(model), torch.inference_mode():
            for image in images:
                model(image)
    finally:
        for handle in handles:
            handle.remove()
    channels = {name: torch.stack(means).mean(0) for name, means in seen.items()}
    return {
        name: {
            "mean": round(float(means.mean()), 3),
            "lowest_channel": round(float(means.min()), 3),
            "highest_channel": round(float(means.max()), 3),
        }
        for name, means in channels.items()
    }
