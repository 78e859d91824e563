"""Groups of parameters for an optimiser: trunk, side branches, biases that alpha rests on."""

from __future__ import annotations

from typing import Any

from torch import nn

from ppool.module import PPool2d

__all__ = ["branch_biases", "branch_weights", "parameter_groups"]


def branch_biases(model: nn.Module) -> list[nn.Parameter]:
    """The bias that each side branch of ``model`` ends in: alpha where its input is silent."""
    return [m.point_bias for m in model.modules() if isinstance(m, PPool2d)]


def branch_weights(model: nn.Module) -> list[nn.Parameter]:
    """All other parameters of the side branches."""
    return [
        parameter
        for module in model.modules()
        if isinstance(module, PPool2d)
        for parameter in module.parameters()
        if parameter is not module.point_bias
    ]


def parameter_groups(
    model: nn.Module,
    lr: float,
    *,
    weight_decay: float = 0.0,
    branch_scale: float = 3.0,
    bias_scale: float = 100.0,
) -> list[dict[str, Any]]:
    """What to hand to ``torch.optim`` for a network with P-pooling.

    Weight decay would pull alpha, which rests on a bias, to 0, so side branches have none; biases
    and norms, everything of one axis, have none either. Alpha lives between 0 and 35 where a weight
    lives near 0.05, and its gradient falls as 1 / alpha ** 2: at the trunk's rate it would stay
    where it started.

    Args:
        model: Any module; without P-pooling the groups are those of the trunk alone.
        lr: The trunk's learning rate.
        weight_decay: Of the trunk's weights.
        branch_scale: The branches' rate over ``lr`` (Section 4.1: 3).
        bias_scale: The rate of the biases that the branches end in over ``lr``. With Adam, whose
            steps do not depend on a gradient's size, 100 lets alpha move by some 10 in 1,000 steps
            at 1e-3; with SGD it can be larger (180 in the first author's later code,
            github.com/kfxw/mydev-pytorch-semantic-segmentation at c1d4aaa).

    Returns:
        Groups with ``params``, ``lr`` and ``weight_decay``, none empty; parameters that need no
        gradient are left out, and each parameter is in one group, however often it is used.

    Example:
        >>> from torch import nn, optim
        >>> from ppool import PPool2d, parameter_groups
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), PPool2d(8, 2))
        >>> optimizer = optim.AdamW(parameter_groups(model, 1e-3, weight_decay=1e-4))
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.001, 0.001, 0.003, 0.1]
    """
    weights, biases = (
        {id(parameter) for parameter in found}
        for found in (branch_weights(model), branch_biases(model))
    )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in biases:
            key = lr * bias_scale, 0.0
        elif id(parameter) in weights:
            key = lr * branch_scale, 0.0
        else:
            key = lr, weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
