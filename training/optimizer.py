"""The optimiser of a recipe: which parameters learn at which rate and decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ppool.models import PretrainedNetwork
from ppool.parameters import branch_biases, branch_weights
from ppool.training.recipe import Recipe

__all__ = ["build_optimizer", "parameter_groups"]


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, over :func:`parameter_groups`."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Trunk, head and side branches apart, each group with its rate's ``scale`` and its decay.

    Weights of convolutions decay; biases, norms and side branches do not. Biases of the head learn
    at twice its rate (Caffe's habit, kept by DeepLab and by the code
    that :data:`ppool.training.recipe.AUTHOR` names).
    """
    branch = recipe.branch_learning_rate_scale
    bias = recipe.bias_learning_rate_scale
    branches = dict.fromkeys(map(id, branch_weights(model)), branch)
    branches |= dict.fromkeys(map(id, branch_biases(model)), branch if bias is None else bias)
    untrained = model.untrained if isinstance(model, PretrainedNetwork) else ()
    prefixes = tuple(f"{name}." for name in untrained)
    head = recipe.head_learning_rate_scale
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        weight = parameter.dim() > 1
        scale, decay = 1.0, recipe.weight_decay if weight else 0.0
        if id(parameter) in branches:
            scale, decay = branches[id(parameter)], 0.0
        elif name.startswith(prefixes) and head != 1.0:
            scale = head if weight else 2 * head
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
